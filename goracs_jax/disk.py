"""Say in one line that a disk is full, whichever library found it out."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from goracs_jax.errors import InputError, one_line

#: What a disk, a quota and a limit of the size of files answer where no room is left.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What NumPy says where a file takes fewer numbers than it was given.
CUT_OFF = re.compile(r"\d+ requested and \d+ written")


def is_full(error: Exception) -> bool:
    """Whether an error says that a disk is full; some libraries do so in words alone.

    >>> is_full(OSError("3000 requested and 1008 written"))  # as NumPy
    True
    """
    if getattr(error, "errno", None) in FULL:
        return True
    text = str(error)
    return any(os.strerror(n) in text for n in FULL) or bool(CUT_OFF.search(text))


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say that there is no room for a file or a folder, where writing it fails so.

    Raises:
        InputError: It did.

    >>> with room_for(Path("out/x.npy")):
    ...     raise OSError(errno.ENOSPC, "no space")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: out/x.npy: the disk is full (no space): make room, ...
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(
            f"{path}: the disk is full ({reason}): make room, and give the same "
            "command again; finished parts stay."
        ) from None


def reserve(path: Path) -> None:
    """Take room on the disk for a file that is mapped and has yet to be filled.

    Where a disk turned out to be full at some page, a signal would end the process.

    Raises:
        InputError: There is no room; the file is removed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x"
    >>> with path.open("wb") as file:
    ...     _ = file.truncate(8192)
    >>> reserve(path)
    >>> path.stat().st_blocks > 0
    True
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with room_for(path), path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except InputError:
        path.unlink()
        raise
