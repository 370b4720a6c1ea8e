"""Arrays: files that `read_array` takes, and values that `as_array` takes."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import polars as pl
from safetensors.numpy import save_file

from goracs_jax.buckets import as_path
from goracs_jax.inputs.array_files import read_array
from goracs_jax.inputs.arrays import as_array
from kinds import Group, Kind

X = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
Y = np.arange(4.0)
LISTS = pl.List(pl.Float32)


def read(given):
    if isinstance(given, str | Path):
        return read_array(as_path(given), "embeddings", "floats").tolist()
    return as_array(given).tolist()


def npy(rows, name="x.npy", **options):
    def make(folder):
        np.save(folder / name, rows, **options)
        return folder / name

    return make


def npz(save=np.savez, name="", **arrays):
    def make(folder):
        save(folder / "x.npz", **arrays)
        return f"{folder}/x.npz{name}"

    return make


def tensors(name="", **arrays):
    def make(folder):
        save_file(arrays, folder / "x.safetensors")
        return f"{folder}/x.safetensors{name}"

    return make


def table(frame, name="", write=pl.DataFrame.write_parquet):
    def make(folder):
        write(frame, folder / "x.parquet")
        return f"{folder}/x.parquet{name}"

    return make


def vectors(*names, rows=X, **others):
    named = {name: rows.tolist() for name in names}
    return pl.DataFrame(named | others, schema_overrides=dict.fromkeys(names, LISTS))


def shards(suffix, pattern=""):
    """Eleven shards, of which x-10 comes after x-9."""

    def make(folder):
        for i, rows in enumerate(np.array_split(X, 11)):
            path = folder / f"x-{i}.{suffix}"
            if suffix == "npy":
                np.save(path, rows)
            elif suffix == "parquet":
                vectors("v", rows=rows).write_parquet(path)
            else:
                save_file({"a": rows}, path)
        return folder / pattern if pattern else folder

    return make


def parts(*rows, names="x-{}.npy"):
    def make(folder):
        for i, part in enumerate(rows):
            np.save(folder / names.format(i), part)
        return folder

    return make


def two_sets(folder):
    for name in ("train", "valid"):
        np.save(folder / f"{name}.npy", X)
    return folder


def lying_header(folder):
    """Safetensors whose header tells of more numbers than there are."""
    entry = {"dtype": "F32", "shape": [10**9, 9], "data_offsets": [0, 36 * 10**9]}
    header = json.dumps({"a": entry}).encode()
    path = folder / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def torch_file(folder):
    import torch

    torch.save(torch.tensor(X), folder / "x.pt")
    return folder / "x.pt"


def torch_of(change):
    def make(folder):
        import torch

        return change(torch.tensor(X), torch)

    return make


def pandas_of(change):
    def make(folder):
        import pandas

        return change(pandas)

    return make


def dataset(folder):
    """With its own choice of rows, beside texts."""
    import datasets

    columns = {"text": ["a"] * 11, "v": X[::-1].tolist()}
    return datasets.Dataset.from_dict(columns).select(range(10, -1, -1))


def arrow(folder):
    import pyarrow

    return pyarrow.table({"v": X.tolist()})


SMALL = (10 * X).astype(np.int8)
UNSIGNED = abs(SMALL).astype(np.uint8)
HALF = X.astype(ml_dtypes.bfloat16)

GROUP = Group(
    "Arrays: `--train-embeddings`, `--grad-norms` and so on; all arrays in Python",
    read,
    X.tolist(),
    (
        Kind(".npy", npy(X)),
        Kind(".npy, columns one after the other", npy(np.asfortranarray(X))),
        Kind(
            ".npy, FILE:NAME",
            lambda folder: f"{npy(X)(folder)}:x",
            line=r"x\.npy has one array without a name: leave out :x",
        ),
        Kind(".npy, bytes in the other order", npy(X.astype(">f4"))),
        Kind(".npz with one array", npz(x=X)),
        Kind(".npz, packed", npz(np.savez_compressed, x=X)),
        Kind(".npz with several arrays, FILE:NAME", npz(x=X, y=Y, name=":x")),
        Kind(
            ".npz with several arrays, FILE",
            npz(x=X, y=Y),
            line=r"has the arrays x, y: name one, as in .*x\.npz:x",
        ),
        Kind("safetensors with one tensor", tensors(x=X)),
        Kind("safetensors with several, FILE:NAME", tensors(x=X, y=Y, name=":x")),
        Kind("safetensors, bfloat16", tensors(x=HALF), HALF.tolist()),
        Kind("Parquet, a column of vectors", table(vectors("v"))),
        Kind("Parquet, the same beside texts", table(vectors("v", t=["a"] * 11))),
        Kind("Parquet, columns of numbers", table(pl.DataFrame(X))),
        Kind("Parquet, FILE:COLUMN", table(vectors("u", "v"), ":v")),
        Kind(
            "Parquet, several columns of vectors",
            table(vectors("u", "v")),
            line=r"have the columns u, v: give one column of vectors",
        ),
        Kind(
            "Parquet, a column that is not there",
            table(vectors("v"), ":u"),
            line=r"has no column 'u'",
        ),
        Kind(
            "Parquet, vectors of two lengths",
            table(pl.DataFrame({"v": [[1.0], [2.0], [3.0, 4.0]]})),
            line=r"row 2 \(from 0\) has 2 numbers, others have 1",
        ),
        Kind(
            "Parquet, a vector that is missing",
            table(pl.DataFrame({"v": [[1.0], None]})),
            line=r"row 1 \(from 0\) has no numbers",
        ),
        Kind("Arrow file", table(vectors("v"), write=pl.DataFrame.write_ipc)),
        Kind("Arrow stream", table(vectors("v"), write=pl.DataFrame.write_ipc_stream)),
        Kind("A folder of .npy shards", shards("npy")),
        Kind("A folder of safetensors shards", shards("safetensors")),
        Kind("A folder of Parquet shards", shards("parquet")),
        Kind("A pattern of shards", shards("npy", "x-*.npy")),
        Kind(
            "Shards of two widths",
            parts(X, X[:, :2]),
            line=r"its shards are float32 \[3\] and float32 \[2\]: write them alike",
        ),
        Kind(
            "Shards of two types",
            parts(X, X.astype(np.float16)),
            line=r"float32 \[3\] and float16 \[3\]",
        ),
        Kind(
            "Shards of which one is missing",
            parts(X, X, names="x-{}-of-00003.npy"),
            line=r"has 2 of 3 shards",
        ),
        Kind(
            "A folder of two data sets",
            two_sets,
            line=r"is a folder of several data sets \(.*\): name the file",
        ),
        Kind("int8", npy(SMALL), SMALL.tolist()),
        Kind("uint8", npy(UNSIGNED), UNSIGNED.tolist()),
        Kind(
            "Safetensors whose header lies",
            lying_header,
            line=r"is not a file of numbers or strings that can be read",
        ),
        Kind(
            "Pickled objects in .npy",
            npy(np.array([{}]), allow_pickle=True),
            line=r"is not a file of numbers or strings that can be read",
        ),
        Kind(
            "PyTorch files (.pt), which are pickles",
            torch_file,
            line=r"is a file of PyTorch, a pickle, .*: write it with safetensors",
            needs="torch",
        ),
        Kind("In Python: NumPy", lambda folder: X),
        Kind("In Python: lists", lambda folder: X.tolist()),
        Kind("In Python: a frame of polars", lambda folder: pl.DataFrame(X)),
        Kind(
            "In Python: its column of vectors", lambda folder: vectors("v", t=[1] * 11)
        ),
        Kind("In Python: a series of polars", lambda folder: vectors("v").to_series()),
        Kind(
            "In Python: a tensor of PyTorch (DLPack)",
            torch_of(lambda x, torch: x),
            needs="torch",
        ),
        Kind(
            "In Python: the same, bfloat16",
            torch_of(lambda x, torch: x.bfloat16()),
            HALF.tolist(),
            needs="torch",
        ),
        Kind(
            "In Python: the same, int8",
            torch_of(lambda x, torch: (10 * x).to(torch.int8)),
            SMALL.tolist(),
            needs="torch",
        ),
        Kind(
            "In Python: a tensor that takes part in training",
            torch_of(lambda x, torch: x.requires_grad_()),
            line=r"give tensor\.detach\(\)\.cpu\(\)",
            needs="torch",
        ),
        Kind(
            "In Python: a frame of pandas",
            pandas_of(lambda pandas: pandas.DataFrame(X)),
            needs="pandas",
        ),
        Kind(
            "In Python: its column of vectors",
            pandas_of(lambda pandas: pandas.DataFrame({"t": "a", "v": [*X]})),
            needs="pandas",
        ),
        Kind(
            "In Python: the same as an array of arrays",
            pandas_of(lambda pandas: pandas.Series([*X]).to_numpy()),
            needs="pandas",
        ),
        Kind("In Python: a table of PyArrow", arrow, needs="pyarrow"),
        Kind("In Python: a `datasets.Dataset`", dataset, needs="datasets"),
        Kind(
            "In Python: lists of two lengths",
            lambda folder: [[1.0], [2.0, 3.0]],
            line=r"give one list of numbers for each row, all of one length",
        ),
    ),
)
