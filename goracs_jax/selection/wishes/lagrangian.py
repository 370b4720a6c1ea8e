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

# Cuts after which the search for a multiplier gives up; it takes ten as a rule.
CUTS = 100
# Shares of the limit differ from what they stand for by this at most, and so does the
# sum of as many of them: no bound may rest on that.
ROUNDING = 2.0**-50
WITHIN = 1e-9  # what a subset may be over the limit, in units of it


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

    Each subset is a line in mu, and the Lagrangian is the lowest of them all. The lines
    of two subsets, one over the limit and one within, meet where a third is sought that
    is lower; where there is none, that is the greatest (Handler and Zang, Networks
    1980).

    >>> no = np.zeros(2, bool)
    >>> wishes = Wishes(no, no, shares=np.array([2.0, 0.5]))
    >>> found = priced_least(np.array([0.0, 0.3]), wishes, 1)
    >>> round(found.value, 6), round(found.multiplier, 6), found.rows.tolist()
    (0.2, 0.2, [1])
    """
    if wishes is None or wishes.shares is None:
        rows = np.asarray(n_least(w, wishes, n))
        return Priced(float(w[rows].sum()), 0.0, rows)
    shares = np.asarray(wishes.shares, np.float64)
    beyond = lambda rows: float(shares[rows].sum()) - 1
    line = lambda rows, mu: float(w[rows].sum()) + mu * beyond(rows)

    def at(mu: float) -> Priced:
        rows = np.asarray(n_least(w + mu * shares, wishes, n))
        return Priced(line(rows, mu) - (n + 8) * ROUNDING * mu, mu, rows)

    best = at(0.0)
    over, within = best.rows, n_least(shares, wishes, n)
    if beyond(over) <= WITHIN:
        return best
    if beyond(within) > WITHIN:
        return best._replace(rows=within)
    for _ in range(CUTS):
        mu = float(w[within].sum() - w[over].sum()) / (beyond(over) - beyond(within))
        found = at(mu)
        best = max(best, found, key=lambda priced: priced.value)
        if line(found.rows, mu) >= line(over, mu) - 1e-12:
            break
        if beyond(found.rows) > WITHIN:
            over = found.rows
        else:
            within = found.rows
    return best._replace(rows=within)


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
    if wishes.group is None and wishes.shares is None:
        return None
    _, multiplier, rows = priced_least(w, wishes, n)
    price = np.zeros(len(w))
    if wishes.shares is not None:
        price += multiplier * np.asarray(wishes.shares)
    if wishes.group is None:
        return price
    value, group = w + price, wishes.group
    counts = np.bincount(group[rows], minlength=len(wishes.least))
    rows = rows[~wishes.fixed[rows]]  # the others are chosen whatever their value is
    if not len(rows):
        return price
    last = np.full(len(counts), -np.inf)
    np.maximum.at(last, group[rows], value[rows])
    free = (counts > wishes.least) & (counts < wishes.most) & (last > -np.inf)
    level = last[free].max() if free.any() else value[rows].max()
    # Where a group is full of rows that are fixed, its first other row counts.
    others = ~wishes.fixed & ~wishes.closed
    first = np.full(len(counts), np.inf)
    np.minimum.at(first, group[others], value[others])
    at = np.where((counts == wishes.most) & (last == -np.inf), first, last)
    # A row of a group at its least count is dear, one of a group at its most is cheap.
    dear = (counts == wishes.least) & (at > level) & (last > -np.inf)
    cheap = (counts == wishes.most) & (at < level) & (at > -np.inf)
    of_group = np.zeros(len(counts))
    of_group[dear | cheap] = level - at[dear | cheap]
    return price + of_group[group]
