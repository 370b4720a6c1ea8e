"""Turn the fields of a raw record into rows: an interaction, or an item's title."""

import html
import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from goracs_jax.data.raw import ValueMistake
from goracs_jax.data.raw_files import RawFiles
from goracs_jax.data.texts import MOST_CHARACTERS, is_blank
from goracs_jax.inputs.parsed import Fields

#: How numbers and times are written.
NUMBERS = "write numbers as 1234.5"
TIMES = (
    "write times as numbers or as 2019-12-31 23:59:59, or leave them out with --order "
    "file or --order random"
)
#: Tags that shops left in titles; other text in angle brackets stays.
TAG = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|i|img|li|p|s|small|span|strong|sub|sup|u|ul)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
ELEMENT = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
#: The title in a piece of a shop's page.
PRODUCT = re.compile(r'\bid="productTitle"[^<>]*>(.*?)</', re.DOTALL)
#: What is left of a script that was cut out of a page with the title.
SCRIPT = re.compile(r"getTime\(|\bvar\s+\w+\s*=|\bfunction\s*\w*\(|\{\s*\}|\bue_\w+")


def to_interactions(files: RawFiles) -> Callable[[Fields], Iterable[tuple]]:
    """Return a function from the fields of a record to (user, item, rating, seconds).

    The rating is None where the record has none, and so are the seconds where time does
    not order the interactions.
    """
    columns, kind = files.columns, files.format
    timed = files.order == "time"

    def to_row(fields: Fields) -> tuple[str, str, float | None, float | None]:
        rating, given = None, fields.get(columns.rating)
        if given is not None and given != "":
            rating = _number(given, columns.rating)
        seconds = None
        if timed:
            time = fields.get(columns.time)
            seconds = _seconds(time, columns.time, kind.dates) / kind.per_second
        return (
            _identifier(fields, columns.user),
            _identifier(fields, columns.item),
            None if rating == kind.unrated else rating,
            seconds,
        )

    if expand := kind.expand:
        return lambda fields: map(to_row, expand(fields))
    return lambda fields: (to_row(fields),)


def to_titles(files: RawFiles) -> Callable[[Fields], Iterable[tuple]]:
    """Return a function from the fields of a record to (item, title).

    Runs of white space in a title become one space. The title is None where the record
    has none, or none that shows.
    """
    columns, escaped = files.columns, files.format.escaped
    item_column = columns.metadata_item or columns.item

    def to_row(fields: Fields) -> tuple[str, str | None]:
        item, title = _identifier(fields, item_column), fields.get(columns.title)
        if isinstance(title, int) and not isinstance(title, bool):
            title = str(title)  # such as 1984
        if not isinstance(title, str):
            return item, None
        title = " ".join((plain_title(title) if escaped else title).split())
        _check_text(title, columns.title)
        return item, None if is_blank(title) else title

    return lambda fields: (to_row(fields),)


def plain_title(title: str) -> str:
    """Take entities and tags out of a title; of a script, nothing is left.

    A title that contains what is left of a script is none, because it is not known
    where the title ended, unless the element of the title is there.

    >>> plain_title('<span id="productTitle">Salt &amp; Pepper</span> var a = {};')
    'Salt & Pepper'
    >>> plain_title("Cap var aPageStart = (new Date()).getTime();")
    ''
    """
    while (plain := html.unescape(title)) != title:
        title = plain
    if found := PRODUCT.search(title):
        title = found[1]
    if "<" in title:
        title = TAG.sub(" ", ELEMENT.sub(" ", title))
    return "" if SCRIPT.search(title) else title.strip()


def _identifier(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str) and (identity := value.strip()):
        _check_text(identity, name)
        return identity
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes floats of whole numbers beside a gap
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{name!r} is {'no id' if value else 'missing'}")


def _check_text(text: str, name: str) -> None:
    """Raise for what could not be read again from the examples that have it."""
    if not text.isascii():
        text.encode()  # raises for half of a surrogate pair, which is not text
    if "\0" in text:
        raise ValueError(f"{name!r} has the character NUL")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{name!r} has {len(text):,} characters")


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        text = f"{name!r} is not a number: {value!r}"
        raise ValueMistake(text, NUMBERS) from None
    if not math.isfinite(number):
        raise ValueMistake(f"{name!r} is not finite", NUMBERS)
    return number


def _seconds(value: Any, name: str, dates: str) -> float:
    """Return a number as it is, and a date as seconds since 1970 (UTC).

    A date is written as ISO 8601 says, or as the format does.
    """
    try:
        return _number(value, name)
    except ValueMistake as error:
        if not isinstance(value, str):
            raise ValueMistake(str(error), TIMES) from None
    try:
        date = datetime.strptime(value, dates) if dates else None
        date = date or datetime.fromisoformat(value)
    except ValueError:
        text = f"{name!r} is neither number nor date: {value!r}"
        raise ValueMistake(text, TIMES) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
