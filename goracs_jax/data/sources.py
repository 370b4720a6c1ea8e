"""Which files hold the raw data, in which format, and how a line becomes a row."""

import html
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.data.formats import FORMATS, Columns, Format
from goracs_jax.data.raw import Record, first_record
from goracs_jax.errors import InputError


class Source(NamedTuple):
    """The two files of raw data, their format, and what their fields are called."""

    name: str
    format: Format
    ratings: Path
    titles: Path
    columns: Columns


def find_source(
    name: str,
    path: Path,
    metadata: Path | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> Source:
    """The files of raw data and the names of their fields.

    Args:
        name: Of a format, or "auto".
        path: The file of interactions, or a folder with a file of the format's name.
        metadata: The file of titles; where left out, the one that the format has beside
            the interactions, or the interactions themselves (csv, jsonl).
        columns: Names of fields, by the names of `Columns`, that are not the format's
            own.

    Raises:
        InputError: A file is missing, `auto` is not certain, or a header lacks a field.
    """
    name = _recognised(path) if name == "auto" else name
    kind = FORMATS[name]
    ratings = _file_of(kind, path)
    if not ratings:
        raise InputError(
            f"{path} is a folder without exactly one {kind.file or 'file'}: name the "
            "file of interactions."
        )
    if metadata:
        titles = metadata
    elif kind.beside.startswith("."):
        titles = ratings.with_suffix(kind.beside)
    elif kind.beside:
        titles = ratings.with_name(kind.beside)
    elif name in ("csv", "jsonl"):
        titles = ratings
    else:
        raise InputError(
            f"--format {name} needs --metadata: the titles are in a file of their own."
        )
    if not metadata and not titles.exists():
        raise InputError(f"{titles} does not exist: name the titles with --metadata.")
    return Source(name, kind, ratings, titles, _bind(kind, ratings, titles, columns))


def to_interaction(source: Source) -> Callable[[Record], tuple]:
    """How a record becomes (user, item, rating or nothing, seconds)."""
    columns, per_second = source.columns, source.format.per_second

    def to_row(record: Record) -> tuple[str, str, float | None, float]:
        rating = record.get(columns.rating)
        return (
            _identifier(record, columns.user),
            _identifier(record, columns.item),
            None if rating in (None, "") else _number(rating, columns.rating),
            _seconds(record.get(columns.time), columns.time) / per_second,
        )

    return to_row


def to_title(source: Source) -> Callable[[Record], tuple]:
    """How a record becomes (item, title or nothing), white space made plain."""
    columns, escaped = source.columns, source.format.escaped

    def to_row(record: Record) -> tuple[str, str | None]:
        item, title = _identifier(record, columns.item), record.get(columns.title)
        if not isinstance(title, str):
            return item, None
        title = " ".join((html.unescape(title) if escaped else title).split())
        title.encode()  # half of a surrogate pair is no text
        return item, title or None

    return to_row


def _file_of(kind: Format, path: Path) -> Path | None:
    """The file of interactions: the path itself, or the one in the folder."""
    if not path.is_dir():
        return path
    found = sorted(path.glob(kind.file)) if kind.file else []
    return found[0] if len(found) == 1 else None


def _recognised(path: Path) -> str:
    """The only format whose file name and marks fit."""
    fitting = [
        name for name, kind in FORMATS.items() if kind.marks and _fits(kind, path)
    ]
    if len(fitting) != 1:
        what = f"fits {' and '.join(fitting)}" if fitting else "is not recognised"
        raise InputError(f"{path} {what}: give --format, one of {', '.join(FORMATS)}.")
    return fitting[0]


def _fits(kind: Format, path: Path) -> bool:
    file = _file_of(kind, path)
    if not file or not fnmatch(file.name, kind.file or "*"):
        return False
    return kind.marks <= first_record(file, kind.ratings).keys()


def _bind(
    kind: Format, ratings: Path, titles: Path, given: Mapping[str, str | None] | None
) -> Columns:
    given = {name: column for name, column in (given or {}).items() if column}
    columns = kind.columns._replace(**given)
    in_ratings = list(first_record(ratings, kind.ratings))
    in_titles = list(first_record(titles, kind.titles))
    if columns.title not in in_titles and "title" not in given:
        # RecBole has movie_title, product_title and more.
        similar = [name for name in in_titles if name.endswith("title")]
        if len(similar) == 1:
            columns = columns._replace(title=similar[0])
    # A line of JSON may lack what others have; a header may not.
    if kind.ratings.header:
        needed = {"user", "item", "time"} | (given.keys() - {"title"})
        for what in [name for name in Columns._fields if name in needed]:
            _check_column(getattr(columns, what), what, in_ratings, ratings)
    if kind.titles.header:
        for what in ("item", "title"):
            _check_column(getattr(columns, what), what, in_titles, titles)
    return columns


def _check_column(column: str, what: str, present: list[str], path: Path) -> None:
    if column not in present:
        raise InputError(
            f"{path} has no column {column!r}, it has {', '.join(present)}: name the "
            f"right one with --{what}-column."
        )


def _identifier(record: Record, name: str) -> str:
    value = record.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is missing" if not value else f"{name!r} is no id")
    if not value.isascii():
        value.encode()  # half of a surrogate pair is no text
    return value


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name!r} is not a number: {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name!r} is not finite")
    return number


def _seconds(value: Any, name: str) -> float:
    """A number as it is; of a date as in ISO 8601, seconds since 1970 (UTC)."""
    try:
        return _number(value, name)
    except ValueError:
        if not isinstance(value, str):
            raise
    try:
        date = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{name!r} is neither number nor date: {value!r}") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
