"""What is staged for a bucket comes there whole, in its order, and back again."""

import os
from pathlib import Path

import pytest
import s3fs

from goracs_jax.buckets import Staged, as_path, deliver, writable
from goracs_jax.buckets.staged import sending
from goracs_jax.errors import InputError
from goracs_jax.files import atomic, locked, prepare_folder, together, write_json

OUT = "s3://pool/runs/out"


def there(bucket):
    return sorted(key.removeprefix("pool/runs/") for key in bucket.find("pool/runs"))


def test_a_staged_path_is_a_folder_of_this_machine(bucket):
    out = Staged(OUT)
    prepare_folder(out, 0)
    with locked(out / "cells"):
        (out / "cells/a").mkdir()
        (out / "cells/a/x").write_text("x")
    assert os.path.isdir(out)
    assert (out / "cells/a/x").read_text() == "x"
    assert [str(path) for path in out.glob("*/a/x")] == [f"{OUT}/cells/a/x"]
    assert {path.name for path in out.rglob("*")} == {"cells", ".lock", "a", "x"}
    assert str(out.resolve()) == str(out) == OUT
    assert there(bucket) == []


def test_all_is_sent_and_what_goes_here_goes_there(bucket):
    out = Staged(OUT)
    out.mkdir(parents=True)
    for name in ("a", "parts/1", "parts/2", ".lock", "b.part", "states.bin"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    deliver(out)
    assert there(bucket) == ["out/a", "out/parts/1", "out/parts/2"]
    assert bucket.cat("pool/runs/out/parts/2") == b"parts/2"
    (out / "parts/1").unlink()
    (out / "a").write_text("other")
    deliver(out)
    assert there(bucket) == ["out/a", "out/parts/2"]
    assert bucket.cat("pool/runs/out/a") == b"other"


def test_only_what_changed_is_sent(bucket, requests):
    out = Staged(OUT)
    out.mkdir(parents=True)
    for name in "abc":
        (out / name).write_text(name)
    puts = lambda: sum("PUT" in line for line in requests(out.send))
    assert puts() == 4  # with the list of the three
    assert puts() == 0
    (out / "b").write_text("new")
    assert puts() == 1


def test_a_seal_goes_first_and_comes_last(bucket, requests):
    """At no time does a manifest lie beside files of another run."""
    out = Staged(OUT)
    out.mkdir(parents=True)
    names = ("z.npy", "b.npy", "manifest.json")

    def write(text):
        with together(out, names, seal="manifest.json") as new:
            for name in ("manifest.json", "z.npy", "b.npy"):
                (new / name).write_text(text)
        out.send()

    for text in ("one", "two"):
        lines = requests(lambda text=text: write(text))
        changes = [x.split('"')[1].split("?")[0] for x in lines if "HEAD" not in x]
        changes = [x.split() for x in changes if x.startswith(("PUT", "DELETE"))]
        order = [(verb, path.rpartition("/")[2]) for verb, path, *_ in changes]
        assert order[0] == ("PUT", "out.sending")
        assert order[-1] == ("DELETE", "out.sending")
        order = order[1:-1]
        assert order[-1] == ("PUT", "manifest.json")
        assert (order[0] == ("DELETE", "manifest.json")) == (text == "two")
    assert {bucket.cat(f"pool/runs/out/{name}") for name in names} == {b"two"}


def test_an_upload_that_fails_leaves_the_old_object_or_none(bucket, monkeypatch):
    out = Staged(OUT)
    out.mkdir(parents=True)
    (out / "a").write_text("old")
    out.send()
    (out / "a").write_bytes(bytes(60 << 20))  # large enough for several parts

    async def fails(*_, **__):
        raise OSError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_put_file", fails)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match=r"out/a: s3 does not answer \(OSError"):
            out.send()
    s3fs.S3FileSystem.clear_instance_cache()
    assert bucket.cat("pool/runs/out/a") == b"old"
    out.send()
    assert bucket.info("pool/runs/out/a")["size"] == 60 << 20


def test_another_machine_goes_on(bucket, tmp_path, monkeypatch):
    one = Staged(OUT)
    one.mkdir(parents=True)
    (one / "deep").mkdir()
    (one / "deep/a").write_text("first")
    (one / "b").write_text("b")
    one.send()
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "other"))
    two = Staged(OUT)
    assert not two.exists()
    two.fetch()
    assert (two / "deep/a").read_text() == "first"
    (two / "deep/a").write_text("second")
    (two / "b").unlink()
    two.send()
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "cache"))
    (one / "mine").write_text("never sent")
    one.fetch()
    assert (one / "deep/a").read_text() == "second"
    assert not (one / "b").exists()
    assert (one / "mine").read_text() == "never sent"


def test_what_was_not_sent_is_newer(bucket):
    """A run that was killed left here more than there."""
    out = Staged(OUT)
    out.mkdir(parents=True)
    (out / "a").write_text("sent")
    out.send()
    (out / "a").write_text("not sent")
    out.fetch()
    assert (out / "a").read_text() == "not sent"


def test_a_cache_that_was_emptied_is_filled_again(bucket):
    out = Staged(OUT)
    out.mkdir(parents=True)
    (out / "a").write_text("a")
    out.send()
    Path(os.fspath(out / "a")).unlink()
    out.fetch()
    assert (out / "a").read_text() == "a"


def test_work_that_fails_is_sent_too(bucket):
    out = Staged(OUT)

    def work():
        with sending([out]):
            out.mkdir(parents=True)
            write_json(out / "done.json", {})
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert there(bucket) == ["out/done.json"]


def test_halves_of_a_machine_that_was_lost_are_not_taken(bucket, tmp_path, monkeypatch):
    out = Staged(OUT)
    out.mkdir(parents=True)
    (out / "old").write_text("whole")
    out.send()
    for name in ("1", "2"):
        (out / name).write_text(name)

    async def cut(store, local, *given, **named):
        if local.endswith("/2"):
            raise OSError("the machine is lost")
        return await put(store, local, *given, **named)

    put = s3fs.S3FileSystem._put_file
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_put_file", cut)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match="the machine is lost"):
            out.send()
    s3fs.S3FileSystem.clear_instance_cache()
    assert there(bucket) == ["out.sending", "out/1", "out/old"]
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "other"))
    out.fetch()
    assert sorted(os.listdir(out)) == ["old"]
    (out / "new").write_text("new")
    out.send()
    assert there(bucket) == ["out/new", "out/old"]


def test_one_file_in_python(bucket):
    with writable("s3://pool/runs/x.json") as path, atomic(path) as file:
        file.write(b"whole")
    assert bucket.cat("pool/runs/x.json") == b"whole"
    assert there(bucket) == ["x.json"]


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("s3://nowhere/out", r"nowhere/out\S* cannot be written .*make the bucket"),
        ("s3://pool", r"s3://pool is a whole bucket: name a folder in it"),
    ],
)
def test_where_nothing_can_be_written(bucket, out, line):
    with pytest.raises(InputError, match=line), writable(out):
        pytest.fail("nothing is done before")


def test_what_is_read_is_not_written(bucket):
    path = as_path("s3://pool/a")
    with pytest.raises(InputError, match="s3://pool/a is read: it cannot be written"):
        path.open("wb")
    with pytest.raises(InputError, match="s3://pool/a is read: it cannot be written"):
        path.mkdir()
