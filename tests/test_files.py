import errno
import os

import numpy as np
import polars as pl
import pytest
from full_disk import full_at
from safetensors.numpy import save_file

from goracs_jax.disk import reserve
from goracs_jax.errors import InputError
from goracs_jax.files import atomic, locked, prepare_folder, together, unnamed


def test_atomic_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(TypeError), atomic(path) as file:
        file.write(b"half", "no such argument")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


ROWS = np.zeros((1000, 8))  # 64,000 bytes


@pytest.mark.parametrize(
    "write",
    [
        lambda new: np.save(new / "x", ROWS),
        lambda new: np.savez(new / "x", ROWS),
        lambda new: save_file({"x": ROWS}, new / "x"),
        lambda new: pl.DataFrame(np.random.default_rng(0).random((1000, 8))).write_csv(
            new / "x"
        ),
        lambda new: (new / "x").write_bytes(ROWS.tobytes()),
    ],
    ids=["npy", "npz", "safetensors", "polars", "bytes"],
)
def test_a_full_disk_leaves_what_was_there(tmp_path, write):
    """Each library says it in its own way."""
    for name in ("x", "seal"):
        (tmp_path / name).write_text("old")
    with (
        pytest.raises(InputError, match=rf"{tmp_path}: the disk is full .* make room"),
        full_at(4096),
        together(tmp_path, ["x*"], seal="seal") as new,
    ):
        write(new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seal", "x"]
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("size", [5000, 50_000], ids=["in memory", "written"])
def test_a_full_disk_under_a_temporary_file(size):
    """What is in memory is written when the file is closed, where nobody looks."""
    with (
        pytest.raises(InputError, match="no room for a temporary file: set TMPDIR"),
        full_at(4096),
        unnamed() as file,
    ):
        file.write(bytes(size))


def test_room_is_taken_before_a_map_is_filled(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=rf"{path}: the disk is full .* make room"):
        reserve(path)
    assert not path.exists()


def test_no_space(tmp_path):
    with pytest.raises(
        InputError, match=r"MiB are needed and .* MiB are free: make room"
    ):
        prepare_folder(tmp_path, 1 << 60)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(
        InputError, match=r"out cannot be written \(.*\): choose another"
    ):
        prepare_folder(tmp_path / "out", 0)


def test_lock_is_free_again(tmp_path):
    with locked(tmp_path):
        other = locked(tmp_path)
        with pytest.raises(InputError, match="in use by another run"):
            other.__enter__()
    with locked(tmp_path):
        pass


def test_files_appear_together_or_not_at_all(tmp_path):
    contents = lambda: {
        p.name: p.read_text() for p in tmp_path.iterdir() if p.is_file()
    }
    names = ["a", "seal", "part-*"]
    (tmp_path / "other").write_text("kept")
    with together(tmp_path, names, "seal") as new:
        for name in ("seal", "part-1", "part-2"):
            (new / name).write_text("first")
    before = contents()
    assert before == dict.fromkeys(["seal", "part-1", "part-2"], "first") | {
        "other": "kept"
    }
    with pytest.raises(TypeError), together(tmp_path, names, "seal") as new:
        (new / "part-1").write_text(b"no text")  # the file is there, and empty
    assert contents() == before
    work = tmp_path / "work"
    with together(tmp_path, names, "seal", work) as new:
        assert new.parent == work
        for name in ("a", "seal", "part-2"):
            (new / name).write_text("third")
    assert contents() == dict.fromkeys(["a", "seal", "part-2"], "third") | {
        "other": "kept"
    }
    assert [*work.iterdir()] == []
