r"""The n rows of least value that meet all wishes but the cost, and its multiplier.

The Lagrangian of `relaxation` chooses the n rows of least w_i(g). Rows that are in or
out, groups, and sets of rows that are all near each other, each set inside one group,
are a matroid: the rows that must be taken first, and then the cheapest that are
allowed, are the best ones (Edmonds, 1971). The limit of the costs has a multiplier,

    B(g, mu) = sum_j b_j g_j + min { sum_{i in S} (w_i(g) + mu c_i / limit) } - mu,

which is concave in mu, too, and a lower bound of POO for every mu >= 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import AnyArray

# Steps of the search for a multiplier: it halves an interval.
HALVINGS = 40
DOUBLINGS = 60


def n_least(
    value: Float[AnyArray, " train"] | Int[AnyArray, " train"],
    wishes: Wishes | None,
    n: int,
) -> Int[AnyArray, " n"]:
    """Return the n rows of least total value that meet all wishes but the costs.

    Of near rows only cliques count: of each at most one row is chosen.

    Args:
        value: One number per row: an array of NumPy or, in a compiled program, of JAX.
        wishes: The wishes.
        n: Rows to choose, of which there must be enough.

    >>> in_or_out = Wishes(np.arange(4) == 3, np.arange(4) == 0)
    >>> sorted(n_least(np.arange(4.0), in_or_out, 2).tolist())
    [1, 3]
    >>> no = np.zeros(4, bool)
    >>> group, least, most = np.array([0, 0, 0, 1]), np.array([0, 1]), np.array([4, 4])
    >>> by_group = Wishes(no, no, group=group, least=least, most=most)
    >>> sorted(n_least(np.arange(4.0), by_group, 2).tolist())
    [0, 3]
    """
    xp = jnp if isinstance(value, jax.Array) else np
    key = value
    if wishes is not None:
        far = xp.inf if xp.issubdtype(value.dtype, xp.floating) else 2**30
        must = wishes.fixed
        key = xp.where(wishes.closed, far, key)
        if wishes.clique is not None:
            other = rank_within(wishes.clique, must, key) > 0
            key = xp.where(other & ~must, far, key)
        if wishes.group is not None:
            rank = rank_within(wishes.group, must, key)
            key = xp.where(rank >= xp.asarray(wishes.most)[wishes.group], far, key)
            must = must | (rank < xp.asarray(wishes.least)[wishes.group])
        key = xp.where(must, -far, key)
    if xp is np:
        return np.argpartition(key, n - 1)[:n]
    return jax.lax.top_k(-key, n)[1]


def rank_within(
    label: Int[AnyArray, " train"], first: AnyArray, key: AnyArray
) -> Int[AnyArray, " train"]:
    """Return the rank of every row among those of its label, by `first` and then key.

    >>> rank_within(np.array([0, 0, 1]), np.array([False, True, False]), np.arange(3))
    array([1, 0, 0])
    """
    xp: Any = jnp if isinstance(key, jax.Array) else np
    order = xp.lexsort((key, ~xp.asarray(first), label))
    sorted_label = xp.asarray(label)[order]
    rank = xp.arange(len(order)) - xp.searchsorted(sorted_label, sorted_label)
    return rank[xp.argsort(order)]


class Priced(NamedTuple):
    """The Lagrangian at its best multiplier."""

    value: float  # the least sum of w_i + mu c_i / limit, less mu
    multiplier: float
    rows: Int[np.ndarray, " n"]  # of least value, within the limit of the costs


def priced_least(
    w: Float[np.ndarray, " train"], wishes: Wishes | None, n: int
) -> Priced:
    """Return the greatest Lagrangian over the multiplier of the costs.

    >>> no = np.zeros(2, bool)
    >>> wishes = Wishes(no, no, shares=np.array([2.0, 0.5]))
    >>> priced_least(np.array([0.0, 0.3]), wishes, 1).value.__round__(6)
    0.2
    """
    if wishes is None or wishes.shares is None:
        rows = n_least(w, wishes, n)
        return Priced(float(w[rows].sum()), 0.0, rows)
    shares = np.asarray(wishes.shares, np.float64)

    def at(mu: float) -> Priced:
        value = w + mu * shares
        rows = n_least(value, wishes, n)
        return Priced(float(value[rows].sum()) - mu, mu, rows)

    within = lambda found: shares[found.rows].sum() <= 1
    low = high = at(0.0)
    step = max(float(np.ptp(w)), 1e-12)
    for _ in range(DOUBLINGS):
        if within(high):
            break
        low, high, step = high, at(step), 2 * step
    if high.multiplier:
        for _ in range(HALVINGS):
            middle = at((low.multiplier + high.multiplier) / 2)
            low, high = (low, middle) if within(middle) else (middle, high)
    best = max(low, high, key=lambda found: found.value)
    return best._replace(rows=high.rows)


def prices(
    w: Float[np.ndarray, " train"], wishes: Wishes, n: int
) -> Float[np.ndarray, " train"] | None:
    """Return what the Lagrangian adds to the w_i of every row; None if nothing.

    The costs add mu c_i / limit. A group at one of its limits adds what brings its last
    row that is chosen to the value of the last row that was free to be chosen.

    >>> no = np.zeros(3, bool)
    >>> group = {"group": np.array([0, 0, 1]), "most": np.array([3, 3])}
    >>> wishes = Wishes(no, no, **group, least=np.array([0, 1]))
    >>> prices(np.array([0.0, 0.5, 2.0]), wishes, 2).tolist()
    [0.0, 0.0, -2.0]
    """
    if wishes.group is None:
        return None
    _, multiplier, rows = priced_least(w, wishes, n)
    price = np.zeros(len(w))
    if wishes.shares is not None:
        price += multiplier * np.asarray(wishes.shares)
    value = w + price
    counts = np.bincount(wishes.group[rows], minlength=len(wishes.least))
    last = np.full(len(counts), -np.inf)
    np.maximum.at(last, wishes.group[rows], value[rows])
    free = (counts > wishes.least) & (counts < wishes.most)
    level = last[free].max() if free.any() else value[rows].max()
    # A row of a group at its least count is dear, one of a group at its most is cheap.
    dear = (counts == wishes.least) & (counts > 0) & (last > level)
    cheap = (counts == wishes.most) & (counts > 0) & (last < level)
    return price + np.where(dear | cheap, level - last, 0)[wishes.group]
