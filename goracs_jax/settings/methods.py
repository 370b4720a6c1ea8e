"""What help says of the methods: read from their registry when help is printed."""

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple


class _Method(NamedTuple):
    name: str
    about: str
    weighed: bool = False


_TODAY = (
    _Method("goracs", "The least POO by greedy start, annealing, exchange.", True),
    _Method("greedy", "The greedy start of goracs, without any refinement.", True),
    _Method("itra", "The paper's algorithm: greedy start, then single swaps.", True),
    _Method("random", "A uniformly random subset."),
    _Method("stratified", "One random row from each of n strata by distance."),
    _Method("k-center", "Farthest-first traversal of the training embeddings."),
    _Method("k-means", "The training rows nearest to the n centres of k-means."),
    _Method("herding", "Kernel herding towards the mean validation embedding."),
    _Method("nearest", "Validation points in turn take their nearest training row."),
    _Method("grad-norm", "The rows with the largest gradient norms."),
    _Method("error", "The rows with the largest prediction errors (EL2N)."),
)


def list_methods() -> str:
    """One line per method: its name and what it does.

    >>> list_methods().splitlines()[3]
    'random      A uniformly random subset.'
    """
    return _table([(method.name, method.about) for method in _methods()])


def list_compared() -> str:
    """The methods of a comparison, all training examples, and the label-aware suffix.

    >>> list_compared().splitlines()[-2]
    'full        All of --train, to compare with.'
    """
    known = ((method.name, method.about) for method in _methods())
    return (
        _table([*known, ("full", "All of --train, to compare with.")])
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


def _methods() -> Sequence[Any]:
    """Every method that is known now, its name, its `about` and whether it weighs."""
    try:
        registry = importlib.import_module("goracs_jax.selection.method")
    except ModuleNotFoundError:
        return _TODAY
    return list(registry.known_methods().values())


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {about}" for name, about in rows)
