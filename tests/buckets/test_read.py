"""What is read from a bucket is what was put there, and no more than is needed."""

import gzip
import json
import os
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from full_disk import full_at
from kinds import arrays, records
from safetensors.numpy import save_file

import goracs_jax as gx
from goracs_jax.buckets import Remote, Staged, as_path
from goracs_jax.errors import InputError
from goracs_jax.files import existing_file, hash_files
from goracs_jax.inputs.array_files import hash_array, read_array
from goracs_jax.inputs.parts import files_of
from goracs_jax.inputs.records import How, names_of, records_of
from goracs_jax.inputs.tables import batches
from goracs_jax.settings.parser import READ


def test_names_are_those_of_urls():
    path = as_path("s3://pool//a/b-1.npy")
    assert isinstance(path, Remote)
    assert isinstance(path, Path)
    assert str(path) == f"{path}" == "s3://pool/a/b-1.npy"
    assert str(path.parent / "c") == "s3://pool/a/c"
    assert str(path.with_name("d.npy")) == "s3://pool/a/d.npy"
    assert (path.name, path.stem, path.suffix) == ("b-1.npy", "b-1", ".npy")
    assert path.relative_to(path.parent).parts == ("b-1.npy",)
    assert path.is_relative_to(as_path("s3://pool/a"))
    assert path == as_path("s3://pool/a/b-1.npy") != as_path("gs://pool/a/b-1.npy")
    assert pickle.loads(pickle.dumps(path)) == path
    assert READ[Path]("gs://a/b") == as_path("gs://a/b")
    assert type(as_path("a/s3:/b")) is type(Path())


@pytest.mark.parametrize("text", ["s3://", "hf://a/../b", "http://a/b"])
def test_what_is_no_path_in_a_bucket_is_refused(text):
    with pytest.raises(InputError, match=r"URLs of s3://, gs:// and hf://|no path in"):
        as_path(text)


def test_files_and_folders(bucket):
    for name in ("x-10.npy", "x-2.npy", "deep/y.npy"):
        bucket.pipe(f"pool/in/{name}", name.encode())
    bucket.touch("pool/in/")  # the mark of a folder that a console makes
    folder = as_path("s3://pool/in")
    assert folder.is_dir()
    assert folder.exists()
    assert not folder.is_file()
    assert sorted(p.name for p in folder.iterdir()) == ["deep", "x-10.npy", "x-2.npy"]
    two, ten = folder / "x-2.npy", folder / "x-10.npy"
    assert two.is_file()
    assert two.stat().st_size == 7
    assert two.read_bytes() == b"x-2.npy"
    assert two.read_text() == "x-2.npy"
    assert not (folder / "x").exists()
    assert not as_path("s3://none/x").exists()
    assert files_of(folder / "x-*.npy") == [two, ten]
    assert files_of(folder) == [two, ten]
    assert [str(p) for p in folder.glob("d*/*.npy")] == ["s3://pool/in/deep/y.npy"]
    assert {p.name for p in folder.rglob("*") if p.is_file()} == {
        *("x-2.npy", "x-10.npy", "y.npy")
    }
    with pytest.raises(InputError, match="s3://pool/in is a folder: name the file"):
        existing_file(folder)
    with pytest.raises(InputError, match=r"s3://pool/in/z does not exist: check"):
        existing_file(folder / "z")


def put(bucket, folder):
    bucket.put(f"{folder}/", "pool/in", recursive=True)


@pytest.mark.parametrize(
    "group", [records.GROUP, arrays.GROUP], ids=["texts", "arrays"]
)
def test_every_kind_of_file_is_read_as_on_a_disk(group, bucket, tmp_path):
    """Or refused by the same line."""
    tried = 0
    for i, kind in enumerate(group.kinds):
        folder = tmp_path / str(i)
        folder.mkdir()
        try:
            made = kind.make(folder)
        except ModuleNotFoundError:  # an oracle's library that is not here
            continue
        if not isinstance(made, str | Path):
            continue
        bucket.put(f"{folder}/", f"pool/{i}", recursive=True)
        there = as_path(str(made).replace(str(folder), f"s3://pool/{i}"))
        found = [outcome(group, path) for path in (as_path(made), there)]
        here, remote = (x.replace(str(folder), f"s3://pool/{i}") for x in found)
        assert remote == here, kind.name
        tried += 1
    assert tried > 20


def outcome(group, path):
    try:
        return repr(group.read(path))
    except InputError as error:
        return f"refused: {error}"


def test_a_copy_is_fetched_once_for_each_content(bucket, requests):
    bucket.pipe("pool/a.txt", b"one")
    path = as_path("s3://pool/a.txt")
    fetched = lambda: [x for x in requests(lambda: os.fspath(path)) if "GET" in x]
    assert len(fetched()) == 1
    assert fetched() == []
    assert Path(os.fspath(path)).read_text() == "one"
    bucket.pipe("pool/a.txt", b"two")
    assert len(fetched()) == 1
    assert Path(os.fspath(path)).read_text() == "two"


def test_a_full_disk_of_this_machine(bucket, tmp_path):
    bucket.pipe("pool/a.bin", bytes(1 << 16))
    path = as_path("s3://pool/a.bin")
    for full in (path, Staged(str(path))):
        call = full.fetch if isinstance(full, Staged) else full.__fspath__
        line = rf"{tmp_path}.*a\.bin: the disk is full .*: make room"
        with full_at(4096), pytest.raises(InputError, match=line):
            call()
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]
    assert Path(os.fspath(path)).stat().st_size == 1 << 16


def test_a_hash_tells_contents_apart_without_reading_them(bucket, requests):
    bucket.pipe({"pool/a": b"one", "pool/b": b"one", "pool/c": b"two"})
    a, b, c = (as_path(f"s3://pool/{name}") for name in "abc")
    assert hash_files(a) == hash_files(b) != hash_files(c)
    assert not [line for line in requests(lambda: hash_files(a)) if "GET" in line]


class Counted:
    """The bytes that reads of objects fetched."""

    def __init__(self, monkeypatch):
        import s3fs

        self.bytes, plain = 0, s3fs.S3FileSystem._cat_file

        async def counted(store, path, *args, **named):
            found = await plain(store, path, *args, **named)
            self.bytes += len(found)
            return found

        async def refused(*_, **__):  # a plain function would not be called
            raise AssertionError("fetched whole")

        monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
        monkeypatch.setattr(s3fs.S3FileSystem, "_get_file", refused)


BIG = 3 << 20  # floats: 12 MiB, some times what one range has


def test_one_tensor_of_many_is_fetched_alone(bucket, tmp_path, monkeypatch):
    x, big = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(BIG, np.float32)
    save_file({"x": x, "a": big, "b": big}, tmp_path / "x.safetensors")
    put(bucket, tmp_path)
    counted = Counted(monkeypatch)
    found = read_array(as_path("s3://pool/in/x.safetensors:x"), "rows", "floats")
    np.testing.assert_array_equal(found, x)
    assert counted.bytes < 1 << 20


def test_one_array_of_a_zip_is_fetched_alone(bucket, tmp_path, monkeypatch):
    big = np.zeros(BIG, np.float32)
    np.savez(tmp_path / "x.npz", a=big, x=np.ones((2, 3)), b=big, c=big)
    put(bucket, tmp_path)
    counted = Counted(monkeypatch)
    found = read_array(as_path("s3://pool/in/x.npz:x"), "rows", "floats")
    np.testing.assert_array_equal(found, np.ones((2, 3)))
    assert counted.bytes < 2 << 20
    assert hash_array(as_path("s3://pool/in/x.npz:x"))


def test_one_column_of_a_table_is_fetched_alone(bucket, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    wide = {name: rng.random(BIG // 4) for name in "abcd"}
    x = rng.normal(size=(BIG // 4, 2)).astype(np.float32)
    pl.DataFrame(wide | {"x": x}).write_parquet(tmp_path / "x.parquet")
    put(bucket, tmp_path)
    counted = Counted(monkeypatch)
    found = read_array(as_path("s3://pool/in/x.parquet:x"), "rows", "floats")
    np.testing.assert_array_equal(found, x)
    size = (tmp_path / "x.parquet").stat().st_size
    assert counted.bytes < size * 0.6


def test_columns_of_interactions_are_fetched_alone(bucket, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    wide = {name: rng.random(BIG // 4) for name in "abcd"}
    ids = pl.Series(np.arange(BIG // 4) % 100)
    pl.DataFrame(wide | {"user": ids, "item": ids}).write_parquet(
        tmp_path / "r.parquet"
    )
    put(bucket, tmp_path)
    counted = Counted(monkeypatch)
    path = as_path("s3://pool/in/r.parquet")
    assert names_of(path) == [*wide, "user", "item"]
    assert counted.bytes < 1 << 18
    (_, first), *_ = records_of(path, How(columns=("user", "item")))
    assert first.fields == {"user": 0, "item": 0}
    assert counted.bytes < (tmp_path / "r.parquet").stat().st_size * 0.6


def test_a_file_that_is_no_array_is_refused_by_its_start(bucket, tmp_path, monkeypatch):
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, "
    header += b"'shape': (9, 9), }".ljust(118 - 40) + b"\n"
    (tmp_path / "x.npy").write_bytes(header + bytes(4 * BIG))
    put(bucket, tmp_path)
    counted = Counted(monkeypatch)
    with pytest.raises(InputError, match=r"s3://pool/in/x\.npy is not a file of"):
        read_array(as_path("s3://pool/in/x.npy"), "rows", "floats")
    assert counted.bytes < 1 << 20


def test_texts_are_streamed(bucket, monkeypatch):
    lines = b"".join(
        json.dumps({"instruction": "i" * 900, "output": str(i)}).encode() + b"\n"
        for i in range(9000)
    )
    bucket.pipe({"pool/a.jsonl": lines, "pool/a.jsonl.gz": gzip.compress(lines, 1)})
    counted = Counted(monkeypatch)
    found = gx.read_examples("s3://pool/a.jsonl")
    assert len(found) == 9000
    assert found[8999].record["output"] == "8999"
    assert found[7].place == "s3://pool/a.jsonl:8"
    assert counted.bytes < 2.2 * len(lines)
    assert gx.read_examples("s3://pool/a.jsonl.gz")[5].record == found[5].record


def test_a_column_that_is_not_there(bucket, tmp_path):
    pl.DataFrame({"a": [1, 2]}).write_parquet(tmp_path / "x.parquet")
    put(bucket, tmp_path)
    with pytest.raises(InputError, match="has no column 'u': check the name"):
        read_array(as_path("s3://pool/in/x.parquet:u"), "rows", "floats")
    assert [f.columns for f in batches(as_path("s3://pool/in/x.parquet"))] == [["a"]]
