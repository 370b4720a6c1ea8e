"""A disk that is full, as a process sees it, and what a verb does then."""

import resource
from contextlib import contextmanager

from commands import assert_refused


@contextmanager
def full_at(size):
    """Let no file grow beyond a size in bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def assert_nothing_is_lost(command, size, files, capsys):
    """One line says it, all files are as they were, and no new one is half written."""
    read = lambda: {p: p.read_bytes() for p in files.rglob("*") if p.is_file()}
    before = read()
    with full_at(size):
        line = r"the disk is full \(.*\): make room, and give the same command again"
        assert_refused(command, None, capsys, line)
    after = read()
    assert before.items() <= after.items()
    assert not [
        path for path in after if ".part" in path.name or ".writing" in str(path)
    ]
