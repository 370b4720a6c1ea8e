"""Records of JSON: one on each line, or a document that contains them all.

A document is a list of records, an object around such a list, or an object of columns.
"""

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from goracs_jax.errors import InputError, one_line
from goracs_jax.inputs.parsed import UNREADABLE, Parsed
from goracs_jax.inputs.streams import Lines

#: Keys of a record whose value is a list of objects: a chat.
CHATS = {"messages", "conversations", "conversation"}
#: Keys of records inside such a list, which is a document then.
OF_RECORDS = CHATS | {"instruction", "prompt", "completion"}


class TwiceError(ValueError):
    """A key that stands twice in an object, of whose two values one would be lost."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise TwiceError(f"the key {key!r:.40} stands twice in an object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def decode(text: str) -> Any:
    """Decode JSON; numbers without end and deep nesting are no JSON either.

    Raises:
        json.JSONDecodeError: The text is not JSON.
        TwiceError: A key stands twice in an object.
    """
    return _decoded(text, _DECODER.decode)


def _decoded(text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except (json.JSONDecodeError, TwiceError):
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(one_line(error), text, 0) from None


def decode_literal(text: str) -> Any:
    r"""Decode JSON, or a dictionary as Python prints it; nothing is executed.

    >>> decode_literal("{u'title': \"Ender's Game\"}")
    {'title': "Ender's Game"}
    """
    try:
        return decode(text)
    except json.JSONDecodeError:
        if not text.lstrip().startswith("{'") and not text.lstrip().startswith("{u'"):
            raise
    with warnings.catch_warnings():
        # Python warns of unknown escapes such as \d and keeps them, as we want it.
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def parse_lines(lines: Lines) -> Iterator[Parsed]:
    """Decode one record on each line: JSON, or as Python prints it."""
    for number, line in lines.numbered:
        if not line.strip():
            continue
        try:
            yield Parsed(number, decode_literal(lines.decode(line)))
        except UNREADABLE as error:
            yield Parsed(number, None, error, line=line)


def parse_document(text: str) -> Iterator[Parsed]:
    """Find the records of a document, or of several that follow each other.

    Raises:
        json.JSONDecodeError: The text is not JSON.
        TwiceError: A key stands twice in an object.
        InputError: It is not clear which of its parts are the records.

    >>> [found.fields for found in parse_document('{"data": [{"a": 1}], "v": 2}')]
    [{'a': 1}]
    >>> [found.fields for found in parse_document('{"a": [1, 2], "b": [3, 4]}')]
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """
    try:
        found = _records(decode(text))
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        found = list(_several(text))
    each = enumerate(found, 1)
    return (Parsed(i, record, counted=", record ") for i, record in each)


def _several(text: str) -> Iterator[Any]:
    """Decode values that follow each other, with white space between them."""
    at = 0
    while rest := re.compile(r"\S").search(text, at):
        start = rest.start()
        value, at = _decoded(text, lambda text, at=start: _DECODER.raw_decode(text, at))
        yield value


def is_document(value: Any) -> bool:
    """Whether a value that stands on one line contains records and is none itself.

    >>> is_document({"data": [{"a": 1}]}), is_document({"data": "a"})
    (True, False)
    >>> is_document({"messages": [{"role": "user", "content": "Hi."}]})
    False
    """
    return isinstance(value, Mapping) and _records(value) != [value]


def _records(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value:
        return [value]
    inner = list(value.values())
    if any(_is_chat(key, part) for key, part in value.items()):
        return [value]
    if (found := _of_programs(value)) is not None:
        return found
    if all(isinstance(column, list) for column in inner):
        return _of_columns(value)
    if all(isinstance(column, dict) for column in inner):
        return _of_indices(value)
    lists = [key for key, rows in value.items() if _is_list_of(rows, dict)]
    if not lists or CHATS & value.keys():
        return [value]
    if len(lists) > 1:
        raise InputError(
            f"several lists of records ({', '.join(lists)}): write a file for each."
        )
    return value[lists[0]]


def _of_programs(value: dict[str, Any]) -> list[Any] | None:
    """Read objects that hold records in one place, as programs write them."""
    columns, data, rows = (value.get(key) or [] for key in ("columns", "data", "rows"))
    if isinstance(columns, list) and _is_list_of(data, list):
        # As pandas writes orient="split".
        return [dict(zip(columns, row, strict=False)) for row in value["data"]]
    if _is_list_of(rows, dict) and all(isinstance(r.get("row"), dict) for r in rows):
        return [row["row"] for row in rows]  # as the hub's viewer answers
    (first, *others) = value.values()
    return _records(first) if not others and is_document(first) else None


def _of_columns(columns: dict[str, list]) -> list[Any]:
    if len(columns) == 1 and _is_list_of(rows := next(iter(columns.values())), dict):
        return rows
    wrapped = [key for key, rows in columns.items() if _is_list_of(rows, dict)]
    if len(wrapped) == len(columns) and not CHATS & columns.keys():
        raise InputError(
            f"several lists of records ({', '.join(wrapped)}): write a file for each."
        )
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        if len(wrapped) == 1:  # beside lists of something else, such as of errors
            return columns[wrapped[0]]
        raise InputError(
            f"the columns have different lengths ({sizes}): give one value for each "
            "record."
        )
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _of_indices(value: dict[str, dict]) -> list[Any]:
    """Read {column: {row: value}}, or {row: {column: value}}, as pandas writes them."""
    if all(row.isdecimal() for row in value):
        return list(value.values())
    first = next(iter(value.values()))
    if not first or not all(row.isdecimal() for row in first):
        return [value]
    if any(column.keys() != first.keys() for column in value.values()):
        raise InputError("the columns have different rows: write the file again.")
    return [{name: column[row] for name, column in value.items()} for row in first]


def _is_chat(key: str, value: Any) -> bool:
    """Whether a value is the turns of a chat: a part of one record, not records."""
    if not _is_list_of(value, dict):
        return False
    names = value[0].keys()
    is_turn = {"role", "content"} <= names or {"from", "value"} <= names
    return is_turn or (key in CHATS and names.isdisjoint(OF_RECORDS))


def _is_list_of(value: Any, kind: type) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, kind) for x in value)
    )
