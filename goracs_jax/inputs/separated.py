"""Records of separated text, as RFC 4180 describes CSV, and without quotes.

A separator is a comma, a semicolon, a tab or a bar, or what a format prescribes. A line
break inside quotation marks belongs to the text.
"""

import csv
import math
import re
import sys
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from goracs_jax.inputs.parsed import UNREADABLE, Parsed
from goracs_jax.inputs.streams import Lines

SEPARATORS = ",;\t|"
#: The longest text between two quotation marks: a mark that is never closed ends here.
csv.field_size_limit(1 << 20)
Line = tuple[int, bytes]
#: A name with its type, as RecBole writes headers.
TYPED = re.compile(r"(.+):(?:token|float)(?:_seq)?")


class Style(NamedTuple):
    """How separated text is laid out; what is empty is found in the first line."""

    separator: str = ""
    names: tuple[str, ...] = ()  # of the first columns, where no line has them
    quoted: bool = True


class Head(NamedTuple):
    """What the first line of separated text tells."""

    style: Style
    names: list[str]
    is_header: bool  # whether the names stand in the line
    line: str


def read_head(line: str, style: Style, positions: bool = False) -> Head:
    r"""Find the separator and the names of the columns.

    A line that contains a number has no names: the columns are called 1, 2, ... then.
    The line 0,1,2,... is one of names, which pandas writes for columns without any.

    Args:
        line: The first line.
        style: What is known.
        positions: Whether columns are called by their position in any case.

    >>> read_head("user;item;time", Style()).names
    ['user', 'item', 'time']
    >>> read_head("A1,B7,4.0", Style()).names
    ['1', '2', '3']
    """
    cut = lambda by: _cut(line, style._replace(separator=by))
    by = style.separator or max(SEPARATORS, key=lambda by: len(cut(by)))
    cells = cut(by)
    typed = [TYPED.fullmatch(cell) for cell in cells]
    if all(typed):
        plain = style._replace(separator=by, quoted=False)
        return Head(plain, [found[1] for found in typed if found], True, line)
    style = style._replace(separator=by)
    if style.names:
        return Head(style, list(style.names), False, line)
    if positions or (any(map(_is_number, cells)) and not is_counted(cells)):
        names = [str(i) for i in range(1, len(cells) + 1)]
        return Head(style._replace(names=tuple(names)), names, False, line)
    return Head(style, [cell.strip() for cell in cells], True, line)


def is_counted(cells: list[str]) -> bool:
    """Whether cells count columns from 0, behind an empty one for numbers of rows.

    >>> is_counted(["0", "1", "2"]), is_counted(["", "0", "1"]), is_counted(["1", "2"])
    (True, True, False)
    """
    own = cells[1:] if cells[:1] == [""] else cells
    return bool(own) and own == [str(i) for i in range(len(own))]


def parse(lines: Lines, head: Head, exact: bool = True) -> Iterator[Parsed]:
    """Read the records below the header.

    A record that cannot be read costs its first line alone: what a quotation mark that
    is never closed has swallowed is read again.

    Args:
        lines: The lines, from the first.
        head: What the first line tells.
        exact: Whether a record has exactly as many fields as there are names, and not
            more.
    """
    if head.is_header:
        next((line for line in lines.numbered if line[1].strip()), None)
    names, by = head.names, head.style.separator
    quoted, decode = head.style.quoted, lines.decode
    waiting = deque[Line]()  # lines that are read again
    width = range(len(names), len(names) + 1 if exact else sys.maxsize)
    numbered = lines.numbered
    while line := waiting.popleft() if waiting else next(numbered, None):
        number, raw = line
        if raw.isspace():
            continue
        try:
            text = decode(raw)
            if quoted and '"' in text:
                cells = _quoted(lines, waiting, line, by, width)
            else:
                cells = text.split(by)
                if len(cells) not in width:
                    raise _misfit(cells, width)
        except UNREADABLE as error:
            yield Parsed(number, None, error, line=raw)
        else:
            yield Parsed(number, dict(zip(names, cells)))  # noqa: B905 (is slower)


def _fitting(cells: list[str], width: range) -> list[str]:
    if len(cells) not in width:
        raise _misfit(cells, width)
    return cells


def _misfit(cells: list[str], width: range) -> ValueError:
    return ValueError(f"{len(cells)} fields where {width[0]} are expected")


def _quoted(
    lines: Lines, waiting: deque[Line], line: Line, by: str, width: range
) -> list[str]:
    """Read a record with quotation marks, which may go on on later lines."""
    # Spark and MySQL write \" for a mark inside marks. Only what RFC 4180 cannot read
    # is read so: there, a backslash is a character like any other.
    for mark in (marks := ('""', '\\"')):
        taken = [line]
        try:
            texts = (t.replace(mark, '""') for t in _texts(lines, waiting, taken))
            return _fitting(next(csv.reader(texts, delimiter=by, strict=True)), width)
        except UNREADABLE:
            waiting.extendleft(reversed(taken[1:]))
            if mark == marks[-1] and by != "\t":
                raise
    # Tables with tabs are often written without quoting, marks and all.
    return _fitting(lines.decode(line[1]).split(by), width)


def _texts(lines: Lines, waiting: deque[Line], taken: list[Line]) -> Iterator[str]:
    """Yield the text of a line and of those after it, and add these to `taken`."""
    while True:
        yield lines.decode(taken[-1][1]) + "\n"
        line = waiting.popleft() if waiting else next(lines.numbered, None)
        if line is None:
            return
        # Blank lines between quotation marks are text, too.
        if gap := line[0] - taken[-1][0] - 1:
            yield "\n" * gap
        taken.append(line)


def _cut(line: str, style: Style) -> list[str]:
    if not style.quoted:
        return line.split(style.separator)
    return next(csv.reader([line], delimiter=style.separator))


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
