import pytest

from goracs_jax.errors import InputError
from goracs_jax.files import atomic, locked, prepare_folder, together


def test_atomic_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(TypeError), atomic(path) as file:
        file.write(b"half", "no such argument")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


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
