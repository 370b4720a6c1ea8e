"""What a parser of files gives: one record after the other, or why there is none."""

import csv
from collections.abc import Mapping
from typing import Any, NamedTuple

from goracs_jax.errors import one_line

# The exceptions that arbitrary text may raise while it is decoded or made into a row.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    SyntaxError,
    RecursionError,
    MemoryError,
    csv.Error,
)

Fields = Mapping[str, Any]


class Parsed(NamedTuple):
    """A record and its number in the file, or why there is none."""

    number: int  # from 1
    fields: Any  # as a rule a mapping; None where there is an error
    error: BaseException | None = None
    counted: str = ":"  # what is counted: lines, or ", record " and so on
    line: bytes = b""  # as it is in the file, where there is an error

    @property
    def place(self) -> str:
        """Where it is, to follow the name of the file: ":7", or ", record 7"."""
        return f"{self.counted}{self.number}"


def reason(error: BaseException) -> str:
    """Return what an error says, on one short line."""
    text = one_line(error)
    return text if len(text) <= 80 else text[:77] + "..."
