import pytest

from goracs_jax.errors import InputError
from goracs_jax.files import atomic, locked, prepare_folder


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
