"""Find the files of raw data and their format; turn the fields of a line into a row."""

import html
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.data.formats import FORMATS, Columns, Format
from goracs_jax.data.raw import Fields, first_fields
from goracs_jax.errors import InputError


class RawFiles(NamedTuple):
    """The two files of raw data, their format, and the names of their fields."""

    name: str
    format: Format
    ratings: Path
    titles: Path
    columns: Columns


def find_raw_files(
    name: str,
    path: Path,
    metadata: Path | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> RawFiles:
    """Find the files of raw data and the names of their fields.

    Args:
        name: The name of a format, or "auto" to recognise it.
        path: The file of interactions, or the folder that contains it under the name
            that the format prescribes.
        metadata: The file of titles. If None, it is the file that the format puts
            beside the interactions; for csv and jsonl it is the file of interactions
            itself.
        columns: Names of fields that differ from those of the format; the keys are the
            attributes of `Columns`.

    Returns:
        The files, which exist, and their format.

    Raises:
        InputError: A file is missing, no format or more than one fits "auto", or a
            header lacks a field.
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
    return RawFiles(name, kind, ratings, titles, _bind(kind, ratings, titles, columns))


def to_interaction(files: RawFiles) -> Callable[[Fields], tuple]:
    """Return a function from the fields of a line to (user, item, rating, seconds).

    The rating is None where the line has none.
    """
    columns, per_second = files.columns, files.format.per_second

    def to_row(fields: Fields) -> tuple[str, str, float | None, float]:
        rating = fields.get(columns.rating)
        return (
            _identifier(fields, columns.user),
            _identifier(fields, columns.item),
            None if rating in (None, "") else _number(rating, columns.rating),
            _seconds(fields.get(columns.time), columns.time) / per_second,
        )

    return to_row


def to_title(files: RawFiles) -> Callable[[Fields], tuple]:
    """Return a function from the fields of a line to (item, title).

    Runs of white space in a title become one space. The title is None where the line
    has none.
    """
    columns, escaped = files.columns, files.format.escaped

    def to_row(fields: Fields) -> tuple[str, str | None]:
        item, title = _identifier(fields, columns.item), fields.get(columns.title)
        if not isinstance(title, str):
            return item, None
        title = " ".join((html.unescape(title) if escaped else title).split())
        title.encode()  # raises for half of a surrogate pair, which is not text
        return item, title or None

    return to_row


def _file_of(kind: Format, path: Path) -> Path | None:
    """Return the file of interactions: the path itself, or the one in the folder."""
    if not path.is_dir():
        return path
    found = sorted(path.glob(kind.file)) if kind.file else []
    return found[0] if len(found) == 1 else None


def _recognised(path: Path) -> str:
    """Return the only format whose file name and characteristic fields fit."""
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
    return kind.marks <= first_fields(file, kind.ratings).keys()


def _bind(
    kind: Format, ratings: Path, titles: Path, given: Mapping[str, str | None] | None
) -> Columns:
    given = {name: column for name, column in (given or {}).items() if column}
    columns = kind.columns._replace(**given)
    in_ratings = list(first_fields(ratings, kind.ratings))
    in_titles = list(first_fields(titles, kind.titles))
    if columns.title not in in_titles and "title" not in given:
        # RecBole calls the title movie_title, product_title and so on.
        similar = [name for name in in_titles if name.endswith("title")]
        if len(similar) == 1:
            columns = columns._replace(title=similar[0])
    # Only a header must name every field: one line of JSON may lack some of them.
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


def _identifier(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is missing" if not value else f"{name!r} is no id")
    if not value.isascii():
        value.encode()  # raises for half of a surrogate pair, which is not text
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
    """Return a number as it is, and an ISO 8601 date as seconds since 1970 (UTC)."""
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
