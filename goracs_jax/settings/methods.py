"""What help says of the methods: read from their registry when help is printed."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class _Method(NamedTuple):
    name: str
    about: str
    weighed: bool = False


_TODAY = (
    _Method("goracs", "greedy start, annealed swaps, then group exchange", True),
    _Method("greedy", "the greedy start of goracs alone", True),
    _Method("itra", "the single swaps of the paper", True),
    _Method("random", "uniform draws"),
    _Method("stratified", "uniform draws in strata of the distance to validation"),
    _Method("k-center", "rows that leave no training row far from all of them"),
    _Method("k-means", "the rows nearest to the centres of clusters"),
    _Method("herding", "rows whose mean is near the mean of validation"),
    _Method("nearest", "the rows nearest to a validation row"),
    _Method("grad-norm", "the rows with the largest gradient norms"),
    _Method("error", "the rows with the largest prediction errors"),
)


def list_methods() -> str:
    """One line per method: its name and what it does.

    >>> list_methods().splitlines()[0]
    'goracs      greedy start, annealed swaps, then group exchange'
    """
    return _table([(method.name, method.about) for method in _methods()])


def list_compared() -> str:
    """The methods of a comparison, all training examples, and the label-aware suffix.

    >>> list_compared().splitlines()[-2]
    'full        all of --train, to compare with'
    """
    known = ((method.name, method.about) for method in _methods())
    return (
        _table([*known, ("full", "all of --train, to compare with")])
        + "\nAs NAME:by-label any but full is label-aware: see --by-label in goracs "
        "select --help."
    )


def list_weighed() -> str:
    """The methods in which lambda weighs.

    >>> list_weighed()
    'It weighs in these methods: goracs, greedy, itra.'
    """
    names = (method.name for method in _methods() if method.weighed)
    return f"It weighs in these methods: {', '.join(names)}."


def _methods() -> Iterable[_Method]:
    return _TODAY


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {about}" for name, about in rows)
