"""Kinds of input that users have, each with the right result.

`python tests/kinds/table.py` writes what comes of them into docs/inputs.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """One kind of input: how it is made, read, and what must come of it."""

    name: str
    make: Callable[[Path], Any]  # from an empty folder to what `read` takes
    right: Any = None  # what is read; None if it is that of all kinds of its group
    line: str = ""  # what the line says, as a pattern, where the kind is refused
    needs: str = ""  # a package that not every installation has
    tried: bool = True  # whether a real file was read, and not only one of this layout


class Group(NamedTuple):
    """Kinds that are read by the same function."""

    title: str
    read: Callable[[Any], Any]
    right: Any
    kinds: tuple[Kind, ...]
