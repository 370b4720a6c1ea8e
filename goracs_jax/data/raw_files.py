"""Find the files of raw data, their format, and the names of their fields."""

import codecs
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from goracs_jax.choices import Order
from goracs_jax.data.formats import FORMATS, Columns, Format
from goracs_jax.errors import InputError
from goracs_jax.inputs.parts import files_of
from goracs_jax.inputs.records import AS_FOUND, How, look_at, names_of
from goracs_jax.inputs.separated import Style, is_counted
from goracs_jax.inputs.streams import SUFFIXES, unpacked

#: What is read for Latin-1, as browsers do: the same letters, and where Latin-1 has
#: controls, which no text has, the dashes and quotation marks of Windows.
LATIN = "cp1252"


class RawFiles(NamedTuple):
    """The two files of raw data, their format, and the names of their fields."""

    name: str
    format: Format
    ratings: Path
    titles: Path
    columns: Columns
    how: tuple[How, How] = (AS_FOUND, AS_FOUND)  # the two files are read
    encoding: str | None = None  # as given
    order: Order = "time"


def find_raw_files(
    name: str,
    path: Path,
    metadata: Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    encoding: str | None = None,
    order: Order = "time",
) -> RawFiles:
    """Find the files of raw data and the names of their fields.

    Args:
        name: The name of a format, or "auto" to recognise it.
        path: The file of interactions, or the folder that contains it under the name
            that the format prescribes.
        metadata: The file of titles. If None, it is the file that the format puts
            beside the interactions; for csv, jsonl and parquet it is the file of
            interactions itself.
        columns: Names of fields that differ from those of the format; the keys are the
            attributes of `Columns`. A number is the position of a column in a file
            without a header, from 1.
        encoding: That of separated text; None stands for UTF-8, or for what the format
            prescribes.
        order: What orders the interactions; a time is needed for "time" alone.

    Returns:
        The files, which exist, and their format.

    Raises:
        InputError: A file is missing, no format or more than one fits "auto", a file
            lacks a field, or there is no such encoding.
    """
    _check_encoding(encoding)
    name = _recognised(path) if name == "auto" else name
    kind = FORMATS[name]
    ratings = _file_of(kind, path)
    if not ratings:
        raise InputError(
            f"{path} is a folder without exactly one {kind.file or 'file'}: name the "
            "file of interactions."
        )
    titles = metadata or _beside(name, kind, ratings)
    given = {key: column for key, column in (columns or {}).items() if column}
    how = (_how(kind, kind.ratings, encoding), _how(kind, kind.titles, encoding))
    found = RawFiles(name, kind, ratings, titles, kind.columns, how, encoding, order)
    return _bound(found, given)


def _beside(name: str, kind: Format, ratings: Path) -> Path:
    """Return the file of titles that belongs to a file of interactions."""
    if not kind.beside:
        if kind.columns == FORMATS["csv"].columns:
            return ratings
        raise InputError(
            f"--format {name} needs --metadata: the titles are in a file of their own."
        )
    plain = ratings.with_name(unpacked(ratings.name))
    is_suffix = kind.beside.startswith(".")
    titles = (
        plain.with_suffix(kind.beside) if is_suffix else plain.with_name(kind.beside)
    )
    packed = [titles.with_name(titles.name + suffix) for suffix in ("", *SUFFIXES)]
    found = next((file for file in packed if file.exists()), None)
    if not found:
        raise InputError(f"{titles} does not exist: name the titles with --metadata.")
    return found


def _file_of(kind: Format, path: Path) -> Path | None:
    """Return the file of interactions: the path itself, or the one in the folder."""
    if not path.is_dir():
        return path
    names = [kind.file + suffix for suffix in ("", *SUFFIXES)] if kind.file else []
    found = sorted(file for name in names for file in path.glob(name))
    if not kind.file:
        return path if files_of(path) else None
    return found[0] if len(found) == 1 else None


def _recognised(path: Path) -> str:
    """Return the only format whose file name and characteristic fields fit."""
    fitting = [
        name for name, kind in FORMATS.items() if kind.marks and _fits(kind, path)
    ]
    if len(fitting) != 1:
        what = f"fits {' and '.join(fitting)}" if fitting else "is not recognised"
        cure = "name the file of interactions in it, or " if path.is_dir() else ""
        raise InputError(
            f"{path} {what}: {cure}give --format, one of {', '.join(FORMATS)}; for "
            "fields of your own csv, jsonl or parquet, with --user-column and so on."
        )
    return fitting[0]


def _fits(kind: Format, path: Path) -> bool:
    if path.is_dir() and not kind.file:
        return False
    file = _file_of(kind, path)
    if not file or not fnmatch(unpacked(file.name), kind.file or "*"):
        return False
    how = _how(kind, kind.ratings, None)
    names = _names(file, how)
    foreign, _ = kind.foreign
    if kind.marks <= set(names) or (foreign and foreign <= set(names)):
        return True
    is_bare = len(names) == len(kind.bare.names) and names[:1] == ["1"]
    return is_bare and fnmatch(unpacked(file.name), kind.bare.file)


def _bound(files: RawFiles, given: Mapping[str, str]) -> RawFiles:
    """Find the names of the fields, and check that the files have them."""
    kind = files.format
    same = files.titles == files.ratings
    of = lambda *keys: [given[key] for key in keys if key in given]
    theirs = of("metadata_item", "title")
    own = of("user", "item", "rating", "time") + (theirs if same else [])
    ratings, how_ratings = _with_names(files.ratings, files.how[0], own, kind)
    foreign, why = kind.foreign
    if foreign and foreign <= set(ratings):
        raise InputError(f"{files.ratings}: {why}.")
    titles, how_titles = ratings, how_ratings
    if not same:
        titles, how_titles = _with_names(files.titles, files.how[1], theirs)
    columns = kind.columns._replace(**given)
    other = lambda what, names: _other(kind, columns, what, names, given)
    columns = columns._replace(
        item=other("item", ratings),
        rating=other("rating", ratings),
        time=other("time", ratings),
        title=other("title", titles),
    )
    if "metadata_item" not in given and columns.metadata_item not in titles:
        columns = columns._replace(metadata_item=columns.item)
    needed = ["user", "item", *(["rating"] if "rating" in given else [])]
    needed += ["time"] if files.order == "time" else []
    if ratings:
        for what in needed:
            _check_column(getattr(columns, what), what, ratings, files.ratings)
    if titles:
        _check_column(columns.metadata_item, "metadata_item", titles, files.titles)
        _check_column(columns.title, "title", titles, files.titles)
    needed_of = (columns[:4], (columns.metadata_item, columns.title))
    how = tuple(
        how._replace(columns=names)
        for how, names in zip((how_ratings, how_titles), needed_of, strict=True)
    )
    return files._replace(columns=columns, how=how)


def _with_names(
    path: Path, how: How, given: list[str], kind: Format | None = None
) -> tuple[list[str], How]:
    """Return the names of a file's fields, and how it is read by these names."""
    names = _names(path, how)
    numbers = {column for column in given if column.isdecimal()}
    if numbers and "0" not in numbers and is_counted(names) and _has_header(path, how):
        raise InputError(
            f"{path}: its first line, {','.join(names)}, is data, or how pandas "
            "numbers columns without names: write names in its place, or above it."
        )
    if numbers - set(names) and not how.style.names:
        how = how._replace(positions=True)
        names = _names(path, how)
    bare = kind.bare.names if kind and not numbers else ()
    if names[:1] == ["1"] and len(names) == len(bare):
        head = look_at(files_of(path)[0], how).head
        by = head.style.separator if head else ","
        return list(bare), how._replace(style=Style(by, bare))
    return names, how


def _has_header(path: Path, how: How) -> bool:
    head = look_at(files_of(path)[0], how).head
    return head is not None and head.is_header


def _names(path: Path, how: How) -> list[str]:
    try:
        return names_of(path, how)
    except UnicodeDecodeError:
        raise InputError(
            f"{path}:1: the first line is not {how.encoding}: name the encoding of the "
            "file, such as --encoding latin-1."
        ) from None


def _other(
    kind: Format, columns: Columns, what: str, names: list[str], given: Mapping
) -> str:
    """Return the name of a field that a file has, of those that the format knows."""
    column = getattr(columns, what)
    if column in names or what in given:
        return column
    found = [name for name in kind.others.get(what, ()) if name in names]
    if what == "title" and not found:
        # RecBole calls the title movie_title, product_title and so on.
        found = [name for name in names if name.endswith("title")]
    return found[0] if len(found) == 1 else column


def _check_column(column: str, what: str, present: list[str], path: Path) -> None:
    if present.count(column) == 1:
        return
    flag = f"--{what.replace('_', '-')}-column"
    if column in present:
        raise InputError(f"{path} has several columns {column!r}: rename all but one.")
    without = ""
    if what == "time":
        without = (
            ", or say what orders the interactions: --order file (their order in the "
            "file) or --order random"
        )
    elif what == "title":
        without = ", or the file of titles with --metadata"
    numbered = "--user-column 1 --item-column 2 --rating-column 3 --time-column 4"
    if what in ("metadata_item", "title"):
        numbered = "--metadata-item-column 1 --title-column 2"
    if present[:1] == ["1"] and column.isdecimal():
        raise InputError(
            f"{path} has {len(present)} columns and no column {column:.40}: give "
            f"{flag} a number from 1."
        )
    if present[:1] == ["1"]:
        raise InputError(
            f"{path} has no header line: say which of its {len(present)} columns are "
            f"which, such as {numbered}{without}."
        )
    raise InputError(
        f"{path} has no column {column!r}, it has {', '.join(present)}: name the right "
        f"one with {flag}{without}."
    )


def _how(kind: Format, style: Style, encoding: str | None) -> How:
    fallback = LATIN if kind.latin and not encoding else ""
    if encoding and codecs.lookup(encoding).name == "iso8859-1":
        encoding = LATIN
    return How(encoding or "utf-8", fallback, style, exact=not style.names)


def _check_encoding(encoding: str | None) -> None:
    try:
        # Python looks for no codec where there is nothing to decode.
        "\n".encode(encoding or "utf-8").decode(encoding or "utf-8")
    except (LookupError, ValueError):
        raise InputError(
            f"--encoding must be a name that Python knows, such as latin-1, got "
            f"{encoding!r}."
        ) from None
