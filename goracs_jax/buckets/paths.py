"""Paths in buckets: named as `Path` names files, and called by their URL."""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from goracs_jax.buckets.stores import STORES
from goracs_jax.cache import cache_folder

#: The start of a URL of a bucket, with two slashes or, as `Path` writes it, with one.
START = re.compile(rf"({'|'.join(STORES)}):/{{1,2}}(?=[^/]|$)")


class BucketPath(type(Path())):
    """A path in a bucket, whose text is its URL.

    `/`, `parent`, `name` and all else that `Path` does with names give paths in the
    same bucket. `os.fspath` gives a file or folder of this machine, which stands for
    it: all libraries that open files by their names open that one.

    >>> path = BucketPath("s3://bucket/a") / "b.npy"
    >>> str(path), str(path.with_name("c")), path.suffix
    ('s3://bucket/a/b.npy', 's3://bucket/a/c', '.npy')
    """

    def __str__(self) -> str:
        return START.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        raise NotImplementedError

    def place(self, kind: str) -> Path:
        """Return where something of this path is kept on this machine.

        Args:
            kind: What it is: each kind has a folder of its own in the cache.
        """
        return cache_folder().joinpath("buckets", kind, *self.parts).absolute()

    def resolve(self, strict: bool = False) -> "BucketPath":
        """Return the path itself: buckets have no links."""
        return self

    def absolute(self) -> "BucketPath":
        """Return the path itself."""
        return self

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yield what lies in this folder, in no order."""
        return (self / name for name in os.listdir(self))

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        """Yield the paths that fit a pattern; ** is not known."""
        first, _, rest = pattern.partition("/")
        if not self.is_dir():
            return
        for path in self.iterdir():
            if fnmatchcase(path.name, first):
                yield from path.glob(rest) if rest else (path,)

    def rglob(self, pattern: str) -> Iterator["BucketPath"]:
        """Yield the paths below this folder whose names fit a pattern."""
        for path in self.iterdir():
            if fnmatchcase(path.name, pattern):
                yield path
            if path.is_dir():
                yield from path.rglob(pattern)
