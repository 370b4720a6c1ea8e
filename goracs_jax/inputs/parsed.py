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
    """A record and its place in the file: ":7", or ", record 7"."""

    place: str
    fields: Any  # as a rule a mapping; None where there is an error
    error: BaseException | None = None


def reason(error: BaseException) -> str:
    """Return what an error says, on one short line."""
    text = one_line(error)
    return text if len(text) <= 80 else text[:77] + "..."
