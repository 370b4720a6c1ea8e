"""Write files completely or not at all, hash them, lock folders, check disk space."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml

from goracs_jax.errors import InputError


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, written with sorted keys.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_files(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's files.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_text("x")
    >>> hash_files(folder) == hash_files(folder / "a")
    False
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return digest({str(p.relative_to(path)): hash_files(p) for p in inside})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_mapping(path: Path, flag: str) -> dict:
    """Read a YAML or JSON file that contains one mapping.

    Args:
        path: The file.
        flag: The flag that names the file, for the message.

    Returns:
        The mapping.

    Raises:
        InputError: The file cannot be read, or is not a mapping.

    >>> read_mapping(Path("/proc/none"), "--config")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: --config /proc/none: cannot be read (...).
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{flag} {path}: cannot be read ({reason}).") from None
    if not isinstance(values, dict):
        raise InputError(f"{flag} {path}: must be lines of `name: value`.")
    return values


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` only when it is complete.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x"
    >>> with atomic(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
