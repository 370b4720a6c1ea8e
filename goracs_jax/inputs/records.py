"""The records of a data set, whatever its files are, one after the other."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from goracs_jax.errors import InputError, located, one_line
from goracs_jax.inputs.foreign import refuse_foreign
from goracs_jax.inputs.json_text import (
    TwiceError,
    decode_literal,
    is_document,
    parse_document,
    parse_lines,
)
from goracs_jax.inputs.parsed import UNREADABLE, Parsed
from goracs_jax.inputs.parts import files_of
from goracs_jax.inputs.separated import Head, Style, parse, read_head
from goracs_jax.inputs.streams import Lines, lines_of, opened, text_of
from goracs_jax.inputs.tables import CHUNK, batches, is_table, names_in, rows_of

#: Records whose fields stand for those of all.
FIRST = 100
#: The line below the names in tables of Markdown and of terminals.
RULE = re.compile(rb"[\s|:+-]*--[\s|:+-]*")
#: What Excel takes for the separator, and others for a header.
NOTE = re.compile(r'"?sep=.?"?')


class How(NamedTuple):
    """How a file is read where its content leaves that open."""

    encoding: str = "utf-8"  # unless a mark tells another
    fallback: str = ""  # the encoding of lines that are not
    style: Style = Style()  # of separated text
    positions: bool = False  # whether its columns are called 1, 2, ... in any case
    exact: bool = True  # whether each line has as many fields as there are names
    columns: tuple[str, ...] | None = None  # those of a table that are needed


#: Nothing is known but the content.
AS_FOUND = How()


class Look(NamedTuple):
    """What the start of a file tells."""

    kind: Literal["table", "lines", "document", "separated", "empty"]
    head: Head | None = None  # of separated text


def look_at(path: Path, how: How = AS_FOUND) -> Look:
    """Find out what a file is.

    Raises:
        InputError: It cannot be opened, or is neither text nor a table.
        UnicodeDecodeError: The first line of separated text has another encoding.
    """
    with opened(path) as file:
        head = file.stream.peek(512)[:512]
        if is_table(head):
            return Look("table")
        refuse_foreign(path, head, how.encoding)
        lines = lines_of(file.stream, how.encoding, how.fallback)
        two = [*islice((line for _, line in lines.numbered if line.strip()), 2)]
        if not two:
            return Look("empty")
        if how.style.separator or not _look_like_json(lines, *two):
            if RULE.fullmatch(two[-1]):
                raise InputError(
                    f"{path} is a table that is drawn, as in Markdown: write it as CSV."
                )
            first = lines.decode(two[0])
            with _readable(path, first):
                head = read_head(first, how.style, how.positions)
            _check_columns(path, first, head.names)
            return Look("separated", head)
        first, *second = (line.decode(lines.encoding, "replace") for line in two)
    if first.lstrip().startswith("["):
        # A list on a line of its own is a bad record, if the next line is a good one.
        good = bool(second) and _is_object(second[0])
        return Look("lines" if good and _is_whole(first) else "document")
    try:
        with located(str(path)):
            alone = is_document(decode_literal(first)) and not second
        return Look("document" if alone else "lines")
    except InputError:
        raise
    except UNREADABLE:
        # The end of an object may be on a later line, unless every line is an object.
        is_open = first.rstrip().endswith(("{", ",", ":"))
        is_open &= not second or not _is_object(second[0])
        within = is_open or first.rstrip().endswith("[")
        return Look("document" if within else "lines")


def _check_columns(path: Path, first: str, names: list[str]) -> None:
    """Refuse text that has no columns, or not from its first line on."""
    if NOTE.fullmatch(first):
        raise InputError(
            f"{path} begins with a note for Excel, {first!r}: take out that line."
        )
    if len(names) == 1:
        raise InputError(
            f"{path} is neither JSON nor a table: {first.strip()!r:.60}, its first "
            "line, has no comma, semicolon, tab or bar: write it as JSONL, CSV or "
            "Parquet."
        )


@contextmanager
def _readable(path: Path, line: str) -> Iterator[None]:
    """Say why a line cannot be cut into fields."""
    try:
        yield
    except csv.Error as error:
        why = f"cannot be read ({one_line(error)}): write the names of columns there"
        if "\r" in line:
            why = "ends with CR alone, as all lines do: write LF (tr '\\r' '\\n')"
        raise InputError(f"{path}: the first line {why}.") from None


def records_of(
    path: Path, how: How = AS_FOUND, tell: Callable[[float], None] = lambda mib: None
) -> Iterator[tuple[Path, Parsed]]:
    """Read the records of a data set: JSON, separated text, Parquet or Arrow.

    Args:
        path: As for `goracs_jax.inputs.parts.files_of`.
        how: What its content does not tell.
        tell: Called now and then with the MiB read so far.

    Yields:
        The file and the record, or the reason why there is none. Blank lines do not
        count.

    Raises:
        InputError: A file cannot be opened, or is damaged.
    """
    done = 0.0
    for file in files_of(path):
        before = done
        for parsed in _records(file, how, lambda mib, at=before: tell(at + mib)):
            yield file, parsed
        done += file.stat().st_size / 2**20
        tell(done)


def names_of(path: Path, how: How = AS_FOUND) -> list[str]:
    """Return the names of the fields: of a header, a table, or the first records.

    Raises:
        InputError: The file cannot be opened, or is empty.
    """
    first = files_of(path)[0]
    kind, head = look_at(first, how)
    if kind == "empty":
        raise InputError(f"{path} is empty: give a file with at least one line.")
    if head:
        return head.names
    if kind == "table":
        return names_in(first)
    found = islice(records_of(path, how), FIRST)
    each = (record.fields for _, record in found if isinstance(record.fields, Mapping))
    return list(dict.fromkeys(name for fields in each for name in fields))


def _records(path: Path, how: How, tell: Callable[[float], None]) -> Iterator[Parsed]:
    try:
        kind, head = look_at(path, how)
    except UnicodeDecodeError as error:
        yield Parsed(1, None, error)
        return
    if kind == "table":
        yield from _rows(path, how)
        return
    with opened(path) as file:
        if kind == "document":
            yield from _document(path, file.stream, how)
            return
        if head and (twice := _twice(head.names)):
            error = ValueError(f"two columns have the name {twice!r:.40}")
            yield Parsed(1, None, error)
        lines = lines_of(file.stream, how.encoding, how.fallback)
        found = parse(lines, head, how.exact) if head else parse_lines(lines)
        for i, parsed in enumerate(found, 1):
            yield parsed
            if i % CHUNK == 0:
                tell(file.mib())


def _twice(names: list[str]) -> str:
    """Return a name that stands twice; columns without a name are as a rule empty."""
    return next((name for name in names if name and names.count(name) > 1), "")


def _document(path: Path, stream: BufferedReader, how: How) -> Iterator[Parsed]:
    try:
        with located(str(path)):
            yield from parse_document(text_of(stream, how.encoding, how.fallback))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield Parsed(line, None, error)
    except json.JSONDecodeError as error:
        yield Parsed(error.lineno, None, error)
    except TwiceError as error:
        raise InputError(f"{path}: {error}: give it one value.") from None


def _rows(path: Path, how: How) -> Iterator[Parsed]:
    number = 0
    for frame in batches(path, how.columns):
        for row in rows_of(frame, str(path)):
            number += 1
            yield Parsed(number, row, counted=", row ")


def _look_like_json(lines: Lines, first: bytes, second: bytes = b"") -> bool:
    """Whether lines are JSON; a cell of separated text may begin as an object does."""
    if first.lstrip().startswith((b"{", b"[")) or _is_whole(first):
        return True
    return _is_object(second.decode(lines.encoding, "replace"))


def _is_whole(text: str | bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_object(line: str) -> bool:
    try:
        return isinstance(decode_literal(line), Mapping)
    except UNREADABLE:
        return False
