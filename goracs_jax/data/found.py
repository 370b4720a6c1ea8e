"""The records of a file or a value of Python, one by one, or why there are none."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError, RecordError
from goracs_jax.inputs.parsed import reason
from goracs_jax.inputs.records import records_of
from goracs_jax.inputs.tables import as_frame, is_frame, rows_of


class Found(NamedTuple):
    """A record, or what is in its place, and why it cannot be read."""

    record: Any
    place: str  # "train.jsonl:17", or "train.json, record 17" in a JSON array
    error: RecordError | None = None


def find_records(source: Any) -> Iterator[Found]:
    """Find the records of a source; NaN at their top level is None.

    Args:
        source: As for `goracs_jax.data.examples.read_records`.

    Raises:
        InputError: The source cannot be read, or is none.

    >>> next(find_records([{"a": float("nan")}]))
    Found(record={'a': None}, place='list, record 1', error=None)
    """
    is_path = isinstance(source, str | Path)
    return _of_file(as_path(source)) if is_path else _of_value(source)


def _of_file(path: Path) -> Iterator[Found]:
    found = records_of(path)
    after = next(found, None)
    while after:
        (file, parsed), after = after, next(found, None)
        place = f"{file}{parsed.place}"
        if parsed.error:
            text = f"{place}: {_why(parsed.error, last=after is None)}."
            line = parsed.line.decode(errors="backslashreplace")
            yield Found(line, place, RecordError(text, "unreadable"))
        else:
            yield Found(_plain(parsed.fields), place)


def _of_value(source: Any) -> Iterator[Found]:
    what = type(source).__name__
    if is_frame(source):
        source = rows_of(as_frame(source), what)
    elif isinstance(source, Mapping) or not isinstance(source, Iterable):
        splits = ""
        if isinstance(source, Mapping) and any(map(is_frame, source.values())):
            splits = f": give one of {', '.join(map(str, source))}"
        raise InputError(
            "records must be a path, a list of dictionaries or a frame, got "
            f"{what}{splits}."
        )
    for i, record in enumerate(source, 1):
        yield Found(_plain(record), f"{what}, record {i}")


def _plain(record: Any) -> Any:
    """Replace NaN, which pandas writes for what is missing, by None."""
    if not isinstance(record, dict):
        return record
    is_nan = lambda value: isinstance(value, float) and value != value
    if not any(map(is_nan, record.values())):
        return record
    return {key: None if is_nan(value) else value for key, value in record.items()}


def _why(error: BaseException, last: bool) -> str:
    """Say what is wrong with a record, and how to mend it."""
    if isinstance(error, UnicodeDecodeError):
        return (
            f"byte 0x{error.object[error.start]:02x} is not UTF-8: convert the file "
            "(iconv -f latin1 -t utf-8)"
        )
    if not isinstance(error, json.JSONDecodeError):
        return f"cannot be read ({reason(error)}): correct it"
    hint = "JSONL needs one complete record on every line"
    if error.doc.lstrip().startswith("["):
        hint = "correct it, or write one record on each line (JSONL)"
    ends_early = error.msg.startswith("Unterminated") or error.pos >= len(error.doc)
    if last and ends_early:
        hint = "the last line is cut off: write the file again"
    return f"not valid JSON ({error.msg}): {hint}"
