"""Read raw files line by line into a table; count bad lines and name the first ones."""

import ast
import contextlib
import csv
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from goracs_jax.errors import InputError
from goracs_jax.files import existing_file

SHOWN = 3  # bad lines that are named
CHUNK = 50_000  # rows that are Python objects at the same time

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


class Layout(NamedTuple):
    """How a line becomes named fields."""

    decode: Callable[[str], Any]  # a line to a mapping, or to a list of values
    names: tuple[str, ...] = ()  # names of the first values, if the file has no header
    header: Callable[[str], list[str]] | None = None  # the header line to names
    encoding: str = "utf-8"


class Reading(NamedTuple):
    """The rows of a file, and how many of its lines were bad."""

    rows: pl.DataFrame
    lines: int  # lines that are not blank, without the header
    bad: int  # lines that could not be read
    first: tuple[str, ...]  # the first bad lines, as "file:line: reason"


def decode_json(line: str) -> Fields:
    """Decode a line of JSON.

    >>> decode_json('{"asin": "B1"}')
    {'asin': 'B1'}
    """
    return _mapping(json.loads(line))


def decode_literal(line: str) -> Fields:
    r"""Decode a line of JSON, or a dictionary as Python prints it; nothing is executed.

    >>> decode_literal("{'title': \"Ender's Game\"}")
    {'title': "Ender's Game"}
    """
    with contextlib.suppress(json.JSONDecodeError):
        return decode_json(line)
    with warnings.catch_warnings():
        # Python warns of unknown escapes such as \d and keeps them, as we want it.
        warnings.simplefilter("ignore")
        return _mapping(ast.literal_eval(line))


def decode_csv(line: str) -> list[str]:
    """Decode a line of comma-separated values, which may be quoted.

    >>> decode_csv('1,"Matrix, ""The"", 1999"')
    ['1', 'Matrix, "The", 1999']
    """
    return next(csv.reader([line], strict=True))


def first_fields(path: Path, layout: Layout) -> Fields:
    """Read the fields of the first line, or the names of a header (with values None).

    Args:
        path: The file, gzipped or not.
        layout: How a line becomes named fields.

    Returns:
        The fields; an empty mapping if the line cannot be decoded.

    Raises:
        InputError: The file cannot be opened or is empty.
    """
    with _lines(path) as (numbered, _):
        for _, line in islice(numbered, 1):
            try:
                text = line.decode(layout.encoding)
                if layout.header:
                    return dict.fromkeys(layout.header(text))
                return _fields(layout.decode(text), layout.names, exact=False)
            except UNREADABLE:
                return {}
    raise InputError(f"{path} is empty: give a file with at least one line.")


def read_rows(
    path: Path,
    layout: Layout,
    to_row: Callable[[Fields], tuple],
    schema: Mapping[str, Any],
    *,
    max_bad: float,
    tell: Callable[[float], None] = lambda mib: None,
    chunk: int = CHUNK,
) -> Reading:
    r"""Read a file, gzipped or not, line by line.

    Args:
        path: The file.
        layout: How a line becomes named fields.
        to_row: Makes a row of the fields; raises one of `UNREADABLE` with the reason.
        schema: Columns of the rows and their types.
        max_bad: Largest share of the lines that may be bad.
        tell: Called now and then with the MiB of the file read so far.
        chunk: Rows that are Python objects at the same time. They take more memory than
            the table's columns, into which they are moved chunk by chunk.

    Returns:
        The rows in the order of the file. Blank lines do not count.

    Raises:
        InputError: The file cannot be read, is cut off, or has too many bad lines.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = path.write_text("1 2\n3\n")
    >>> pairs = Layout(lambda line: line.split(" "), names=("a", "b"))
    >>> to_row, schema = lambda fields: (int(fields["b"]),), {"b": int}
    >>> read_rows(path, pairs, to_row, schema, max_bad=0.5).rows["b"].to_list()
    [2]
    >>> read_rows(path, pairs, to_row, schema, max_bad=0.4)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: ...: 1 of 2 lines cannot be read, more than 40 %: ...
    """
    tables, rows = [pl.DataFrame(schema=schema)], []
    names, exact = layout.names, False
    n_lines = n_bad = 0
    first: list[str] = []
    with _lines(path) as (numbered, position):
        if layout.header:
            for _, line in islice(numbered, 1):
                text = line.decode(layout.encoding, errors="replace")
                names, exact = tuple(layout.header(text)), True
        for number, line in numbered:
            n_lines += 1
            try:
                values = layout.decode(line.decode(layout.encoding))
                rows.append(to_row(_fields(values, names, exact)))
            except UNREADABLE as error:
                n_bad += 1
                if len(first) < SHOWN:
                    first.append(f"{path}:{number}: {_reason(error)}")
            if len(rows) == chunk:
                tables.append(pl.DataFrame(rows, schema=schema, orient="row"))
                rows.clear()
                tell(position())
        tell(position())
    tables.append(pl.DataFrame(rows, schema=schema, orient="row"))
    if n_bad > max_bad * n_lines:
        raise InputError(
            f"{path}: {n_bad:,} of {n_lines:,} lines cannot be read, more than "
            f"{100 * max_bad:g} %: {'; '.join(first)}: correct them, check --format, "
            "or raise --max-bad."
        )
    return Reading(pl.concat(tables), n_lines, n_bad, tuple(first))


@contextlib.contextmanager
def _lines(
    path: Path,
) -> Iterator[tuple[Iterator[tuple[int, bytes]], Callable[[], float]]]:
    """Open a file: its numbered lines that are not blank, and the MiB read so far."""
    try:
        with existing_file(path).open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = io.BufferedReader(gzip.GzipFile(fileobj=file)) if zipped else file

            def numbered() -> Iterator[tuple[int, bytes]]:
                for number, line in enumerate(stream, 1):
                    text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if text := text.rstrip(b"\r\n"):
                        yield number, text

            yield numbered(), lambda: file.tell() / 2**20
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path} is damaged or cut off ({error}): fetch it again."
        ) from None


def _fields(values: Any, names: tuple[str, ...], exact: bool) -> Fields:
    if isinstance(values, Mapping):
        return values
    if len(values) < len(names) or (exact and len(values) > len(names)):
        raise ValueError(f"{len(values)} fields where {len(names)} are expected")
    return dict(zip(names, values, strict=False))


def _mapping(value: Any) -> Fields:
    if not isinstance(value, dict):
        raise TypeError(f"not an object but {type(value).__name__}")
    return value


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 80 else text[:77] + "..."
