"""Read raw files into a table of rows; count bad lines and name the first ones."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from goracs_jax.errors import InputError
from goracs_jax.inputs.parsed import UNREADABLE, Fields, reason
from goracs_jax.inputs.records import How, records_of
from goracs_jax.inputs.tables import CHUNK

SHOWN = 3  # bad lines that are named


class ValueMistake(ValueError):
    """A value that cannot be read.

    Args:
        text: What is wrong with it.
        cure: How to write it.
    """

    def __init__(self, text: str, cure: str):
        super().__init__(text)
        self.cure = cure


class Reading(NamedTuple):
    """The rows of a file, and how many of its lines were bad."""

    rows: pl.DataFrame
    lines: int  # records: lines that are not blank, without the header
    bad: int  # records that could not be read
    first: tuple[str, ...]  # the first bad ones, as "file:line: reason"


def read_rows(
    path: Path,
    how: How,
    to_rows: Callable[[Fields], Iterable[tuple]],
    schema: Mapping[str, Any],
    *,
    max_bad: float,
    any_encoding: bool = True,
    tell: Callable[[float], None] = lambda mib: None,
    chunk: int = CHUNK,
) -> Reading:
    r"""Read a file record by record.

    Args:
        path: The file, as for `goracs_jax.inputs.parts.files_of`.
        how: What its content does not tell.
        to_rows: Makes rows of the fields of a record; raises one of `UNREADABLE` with
            the reason why it cannot.
        schema: Columns of the rows and their types.
        max_bad: Largest share of the records that may be bad.
        any_encoding: Whether a line in another encoding is a bad one. If not, it says
            that the encoding of the file is not known.
        tell: Called now and then with the MiB of the file read so far.
        chunk: Rows that are Python objects at the same time. They take more memory than
            the table's columns, into which they are moved chunk by chunk.

    Returns:
        The rows in the order of the file. Blank lines do not count.

    Raises:
        InputError: The file cannot be read, is cut off, has too many bad lines, or an
            encoding that must be named.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_text("a,b\n1,2\n3,x\n")
    >>> to_rows, schema = lambda fields: [(int(fields["b"]),)], {"b": int}
    >>> read_rows(path, How(), to_rows, schema, max_bad=0.5).rows["b"].to_list()
    [2]
    >>> read_rows(path, How(), to_rows, schema, max_bad=0.4)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: ...: 1 of 2 lines cannot be read, more than 40 %: ...
    """
    tables, rows = [pl.DataFrame(schema=schema)], []
    n_lines = n_bad = 0
    first: list[str] = []
    cures: dict[str, None] = {}
    for file, parsed in records_of(path, how, tell):
        n_lines += 1
        try:
            if parsed.error:
                raise parsed.error
            rows.extend(to_rows(_mapping(parsed.fields)))
        except UNREADABLE as bad:
            place = f"{file}{parsed.place}"
            if isinstance(bad, UnicodeDecodeError) and not any_encoding:
                raise _unknown_encoding(place, bad) from None
            n_bad += 1
            if len(first) < SHOWN:
                first.append(f"{place}: {reason(bad)}")
                cures[getattr(bad, "cure", "correct them")] = None
        if len(rows) >= chunk:
            tables.append(pl.DataFrame(rows, schema=schema, orient="row"))
            rows.clear()
    tables.append(pl.DataFrame(rows, schema=schema, orient="row"))
    if n_bad > max_bad * n_lines:
        raise InputError(
            f"{path}: {n_bad:,} of {n_lines:,} lines cannot be read, more than "
            f"{100 * max_bad:g} %: {'; '.join(first)}: {', '.join(cures)}, check "
            "--format, or raise --max-bad."
        )
    return Reading(pl.concat(tables), n_lines, n_bad, tuple(first))


def _mapping(value: Any) -> Fields:
    if not isinstance(value, dict):
        raise TypeError(f"not an object but {type(value).__name__}")
    return value


def _unknown_encoding(place: str, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{place}: byte 0x{error.object[error.start]:02x} is not UTF-8: name the "
        "encoding of the file, such as --encoding latin-1 or --encoding gbk; with "
        "--encoding utf-8 such lines count as unreadable."
    )
