"""What is written to a bucket: first on this machine, then sent whole.

An object appears in a store only when all of it is there. Objects are sent in the order
in which files appeared here, so what says that others are complete (a manifest, a
record) comes last; where it is sent anew, the old one goes first.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.buckets.paths import BucketPath
from goracs_jax.buckets.remote import Remote, as_path
from goracs_jax.buckets.stores import asked, mark_of, store_of
from goracs_jax.errors import InputError

#: What stays here: locks, halves, and states that are quicker made than sent.
LOCAL = (".lock", ".writable", ".writing", "*.part", "states.bin")


class Sent(NamedTuple):
    """What a file was here, and its object there, when they were last the same."""

    mark: str
    here: list[int]

    @classmethod
    def of(cls, path: "Staged") -> "Sent | None":
        """Read what is recorded of a file."""
        try:
            return cls(*json.loads(path.place("sent").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def record(self, path: "Staged") -> None:
        """Record it for a file."""
        place = path.place("sent")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(self))


class Staged(BucketPath):
    """A path in a bucket that is written, and the local file that stands for it.

    Everything that is done with it is done with the local one, until `send`.
    """

    def __fspath__(self) -> str:
        return str(self.place("staged"))

    def mkdir(
        self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make the local folder, whose own parents are those of the cache."""
        Path(os.fspath(self)).mkdir(mode, parents=parents, exist_ok=exist_ok)

    def fetch(self) -> None:
        """Bring here what the bucket has, the work of an earlier run among it.

        What this machine has beside it and never sent stays: it is newer.

        Raises:
            InputError: The store is not reached.
        """
        store, there = store_of(str(self)), self._there()
        for path, mark in there.items():
            sent = Sent.of(path)
            if path.exists() and sent and sent.mark == mark:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            asked(str(path), partial(store.get_file, str(path), os.fspath(part)))
            os.replace(part, path)
            Sent(mark, _here(path)).record(path)
        for path in self._recorded():
            if path not in there:
                path.unlink(missing_ok=True)
                path.place("sent").unlink()

    def send(self) -> None:
        """Make the bucket have what this machine has.

        Raises:
            InputError: The store is not reached, or does not take it.
        """
        files = sorted(self._files(), key=lambda path: path.stat().st_ctime_ns)
        changed = [
            path
            for path in files
            if not (sent := Sent.of(path)) or sent.here != _here(path)
        ]
        gone = [path for path in self._recorded() if not path.exists()]
        last = {path.parent: path for path in changed}
        seals = [
            path
            for path in last.values()
            if sum(other.parent == path.parent for other in changed) > 1
            and Sent.of(path)
        ]
        for path in [*gone, *seals]:
            self._asked(path, lambda s, url: s.rm_file(url))
            path.place("sent").unlink()
        for path in changed:
            here = _here(path)
            self._asked(path, lambda s, url, p=path: s.put_file(os.fspath(p), url))
            found = self._asked(path, lambda s, url: s.info(url))
            Sent(mark_of(found), here).record(path)

    def check(self) -> None:
        """Check that the bucket takes what would be written.

        Raises:
            InputError: It does not.
        """
        if len(self.parts) < 3:
            raise InputError(f"{self} is a whole bucket: name a folder in it.")
        probe = self.with_name(f"{self.name}.writable")
        self._asked(probe, lambda s, url: s.pipe_file(url, b""))
        self._asked(probe, lambda s, url: s.rm_file(url))

    def _asked(self, path: "Staged", call: Any) -> Any:
        try:
            return asked(str(path), lambda: call(store_of(str(path)), str(path)))
        except FileNotFoundError as error:
            raise InputError(
                f"{path} cannot be written ({error}): make the bucket, or name another."
            ) from None

    def _there(self) -> dict["Staged", str]:
        """Return the objects at and below this path, and their marks."""
        find = lambda: store_of(str(self)).find(str(self), detail=True)
        try:
            found = asked(str(self), find)
        except FileNotFoundError:
            return {}
        scheme = str(self).partition("://")[0]
        listed = {Staged(f"{scheme}://{key}"): x for key, x in found.items()}
        return {
            path: mark_of(x) for path, x in listed.items() if not _is_local(path, self)
        }

    def _files(self) -> Iterator["Staged"]:
        """Yield the local files at and below this path that are sent."""
        found = self.rglob("*") if self.is_dir() else [self]
        return (x for x in found if x.is_file() and not _is_local(x, self))

    def _recorded(self) -> list["Staged"]:
        """List the files at and below this path that were sent or fetched."""
        root = self.place("sent")
        found = [p for p in root.rglob("*") if p.is_file()] if root.is_dir() else [root]
        return [self / p.relative_to(root) for p in found if p.is_file()]


def deliver(folder: Path) -> None:
    """Send a folder of results, or a file, to the bucket that it is staged for.

    >>> deliver(Path("a/folder/of/this/machine"))  # is where it belongs
    """
    if isinstance(folder, Staged):
        folder.send()


def _here(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _is_local(path: Path, root: Path) -> bool:
    inside = path.relative_to(root).parts or (path.name,)
    return any(fnmatchcase(part, local) for part in inside for local in LOCAL)


@contextmanager
def sending(places: Sequence[Staged]) -> Iterator[None]:
    """Fetch what a bucket has of some paths, and send them at the end.

    Where the work in between fails or is stopped, what it left is sent as well: the
    same work goes on from there, on any machine.

    Args:
        places: Files or folders.

    Raises:
        InputError: A store is not reached, or does not take them.
    """
    for place in places:
        place.fetch()
    try:
        yield
    except BaseException:
        with suppress(InputError):  # the first of two errors is told
            for place in places:
                place.send()
        raise
    for place in places:
        place.send()


@contextmanager
def writable(path: str | Path) -> Iterator[Path]:
    """Yield the path of a file or folder to write, which is sent if it is a bucket's.

    Args:
        path: The path, or a URL.

    Raises:
        InputError: A bucket cannot be written.
    """
    path = as_path(path)
    if not isinstance(path, Remote):
        yield path
        return
    here = Staged(str(path))
    here.check()
    with sending([here]):
        yield here
