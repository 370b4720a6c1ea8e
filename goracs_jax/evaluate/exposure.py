"""Which items a model puts first: how many of them, and how many from the long tail."""

import numpy as np
from jaxtyping import Bool, Float, Int

#: Fills rows that have fewer items than others.
NONE = -1
#: How many items of a ranking count as recommended.
TOP = 10
#: The share of all interactions that the items outside the long tail account for.
HEAD = 0.8

Top = Int[np.ndarray, "examples top"]


def first_items(
    distances: Float[np.ndarray, "examples candidates"],
    items: Int[np.ndarray, "#examples candidates"],
) -> Top:
    """Return the items that rank first, at most ten of each example.

    Args:
        distances: Distance of each candidate; the smallest ranks first.
        items: The candidates' rows in the catalogue, or NONE.

    Returns:
        Rows of the catalogue, first ranks first; NONE where there are fewer than ten.

    >>> first_items(np.array([[0.3, 0.1, 0.2]]), np.array([[7, 8, NONE]])).tolist()
    [[8, 7, -1]]
    """
    there = np.where(items == NONE, np.inf, distances)
    order = np.argsort(there, axis=1, kind="stable")[:, :TOP]
    return np.take_along_axis(np.broadcast_to(items, there.shape), order, axis=1)


def coverage(top: Top, n_items: int) -> float:
    """Return the share of the catalogue's items that are ever among the first ten.

    It is the catalogue coverage of Ge, Delgado-Battenfeld and Jannach (RecSys 2010):
    |union of all lists| / |items|. A model that gives everybody the same popular titles
    has a small one. It grows with the number of examples, so that values of different
    test sets cannot be compared.

    Args:
        top: The items that rank first, of all examples.
        n_items: Number of items in the catalogue.

    >>> coverage(np.array([[0, 1], [1, NONE]]), 8)
    0.25
    """
    return len(np.unique(top[top != NONE])) / n_items


def long_tail(interactions: Int[np.ndarray, " items"]) -> Bool[np.ndarray, " items"]:
    """Tell which items are in the long tail.

    The head is the smallest set of items that have 80 % of all interactions; the rest
    are the tail (the rule of Pareto, as in Yin et al., VLDB 2012).

    Args:
        interactions: Number of training interactions of each item.

    Returns:
        Whether each item is in the tail.

    >>> long_tail(np.array([1, 6, 0, 3])).tolist()
    [True, False, True, False]
    """
    order = np.argsort(-interactions, kind="stable")
    before = np.cumsum(interactions[order]) - interactions[order]
    tail = np.empty(len(interactions), bool)
    tail[order] = before >= HEAD * interactions.sum()
    return tail


def share_of(
    tail: Bool[np.ndarray, " items"], top: Top
) -> Float[np.ndarray, " examples"]:
    """Return the share of the long tail in the first items of each example.

    Its mean is the average percentage of long-tail items (APLT) of Abdollahpouri, Burke
    and Mobasher (RecSys 2017).

    Args:
        tail: Whether each item is in the long tail.
        top: The items that rank first; at least one of each example.

    >>> share_of(np.array([True, False]), np.array([[0, 1], [1, NONE]])).tolist()
    [0.5, 0.0]
    """
    there = top != NONE
    return (tail[top] & there).sum(axis=1) / there.sum(axis=1)
