"""What a record may contain: what can be written again, and texts that can be read."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from goracs_jax.errors import RecordError, one_line

#: The longest text of a record, in characters. It has more tokens than the context of
#: most models, and is as a rule a whole file that went into one field.
MOST_CHARACTERS = 500_000
#: The most lists and objects around a value; JSON is written and read by recursion.
MOST_LEVELS = 64

#: Kinds of characters that show nothing: spaces, ends of lines, controls, marks of
#: format such as the zero-width space.
_UNSEEN = {"Zs", "Zl", "Zp", "Cc", "Cf"}
#: Letters, marks and signs that show nothing: what Unicode calls ignorable by default
#: (fillers, selectors of variants) and is not of these kinds, and Braille's blank.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
# One for all records: json.dumps would make a new one for each.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def is_blank(text: str) -> bool:
    r"""Tell whether a text has no character that shows.

    >>> is_blank(" \n\u200b"), is_blank("\u3164"), is_blank("\u00a0.")
    (True, True, False)
    """
    category = unicodedata.category
    return all(category(each) in _UNSEEN or _BLANK.match(each) for each in text)


def check_record(record: Mapping[str, Any], place: str) -> None:
    r"""Refuse a record that could not be written as JSON in UTF-8 and read again.

    Args:
        record: The record, with all of its keys.
        place: Its file and line, for the message.

    Raises:
        RecordError: A text has half of a surrogate pair or the character NUL, a number
            is not finite, lists are nested too deeply, or a value is none of JSON.

    >>> check_record({"a": ["b", "c\ud83d"]}, "t.jsonl:1")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.RecordError: t.jsonl:1: 'a': half of a surrogate pair, U+D83D, ...
    """
    try:
        line = _encode(record)
        line.encode()
        # In almost all records there is nothing to look for.
        deep = line.count("[") + line.count("{") > MOST_LEVELS
        if "\\u0000" not in line and not deep:
            return
        reason = ""
    except (RecursionError, TypeError, ValueError) as error:
        reason = one_line(error)
    for key, value in record.items():
        if fault := _fault(key) or _fault(value):
            raise RecordError(f"{place}: {key!r:.60}: {fault.text}.", fault.kind)
    if reason:
        raise RecordError(
            f"{place}: not to be written as JSON ({reason}): leave it out.", "no JSON"
        )


class _Fault(NamedTuple):
    text: str
    kind: str


def _fault(value: Any, level: int = 0) -> _Fault | None:
    """Say what is wrong inside a value of JSON; None if all is well."""
    if level > MOST_LEVELS:
        text = f"nested deeper than {MOST_LEVELS} levels: flatten it"
        return _Fault(text, "nested too deeply")
    if isinstance(value, str):
        if "\0" in value:
            text = "the character NUL is no text: take it out"
            return _Fault(text, "no text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(value[error.start]):04X}"
            text = f"half of a surrogate pair, {half}, is no text: write it as UTF-8"
            return _Fault(text, "no text")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        text = f"{value} is no number of JSON: write null, or leave it out"
        return _Fault(text, "no number")
    inner: Sequence[Any] = ()
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        inner = value
    return next(filter(None, (_fault(each, level + 1) for each in inner)), None)
