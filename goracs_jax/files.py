"""Open files that end, write them whole or not at all, hash and lock, find room."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import yaml

from goracs_jax.buckets import Remote
from goracs_jax.disk import is_full, room_for
from goracs_jax.errors import InputError, located, one_line

#: The largest file of flags or texts that is read: YAML is read slowly.
MOST_BYTES = 1 << 16
#: The first bytes of what Git leaves in place of a large file that was not fetched.
POINTER = b"version https://git-lfs."


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, written with sorted keys.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fetch_again(path: Path) -> str:
    """Say how to get a file that is not what its name says.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = file.write_bytes(POINTER + b"github.com/spec/v1")
    >>> fetch_again(file)
    'fetch it with git lfs pull, it is a pointer of Git LFS'
    """
    with path.open("rb") as file:
        pointer = file.read(len(POINTER)) == POINTER
    pull = "fetch it with git lfs pull, it is a pointer of Git LFS"
    return pull if pointer else "fetch it again"


def hash_files(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's files.

    Of an object in a bucket it is that of the mark which the store gives its content,
    such as its ETag, and of its size.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_text("x")
    >>> hash_files(folder) == hash_files(folder / "a")
    False
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return digest({str(p.relative_to(path)): hash_files(p) for p in inside})
    if isinstance(path, Remote):  # the store has read it: nobody else needs to
        return digest(path.mark)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_kind(path: Path) -> None:
    """Refuse what is neither a file nor a folder, if there is something.

    Reading a device or a pipe, of which a link can be one, may never end.

    Raises:
        InputError: It is a device, a pipe or a loop of links, or no name of a file.

    >>> check_kind(Path("/dev/null"))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: /dev/null: a device or a pipe: give a file.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except InputError:  # of a store that does not answer
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be opened ({reason}): give a file.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: a device or a pipe: give a file.")


def existing_file(path: Path) -> Path:
    """Check that a path is that of a file that can be read to its end.

    Raises:
        InputError: There is none, or it is a folder, or as `check_kind`.

    >>> existing_file(Path("/proc"))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: /proc is a folder: name the file in it.
    """
    check_kind(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the file in it.")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    return path


class _Loader(yaml.SafeLoader):
    """A reader of YAML in which no name of a mapping stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        names = (key.value for key, _ in node.value if isinstance(key.value, str))
        for name, times in Counter(names).most_common(1):
            if times > 1:
                raise yaml.YAMLError(f"{name!r:.60} stands twice")
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, flag: str) -> dict:
    """Read a YAML or JSON file that contains one mapping.

    Args:
        path: The file.
        flag: The flag that names the file, for the message.

    Returns:
        The mapping.

    Raises:
        InputError: The file cannot be read, or is not a mapping of names that stand
            once.

    >>> read_mapping(Path("/proc/none"), "--config")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: --config: /proc/none does not exist: check the path.
    """
    with located(flag):
        size = existing_file(path).stat().st_size
    if size > MOST_BYTES:
        raise InputError(
            f"{flag} {path}: {size:,} bytes are more than {MOST_BYTES:,}: give a file "
            "of lines `name: value`."
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        # A ValueError: bytes that are no text, a date that is none, too many digits.
        raise InputError(
            f"{flag} {path}: cannot be read ({one_line(error)}): correct it there."
        ) from None
    if not isinstance(values, dict):
        raise InputError(f"{flag} {path}: must be lines of `name: value`.")
    return values


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` only when it is complete.

    Raises:
        InputError: The disk is full.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x"
    >>> with atomic(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    part = path.with_name(path.name + ".part")
    try:
        with room_for(path), part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def unnamed() -> Iterator[IO[bytes]]:
    """Open a file without a name, which is gone when nothing has it open or mapped.

    It lies in the folder of `TMPDIR`, by default /tmp.

    Raises:
        InputError: There is no room in that folder.

    >>> with unnamed() as file:
    ...     # No space is left (ENOSPC).
    ...     raise OSError(28, "no space")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: ...: no room for a temporary file: set TMPDIR to ...
    """
    try:
        # What is still in memory is written when the file is closed, which may fail.
        with tempfile.TemporaryFile() as file:
            yield file
            file.flush()
    except OSError as error:
        if not is_full(error):
            raise
        raise InputError(
            f"{tempfile.gettempdir()}: no room for a temporary file: set TMPDIR to "
            "a folder on a larger disk."
        ) from None


@contextlib.contextmanager
def together(
    folder: Path, names: Sequence[str], seal: str, within: Path | None = None
) -> Iterator[Path]:
    """Write several files of a folder: all of them appear, or none does.

    Files of an earlier time stay until all new ones are complete. Then those under the
    same names go, and the new ones come, the seal last: it says that the files beside
    it are complete and belong together.

    Args:
        folder: The folder, which exists; no other run writes to it.
        names: The files that belong together, or patterns of their names; those that
            are not written are removed.
        seal: The one of them that goes first and comes last.
        within: Where they are written at first, on the same disk; by default the
            folder.

    Yields:
        The folder to write them in, which is on the same disk.

    Raises:
        InputError: The disk is full.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with together(folder, ["a", "b"], seal="b") as new:
    ...     _ = [(new / name).write_text(name) for name in "ba"]
    >>> sorted(path.name for path in folder.iterdir())
    ['a', 'b']
    """
    new = (within or folder) / ".writing"
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    with room_for(folder):
        new.mkdir(parents=True)
    try:
        with room_for(folder):
            yield new
        (folder / seal).unlink(missing_ok=True)
        made = {path.name for path in new.iterdir()}
        for path in filter(Path.is_file, [*folder.iterdir()]):
            ours = path.name in names or any(fnmatchcase(path.name, n) for n in names)
            if ours and path.name not in made:
                path.unlink()
        for name in sorted(made, key=seal.__eq__):
            os.replace(new / name, folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as an indented JSON file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.json"
    >>> write_json(path, {"a": [1]})
    >>> json.loads(path.read_text())
    {'a': [1]}
    """
    with atomic(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and lock it; the lock of a killed run vanishes with its process.

    Raises:
        InputError: Another run has locked the folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with locked(folder), locked(folder):
    ...     pass
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: ... is in use by another run: wait for it or ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder} is in use by another run: wait for it or choose another "
                "--out."
            ) from None
        yield


def prepare_folder(folder: Path, needed_bytes: int) -> None:
    """Make a folder for results, and check before any work that it can take them.

    Args:
        folder: The folder.
        needed_bytes: Free space that the results need.

    Raises:
        InputError: The folder cannot be made or written, or its disk has too little
            space.

    >>> prepare_folder(Path("/proc/none"), 0)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: /proc/none cannot be written (...): choose ...
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / ".writable"):
            pass
        (folder / ".writable").unlink()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): choose another --out."
        ) from None
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{folder}: {needed_bytes / 2**20:.0f} MiB are needed and "
            f"{free / 2**20:.0f} MiB are free: make room or choose another --out."
        )
