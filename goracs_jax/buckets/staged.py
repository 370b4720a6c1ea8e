"""What is written to a bucket: first on this machine, then sent whole.

An object appears in a store only when all of it is there. What says that others are
complete (a manifest, a record) comes last; where it is sent anew, the old one goes
first. What was being sent when a machine was lost is listed, and not fetched again.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from goracs_jax.buckets.paths import BucketPath
from goracs_jax.buckets.remote import Remote, as_path
from goracs_jax.buckets.stores import asked, mark_of, store_of
from goracs_jax.disk import room_for
from goracs_jax.errors import InputError

#: What stays here: locks, halves, and states that are quicker made than sent.
LOCAL = (".lock", ".writable", ".writing", "*.part", "states.bin")
#: Unfinished work is sent this often, in seconds: what the loss of a machine costs.
SECONDS = 600.0
_delivered: dict[str, float] = {}  # when each folder was


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

    @classmethod
    def here_of(cls, path: "Staged") -> list[int] | None:
        """Return what a file was here when it was sent; None if it was not."""
        return sent.here if (sent := cls.of(path)) else None

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
        for path in self._halves():
            there.pop(path, None)
        for path, mark in there.items():
            sent = Sent.of(path)
            if path.exists() and sent and sent.mark == mark:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            fetch = partial(store.get_file, str(path), os.fspath(part))
            try:
                with room_for(Path(os.fspath(path))):
                    asked(str(path), fetch)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
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
        files = [path for path in self._files() if Sent.here_of(path) != _here(path)]
        files.sort(key=_in_order)
        last = {path.parent: path for path in files}
        gone = [path for path in self._recorded() if not path.exists()]
        halves = self._halves() if files or gone else []
        if len(files) > 1:
            names = [path.relative_to(self).as_posix() for path in files]
            self._asked(self._flag, "pipe_file", json.dumps(names).encode())
        # A seal goes before what it seals.
        seals = [path for path in last.values() if Sent.of(path) and len(files) > 1]
        for path in [*seals, *(path for path in gone if path.suffix == ".json")]:
            self._remove(path)
        for path in files:
            here = _here(path)
            self._asked(path, "put_file", local=os.fspath(path))
            Sent(mark_of(self._asked(path, "info")), here).record(path)
        for path in {*gone, *halves}:
            if not path.exists():
                self._remove(path)
        if len(files) > 1 or halves:
            self._remove(self._flag)

    @property
    def _flag(self) -> "Staged":
        """The object that lists what is being sent: if it stays, those are halves."""
        return self.with_name(f"{self.name}.sending")

    def _halves(self) -> list["Staged"]:
        """List what a machine was sending when it was lost."""
        url = str(self._flag)
        try:
            names = json.loads(asked(url, lambda: store_of(url).cat_file(url)))
        except FileNotFoundError:
            return []
        return [self / name for name in names]

    def _remove(self, path: "Staged") -> None:
        with suppress(FileNotFoundError):
            asked(str(path), lambda: store_of(str(path)).rm_file(str(path)))
        path.place("sent").unlink(missing_ok=True)

    def check(self) -> None:
        """Check that the bucket takes what would be written.

        Raises:
            InputError: It does not.
        """
        if len(self.parts) < 3:
            raise InputError(f"{self} is a whole bucket: name a folder in it.")
        probe = self.with_name(f"{self.name}.writable")
        self._asked(probe, "pipe_file", b"")
        self._remove(probe)

    def _asked(
        self, path: "Staged", method: str, *given: Any, local: str | None = None
    ) -> Any:
        url = str(path)
        places = (url,) if local is None else (local, url)
        call = lambda: getattr(store_of(url), method)(*places, *given)
        try:
            return asked(url, call)
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
        found = cast(Iterator[Staged], self.rglob("*")) if self.is_dir() else [self]
        return (x for x in found if x.is_file() and not _is_local(x, self))

    def _recorded(self) -> list["Staged"]:
        """List the files at and below this path that were sent or fetched."""
        root = self.place("sent")
        found = [p for p in root.rglob("*") if p.is_file()] if root.is_dir() else [root]
        return [self / p.relative_to(root) for p in found if p.is_file()]


def deliver(folder: Path, *, often: bool = True) -> None:
    """Send a folder of results, or a file, to the bucket that it is staged for.

    Args:
        folder: The folder; one that no bucket has stays as it is.
        often: Whether to send it in any case, and not only if the last time was long
            ago: for what is written again and again.

    >>> deliver(Path("a/folder/of/this/machine"))
    """
    if not isinstance(folder, Staged):
        return
    now, name = time.monotonic(), str(folder)
    if often or now - _delivered.setdefault(name, now) > SECONDS:
        folder.send()
        _delivered[name] = now


def _here(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _in_order(path: Path) -> tuple[bool, bool, int]:
    """Order files as they are sent: records after what they tell of, in their order.

    Clocks of file systems are too coarse to tell which of two files came last.
    """
    record = path.suffix == ".json"
    return record, path.name == "manifest.json", path.stat().st_mtime_ns


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
        place.parent.mkdir(parents=True, exist_ok=True)
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
