"""Records that are left out: counted, and kept in a file for the user to look at."""

import json
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from goracs_jax.errors import RecordError
from goracs_jax.files import atomic

#: Bytes of records that are left out which are held in memory; more go to the disk.
IN_MEMORY = 1 << 20


class Skipped:
    """The records of a file that are left out, with what is wrong with each.

    Memory holds their row numbers. All else goes into a file without a name, until
    `save_skipped` gives it one: a line of JSON for each record, with its place, its row
    number from 0, the reason, and the record (or its line, where that is not JSON).

    >>> skipped = Skipped()
    >>> error = RecordError("t.jsonl:7: output is empty.", "empty")
    >>> skipped.add(6, "t.jsonl:7", error, {"output": ""})
    >>> skipped.rows, dict(skipped.kinds)
    ([6], {'empty': 1})
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.kinds: Counter[str] = Counter()
        self.lines = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self.lines.close)

    def add(self, row: int, place: str, error: RecordError, record: Any) -> None:
        """Leave a record out.

        Args:
            row: Its number among all records of its file, from 0.
            place: Where it is, for the user.
            error: What is wrong with it.
            record: The record, or the line that cannot be read.
        """
        self.rows.append(row)
        self.kinds[error.kind] += 1
        told = {"place": place, "row": row, "reason": str(error)}
        try:
            line = json.dumps(told | {"record": record}, default=str)
        except (RecursionError, TypeError, ValueError):
            line = json.dumps(told | {"record": None})
        self.lines.write(f"{line}\n".encode())

    @property
    def text(self) -> str:
        """How many records are left out, by what is wrong with them."""
        each = (f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        return ", ".join(each)


def counts_of(found: Iterable[Skipped]) -> dict[str, int]:
    """Count the records that were left out of several files, by what is wrong.

    Args:
        found: Those of each file.
    """
    return dict(sum((skipped.kinds for skipped in found), Counter()))


def save_skipped(path: Path, found: Iterable[Skipped]) -> None:
    """Write the records that were left out; remove the file of an earlier run if none.

    Args:
        path: The file, which appears only when it is complete.
        found: Those of each file that was read.
    """
    found = [skipped for skipped in found if skipped.rows]
    if not found:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as file:
        for skipped in found:
            skipped.lines.seek(0)
            shutil.copyfileobj(skipped.lines, file)
