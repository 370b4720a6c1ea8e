"""Help texts about the methods, read from their registry when help is printed."""

from collections.abc import Sequence

from goracs_jax.selection.method import heeding_methods, known_methods


def list_methods() -> str:
    """Write one line per method: its name and what it does.

    >>> [line for line in list_methods().splitlines() if line.startswith("random ")]
    ['random         A uniformly random subset.']
    """
    return _table([(method.name, method.about) for method in known_methods().values()])


def list_compared() -> str:
    """List the methods of a comparison, `full`, and the label-aware suffix.

    >>> list_compared().splitlines()[-2]
    'full           All of --train, to compare with.'
    """
    rows = [(method.name, method.about) for method in known_methods().values()]
    table = _table([*rows, ("full", "All of --train, to compare with.")])
    suffix = "As NAME:by-label any but full is label-aware: see --by-label in goracs"
    return f"{table}\n{suffix} select --help."


def list_weighed() -> str:
    """Name the methods in which lambda weighs.

    >>> list_weighed()
    'Methods that use lambda: goracs, greedy, itra.'
    """
    names = [method.name for method in known_methods().values() if method.weighed]
    return f"Methods that use lambda: {', '.join(names)}."


def list_heeding() -> str:
    """Name the methods that heed wishes.

    >>> list_heeding()
    'Methods that heed wishes: goracs, greedy, random, grad-norm, error, ...'
    """
    return f"Methods that heed wishes: {', '.join(heeding_methods())}."


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {about}" for name, about in rows)
