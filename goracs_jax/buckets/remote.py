"""What is read from a bucket: in ranges, or as a copy on this machine."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from goracs_jax.buckets.paths import START, BucketPath
from goracs_jax.buckets.stores import STORES, asked, look_anew, mark_of, store_of
from goracs_jax.disk import room_for
from goracs_jax.errors import InputError

#: Bytes of the first range, and of the largest: each that follows another is twice as
#: long, so that a header costs little, and a whole file few requests.
FIRST, LONGEST = 1 << 16, 1 << 23
#: The files of a model's folder that say how texts are cut into tokens.
TOKENIZER = (".json", ".txt", ".model", ".jinja")


def as_path(path: str | Path) -> Path:
    """Make a path of a text: that of a file, or of a bucket if it is a URL.

    A ~ in front stands for the home of a user, as in a shell.

    Raises:
        InputError: The URL is of another kind, or leads upwards.

    >>> as_path("a/b.npy"), as_path("s3://bucket/b.npy")
    (PosixPath('a/b.npy'), Remote('s3://bucket/b.npy'))
    >>> as_path("ftp://host/b.npy")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: ftp://host/b.npy: URLs of s3://, gs:// and hf:// ...
    """
    if isinstance(path, Path):
        return path
    if not START.match(path):
        if path.partition("://")[1] and path.partition("://")[0].isalnum():
            schemes = " and ".join(f"{x}://" for x in STORES).replace(" and ", ", ", 1)
            raise InputError(
                f"{path}: URLs of {schemes} are read and no others: fetch it first, or "
                "copy it into a bucket."
            )
        with suppress(RuntimeError):  # there is no such user
            return Path(path).expanduser()
        return Path(path)
    found = Remote(path)
    if len(found.parts) < 2 or ".." in found.parts:
        raise InputError(f"{path}: no path in a bucket: write s3://BUCKET/NAME.")
    look_anew(path)
    return found


def local_folder(folder: Path) -> str:
    """Return a folder of this machine with the tokenizer's files of a model's folder.

    Args:
        folder: The model's folder, which may lie in a bucket; weights stay there.
    """
    if isinstance(folder, Remote):
        for path in folder.iterdir():
            if path.suffix in TOKENIZER and path.is_file():
                os.fspath(path)
    return os.fspath(folder)


class Remote(BucketPath):
    """A path in a bucket that is read.

    `open` reads in ranges. `os.fspath` copies the file to the cache of this machine,
    once for each content, and names the copy.
    """

    @property
    def described(self) -> dict[str, Any] | None:
        """What the store says of the object or folder; None where there is none."""
        try:
            return asked(str(self), lambda: store_of(str(self)).info(str(self)))
        except FileNotFoundError:
            return None

    @property
    def mark(self) -> str:
        """The mark of the object's content, as `mark_of` makes it."""
        return mark_of(self._found())

    def _found(self) -> dict[str, Any]:
        if (described := self.described) is None:
            raise FileNotFoundError(2, os.strerror(2), str(self))
        return described

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the kind and the size, as of a file; a time that follows the mark."""
        described = self._found()
        is_folder = described["type"] == "directory"
        mode = stat.S_IFDIR if is_folder else stat.S_IFREG
        size = int(described.get("size") or 0)
        return os.stat_result((mode, 0, 0, 0, 0, 0, size, 0, 0, 0))

    def _is(self, kind: str) -> bool:
        return (self.described or {}).get("type") == kind

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object, or some below."""
        return self.described is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is an object."""
        return self._is("file")

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether objects lie below."""
        return self._is("directory")

    def iterdir(self) -> Iterator["Remote"]:
        """Yield the objects and folders that lie in this one."""
        list_them = lambda: store_of(str(self)).ls(str(self), detail=False)
        names = [x.rstrip("/") for x in asked(str(self), list_them)]
        own = str(self).partition("://")[2]
        # A folder that a console made is an object of the folder's own name.
        return (self / x.rpartition("/")[2] for x in names if x != own)

    def open(  # type: ignore[override]
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Open the object to read it in ranges."""
        if mode not in ("r", "rb", "rt"):
            raise InputError(f"{self} is read: it cannot be written over.")
        file = io.BufferedReader(_Ranges(self), FIRST)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def mkdir(
        self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Refuse to write.

        Raises:
            InputError: In any case; `writable` gives a path that is written.
        """
        raise InputError(f"{self} is read: it cannot be written over.")

    def __fspath__(self) -> str:
        copy, kept = self.place("copies"), self.place("marks")
        described = self.described
        if not described or described["type"] == "directory":
            if copy.is_file():  # of an object that is no more
                copy.unlink()
            return str(copy)
        mark = mark_of(described)
        if copy.is_file() and kept.is_file() and kept.read_text() == mark:
            return str(copy)
        for place in (copy, kept):
            place.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
        try:
            fetch = lambda: store_of(str(self)).get_file(str(self), str(part))
            with room_for(copy):
                asked(str(self), fetch)
            kept.unlink(missing_ok=True)
            os.replace(part, copy)
        finally:
            part.unlink(missing_ok=True)
        kept.write_text(mark)
        return str(copy)


class _Ranges(io.RawIOBase):
    """An object of a store that is read in ranges, of which the last one is kept."""

    def __init__(self, path: Remote):
        self.name, self._at = str(path), 0
        self._store = store_of(self.name)
        self._size = path.stat().st_size
        self._kept, self._start = memoryview(b""), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}
        self._at = max(0, base[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not 0 <= self._at - self._start < len(self._kept):
            if self._at >= self._size:
                return 0
            follows = self._at == self._start + len(self._kept)
            length = min(2 * len(self._kept), LONGEST) if follows else 0
            end = min(self._at + max(length, FIRST, len(buffer)), self._size)
            take = partial(self._store.cat_file, self.name, start=self._at, end=end)
            self._kept, self._start = memoryview(asked(self.name, take)), self._at
        found = self._kept[self._at - self._start :][: len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
