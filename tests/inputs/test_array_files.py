"""Arrays of files are used where they lie, and their hashes name their content."""

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from kinds.arrays import X, shards
from safetensors.numpy import save_file

from goracs_jax.errors import InputError
from goracs_jax.inputs.array_files import ALIGNED, hash_array, read_array


def read(path):
    return read_array(path, "embeddings", "floats")


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float64, np.int8, np.uint8, ml_dtypes.bfloat16]
)
def test_types_are_kept(tmp_path, dtype):
    rows = (10 * abs(X)).astype(dtype)
    save_file({"a": rows}, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
def test_shards_are_mapped_and_not_in_memory(tmp_path, suffix):
    found = read(shards(suffix)(tmp_path))
    np.testing.assert_array_equal(found, X)
    assert isinstance(found, np.memmap)
    assert found.ctypes.data % ALIGNED == 0


def test_one_file_is_mapped(tmp_path):
    np.save(tmp_path / "x.npy", X)
    save_file({"a": X}, tmp_path / "x.safetensors")
    for name in ("x.npy", "x.safetensors"):
        found = read(tmp_path / name)
        assert isinstance(found, np.memmap)
        assert found.ctypes.data % ALIGNED == 0


def test_the_hash_is_that_of_files_and_name(tmp_path):
    folder, pattern = shards("npy")(tmp_path), tmp_path / "x-*.npy"
    before = hash_array(folder)
    assert hash_array(pattern) == before
    np.save(tmp_path / "x-3.npy", 0 * X[:1])
    assert hash_array(folder) != before
    names = ("x-3.npy", "x-3.npy:a", "x-3.npy:b")
    assert len({hash_array(tmp_path / name) for name in names}) == 3


def test_labels_of_texts(tmp_path):
    pl.DataFrame({"label": ["Yes", "No", "Yes"]}).write_parquet(tmp_path / "l.parquet")
    assert read(tmp_path / "l.parquet").tolist() == ["Yes", "No", "Yes"]


@pytest.mark.parametrize("size", [4, 12, 300])
@pytest.mark.parametrize("write", ["write_parquet", "write_ipc", "write_ipc_stream"])
def test_damaged_tables(tmp_path, write, size):
    path = tmp_path / "x"
    getattr(pl.DataFrame({"v": X.tolist()}), write)(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"is damaged|that can be read"):
        read(path)
