"""Arrays of files of all kinds are those that were written."""

import json

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from goracs_jax.errors import InputError
from goracs_jax.inputs.array_files import hash_array, read_array

X = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
Y = np.arange(4.0)


def read(path):
    return read_array(path, "embeddings", "floats")


def parquet(path, rows=X, **others):
    pl.DataFrame({"vector": rows.tolist()} | others).with_columns(
        pl.col("vector").cast(pl.List(pl.Float32))
    ).write_parquet(path)
    return path


def ipc(path, stream=False):
    frame = pl.DataFrame({"text": ["a"] * 11, "vector": X})
    frame.write_ipc_stream(path) if stream else frame.write_ipc(path)
    return path


def saved(save, path, *args, **named):
    save(path, *args, **named)
    return path


ONE = {
    "npy": lambda f: saved(np.save, f / "x.npy", X),
    "npy of columns": lambda f: saved(np.save, f / "x.npy", np.asfortranarray(X)),
    "npz": lambda f: saved(np.savez, f / "x.npz", X),
    "npz by name": lambda f: str(saved(np.savez, f / "x.npz", a=X, b=Y)) + ":a",
    "npz, packed": lambda f: saved(np.savez_compressed, f / "x.npz", a=X),
    "safetensors": lambda f: (
        save_file({"a": X}, f / "x.safetensors"),
        f / "x.safetensors",
    )[1],
    "safetensors by name": lambda f: (
        save_file({"b": Y, "a": X}, f / "x.safetensors"),
        f"{f}/x.safetensors:a",
    )[1],
    "parquet": lambda f: parquet(f / "x.parquet"),
    "parquet with texts": lambda f: parquet(f / "x.parquet", text=["a"] * 11),
    "parquet by name": lambda f: (
        str(parquet(f / "x.parquet", other=X.tolist())) + ":vector"
    ),
    "parquet of columns": lambda f: saved(
        lambda path: pl.DataFrame(X).write_parquet(path), f / "x.parquet"
    ),
    "arrow file": lambda f: ipc(f / "x.arrow"),
    "arrow stream": lambda f: ipc(f / "x.arrow", stream=True),
}


@pytest.mark.parametrize("kind", ONE)
def test_one_file(tmp_path, kind):
    from pathlib import Path

    found = read(Path(ONE[kind](tmp_path)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)


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
def test_shards_are_in_the_order_of_their_numbers(tmp_path, suffix):
    (tmp_path / "rows").mkdir()
    for i, rows in enumerate(np.array_split(X, 11)):
        path = tmp_path / "rows" / f"x-{i}.{suffix}"  # x-10 comes after x-9
        if suffix == "npy":
            np.save(path, rows)
        elif suffix == "parquet":
            parquet(path, rows)
        else:
            save_file({"a": rows}, path)
    for path in (tmp_path / "rows", tmp_path / "rows" / f"x-*.{suffix}"):
        found = read(path)
        np.testing.assert_array_equal(found, X)
        # Not in memory: a file that is mapped.
        assert isinstance(found, np.memmap)
    assert hash_array(tmp_path / "rows") == hash_array(path)


def test_labels_of_texts(tmp_path):
    pl.DataFrame({"label": ["Yes", "No", "Yes"]}).write_parquet(tmp_path / "l.parquet")
    assert read(tmp_path / "l.parquet").tolist() == ["Yes", "No", "Yes"]


def broken_safetensors(folder):
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [10**9, 9], "data_offsets": [0, 36 * 10**9]}}
    ).encode()
    path = folder / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def shards(folder, *rows, names="x-{}.npy"):
    for i, part in enumerate(rows):
        np.save(folder / names.format(i), part)
    return folder


REFUSED = {
    "two arrays": (ONE["npz by name"], r"has the arrays a, b: name one, as in .*npz:a"),
    "no such array": (
        lambda f: str(saved(np.savez, f / "x.npz", a=X)) + ":c",
        r"has the arrays a: name one",
    ),
    "several columns": (
        lambda f: parquet(f / "x.parquet", other=X.tolist()),
        r"have the columns vector, other: give one column of vectors",
    ),
    "no such column": (
        lambda f: str(parquet(f / "x.parquet")) + ":c",
        r"has no column 'c'",
    ),
    "ragged": (
        lambda f: saved(
            lambda p: pl.DataFrame({"v": [[1.0], [2.0], [3.0, 4.0]]}).write_parquet(p),
            f / "x.parquet",
        ),
        r"row 2 \(from 0\) has 2 numbers, others have 1",
    ),
    "a gap": (
        lambda f: saved(
            lambda p: pl.DataFrame({"v": [[1.0], None]}).write_parquet(p),
            f / "x.parquet",
        ),
        r"row 1 \(from 0\) has no numbers",
    ),
    "a header that lies": (broken_safetensors, r"cannot be|can be read \("),
    "pickled": (
        lambda f: saved(np.save, f / "x.npy", np.array([{}]), allow_pickle=True),
        r"is not a file of numbers or strings .* write the embeddings as",
    ),
    "text": (
        lambda f: (f / "x.npy").write_text("1 2 3") and f / "x.npy",
        r"is not a file of numbers or strings",
    ),
    "shards of two widths": (
        lambda f: shards(f, X, X[:, :2]),
        r"the rows of its shards are float32 \[3\] and float32 \[2\]: write them alike",
    ),
    "shards of two types": (
        lambda f: shards(f, X, X.astype(np.float16)),
        r"float32 \[3\] and float16 \[3\]",
    ),
    "a shard is missing": (
        lambda f: shards(f, X, X, names="x-{}-of-00003.npy"),
        r"has 2 of 3 shards",
    ),
    "two data sets": (
        lambda f: saved(np.save, f / "y.npy", X) and shards(f, X, X),
        r"is a folder of several data sets \(.*\): name the file, or a pattern",
    ),
    "nothing fits": (lambda f: f / "x-*.npy", r"no file fits .*: check the pattern"),
    "no file": (lambda f: f / "none.npy", r"none\.npy does not exist"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(tmp_path, kind):
    from pathlib import Path

    make, message = REFUSED[kind]
    path = Path(str(make(tmp_path)).removesuffix(":a"))
    with pytest.raises(InputError, match=message):
        read(path)
