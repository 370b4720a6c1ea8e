"""Arrays of files are used where they lie, and their hashes name their content."""

import errno
import gzip
import json
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import polars as pl
import pytest
import scipy.sparse
from kinds.arrays import X, shards
from safetensors.numpy import save_file

from goracs_jax.errors import InputError
from goracs_jax.inputs.array_files import ALIGNED, Named, hash_array, read_array
from goracs_jax.inputs.arrays import as_array


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


def test_the_index_of_pandas_is_no_dimension(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abc"), index=range(20, 9, -1))
    frame[::-1].to_parquet(tmp_path / "x.parquet")
    index = pandas.Index(np.arange(11)[::-1] % 7)
    frame.set_index(index).to_parquet(tmp_path / "y.parquet")
    assert "__index_level_0__" in pl.read_parquet_schema(tmp_path / "y.parquet")
    np.testing.assert_array_equal(read(tmp_path / "x.parquet"), X[::-1])
    np.testing.assert_array_equal(read(tmp_path / "y.parquet"), X)


def test_ids_beside_floats_are_no_dimension(tmp_path):
    frame = pl.DataFrame(X).with_row_index("id")
    frame.write_parquet(tmp_path / "x.parquet")
    for source in (lambda: read(tmp_path / "x.parquet"), lambda: as_array(frame)):
        with pytest.raises(InputError, match=r"whole numbers \(id\) beside others"):
            source()


def test_rows_are_counted_over_the_batches_of_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr("goracs_jax.inputs.tables.CHUNK", 4)
    rows = [[1.0, 2.0]] * 11
    rows[9] = [1.0]
    pl.DataFrame({"v": rows}).write_parquet(tmp_path / "x.parquet", row_group_size=4)
    with pytest.raises(InputError, match=r"row 9 \(from 0\) has 1 numbers, others"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize("rows", [[None, None], [[], []], [[], [1.0]], [[1.0], []]])
def test_vectors_without_numbers(rows):
    column = pl.Series("v", rows, pl.List(pl.Float32))
    row = rows.index([1.0]) ^ 1 if [1.0] in rows else 0
    with pytest.raises(InputError, match=rf"row {row} \(from 0\) has no numbers"):
        as_array(column)


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["Yes", "No"])])
def test_labels_in_a_dictionary(tmp_path, dtype):
    labels = ["Yes", "No", "Yes"]
    frame = pl.DataFrame({"label": pl.Series(labels, dtype=dtype)})
    frame.write_parquet(tmp_path / "l.parquet")
    frame.write_ipc(tmp_path / "l.arrow")
    for found in (read(tmp_path / "l.parquet"), read(tmp_path / "l.arrow")):
        assert found.tolist() == labels
    assert as_array(frame).tolist() == labels


def test_columns_of_pandas_as_arrays_of_objects():
    vectors = np.empty(len(X), object)
    vectors[:] = list(X)
    np.testing.assert_array_equal(as_array(vectors), X)
    assert as_array(np.array(["a", "bc"], object)).tolist() == ["a", "bc"]
    vectors[3] = X[3, :2]
    with pytest.raises(InputError, match="one list of numbers for each row"):
        as_array(vectors)


@pytest.mark.parametrize("shape", [X.shape, (len(X),)])
def test_bytes_in_the_other_order(tmp_path, shape):
    rows = X[:, 0] if len(shape) == 1 else X
    np.save(tmp_path / "x.npy", rows.astype(">f4"))
    np.savez(tmp_path / "x.npz", x=rows.astype(">f4"))
    for name in ("x.npy", "x.npz"):
        found = read(tmp_path / name)
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, rows)
    assert as_array(rows.astype(">f4")).dtype.isnative


def test_a_name_with_the_characters_of_a_pattern(tmp_path):
    """A pattern would find x1.parquet, and read it in place of the file."""
    for name, rows in (("x[1].parquet", X), ("x1.parquet", 0 * X)):
        pl.DataFrame({"v": rows.tolist()}).write_parquet(tmp_path / name)
    np.testing.assert_allclose(read(tmp_path / "x[1].parquet"), X)


def test_no_room_for_a_copy_is_told_as_such(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = shards("npy")(tmp_path)
    monkeypatch.setattr("goracs_jax.inputs.array_files._cut", full)
    with pytest.raises(InputError, match="no room for a temporary file: set TMPDIR"):
        read(folder)


def test_names_of_arrays_may_have_colons(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a:b:c": X, "b:c": 0 * X}, file)
    np.testing.assert_array_equal(read(Path(f"{file}:a:b:c")), X)
    with pytest.raises(InputError, match=r"has the arrays a:b:c, b:c: name one"):
        read(Path(f"{file}:c"))
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        read(tmp_path / "none.npz:a:b")


def test_a_sparse_matrix_is_named_as_such(tmp_path):
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(X))
    for path in (tmp_path / "x.npz", tmp_path / "x.npz:data"):
        with pytest.raises(InputError, match=r"sparse matrix of SciPy: .*toarray"):
            read(path)


def test_a_colon_in_front_names_no_array():
    assert Named.of(Path(":x")) == (Path(":x"), "")
    with pytest.raises(InputError, match=":x does not exist"):
        read(Path(":x"))


@pytest.mark.parametrize("write", [np.save, np.savez])
def test_bfloat16_has_lost_its_type_in_npy(tmp_path, write):
    path = tmp_path / ("x.npy" if write is np.save else "x.npz")
    write(path, X.astype(ml_dtypes.bfloat16))
    with pytest.raises(InputError, match=r"type \|V2, as which bfloat16 is kept\)"):
        read(path)


def test_columns_of_a_table_of_pyarrow():
    pa = pytest.importorskip("pyarrow")
    flat = pa.array(X.ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, X.shape[1])
    several = pa.chunked_array([fixed[:2], fixed[2:]])
    for column in (pa.array(X.tolist(), pa.list_(pa.float32())), fixed, several):
        np.testing.assert_array_equal(as_array(column), X)
    np.testing.assert_array_equal(as_array(pa.chunked_array([flat])), X.ravel())


def test_masked_rows():
    np.testing.assert_array_equal(as_array(np.ma.array(X)), X)
    with pytest.raises(InputError, match="have masked values"):
        as_array(np.ma.array(X, mask=X > 0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one.npy", "has one number: give one for each row"),
        ("x.npy.gz", r"x\.npy\.gz is packed: unpack it"),
        ("gaps.parquet", "it has gaps, or values of another kind"),
        ("texts.zip", r"texts\.zip is not a file .*its part is no array"),
        ("x" * 300, "cannot be opened"),
    ],
)
def test_what_is_no_array(tmp_path, name, message):
    np.save(tmp_path / "one.npy", np.float32(1))
    content = (tmp_path / "one.npy").read_bytes()
    (tmp_path / "x.npy.gz").write_bytes(gzip.compress(content))
    pl.DataFrame({"l": ["a", None]}).write_parquet(tmp_path / "gaps.parquet")
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_rows_without_numbers_are_not_counted_one_by_one(tmp_path):
    entry = {"dtype": "F32", "shape": [10**15, 0], "data_offsets": [0, 0]}
    header = json.dumps({"a": entry}).encode() + b" "  # so that the data are unaligned
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match=r"is not a file of numbers"):
        read(file)
