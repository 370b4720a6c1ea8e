r"""The w_i(g) of all rows: bounds from below by one pass over C, or by less than one.

Where prices move from g to g', a chosen row pays at least

    w_i(g') >= w_i(g) + min { sum_j (g_j - g'_j) P_ij :  P as in `relaxation` },

since it sends its mass in some way that was open to it before. Rows that this shows to
be dear at g' need no second look.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.cost import Block, Cost, column_mass, map_rows, rows_in_place
from goracs_jax.mesh import replicate, shard_rows
from goracs_jax.selection.serving import (
    Served,
    last_weighted,
    most_served,
    points_served,
    serve,
    served_by,
    weighted_value,
)
from goracs_jax.shapes import AnyArray

# Rows are looked at again in this many parts of all, the cheapest first.
PARTS = 32


class Seen(NamedTuple):
    """Prices at which the rows have been looked at, and bounds of w_i there.

    They are those of one budget and one lambda.
    """

    g: Float[np.ndarray, " valid"]
    w: Float[np.ndarray, " train"]


class Part(NamedTuple):
    """Some rows, equally many of each device and in their order."""

    rows: Int[np.ndarray, " part"]
    # The last part keeps its shape by rows of earlier ones, or copies: not fresh.
    fresh: Bool[np.ndarray, " part"]
    cost: Cost  # of these rows alone
    later: float  # the least number of the rows of later parts


def cheapest_first(cost: Cost, w: Float[np.ndarray, " train"]) -> Iterator[Part]:
    """Yield the rows in the order of some numbers, a part of each device at a time.

    Args:
        cost: C as factors.
        w: The numbers, shape [N].

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.array([[0.0], [4.0]]), np.array([[0.0]]))
    >>> np.concatenate([part.rows for part in cheapest_first(cost, np.array([2, 1.0]))])
    array([1, 0])
    """
    (n_train, _), mesh = cost.shape, cost.tiling.mesh
    local = len(cost.train) // mesh.size
    given = np.full(mesh.size * local, np.inf)  # copies that fill the last device
    given[:n_train] = w
    given = given.reshape(mesh.size, local)
    order = np.argsort(given, axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    size = -(-local // PARTS)
    for first in range(0, local, size):
        start = min(first, local - size)
        # Of equal rows, the lower number comes first in a part as in a pass.
        places = np.sort(order[:, start : start + size], axis=1)
        rows = places + local * np.arange(mesh.size)[:, None]
        fresh = (rows < n_train) & (np.take_along_axis(rank, places, 1) >= first)
        some = rows_in_place(cost, shard_rows(places.ravel(), mesh))
        later = np.take_along_axis(given, order[:, first + size :][:, :1], axis=1)
        rows = np.minimum(rows, n_train - 1).ravel()
        yield Part(rows, fresh.ravel(), some, float(later.min(initial=np.inf)))


def values_at(
    cost: Cost,
    g: Float[np.ndarray, " valid"],
    n: int,
    seen: Sequence[Seen] = (),
    least: int = 1,
) -> Float[np.ndarray, " train"]:
    """Bound w_i(g) of every row from below, on the host.

    Args:
        cost: C as factors. Where it is kept in memory, a pass is cheap and made anew.
        g: Prices of the validation points, shape [M].
        n: The budget.
        seen: What is known at other prices.
        least: As many rows of least w_i have the bounds of `values_below`, and so has
            every row that might be one of them. All others have what is known of them.

    Returns:
        Shape [N], in float64. The floor of the work is `least` rows of C, the most is
        all of them.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.array([[0.0], [4.0]]), np.array([[0.0], [4.0]]))
    >>> values_at(cost, np.array([0.5, 1.0]), 2).round(3).tolist()
    [-0.25, -0.5]
    """
    g = np.asarray(g, np.float32)
    prices = replicate(g, cost.tiling.mesh)
    if not seen or cost.matrix is not None:
        return np.asarray(values_below(cost, prices, n), np.float64)
    mass = column_mass(cost)
    dearer = lambda since: exact_values((np.float64(since) - g)[None], n, mass)
    w = np.max([each.w + dearer(each.g) for each in seen], axis=0)
    looked: list[np.ndarray] = []
    for rows, fresh, some, later in cheapest_first(cost, w):
        sharper = np.asarray(values_below(some, prices, n), np.float64)[fresh]
        w[rows[fresh]] = np.maximum(w[rows[fresh]], sharper)
        looked.append(w[rows[fresh]])
        known = np.concatenate(looked)
        if len(known) >= least and later > np.partition(known, least - 1)[least - 1]:
            break
    return w


def exact_values(
    reduced: Float[np.ndarray, "rows valid"],
    n: int,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> Float[np.ndarray, " rows"]:
    """Compute w_i of some rows in float64.

    Args:
        reduced: The C_ij - g_j.
        n: The budget.
        mass: b_j, where they differ.

    >>> exact_values(np.array([[3.0, 1.0, 2.0]]), 2).round(4).tolist()
    [0.6667]
    """
    if mass is not None:
        most = np.minimum(1 / n, mass)
        order = np.argsort(reduced, axis=1)
        x, takes = np.take_along_axis(reduced, order, 1), most[order]
        before = takes.cumsum(1) - takes
        taken = np.clip(1 / n - before, 0, takes)
        return (taken * x).sum(1)
    s = points_served(n, reduced.shape[1])
    k = math.ceil(s) - 1
    least = np.partition(reduced, k, axis=1)[:, : k + 1]
    return (least[:, k] + (least - least[:, k:]).sum(1) / s) / n


def values_below(
    cost: Cost, g: Float[AnyArray, " valid"], n: int
) -> Float[jax.Array, " train"]:
    r"""Bound w_i(g) of every row from below, by one pass in float32.

    With u = 2^-24 and any order of summation, |x|^2 + |y|^2 - 2 x.y is off by at most
    (dim + 2) u (|x| + |y|)^2 to first order (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, Sec. 3.1). Centring x moves it by 2 u (|x| + |y|)^2, and
    the root, its square and the two divisions by 6 u (|x| + |y|)^2. Twice the sum,

        e_i = 2 (dim + 10) u (|x_i| + max_j |y_j|)^2,

    also holds the terms of second order, and D_ij >= sqrt(max(D32_ij^2 - e_i, 0)): the
    root is monotone, so nothing is lost where D is near zero. What follows are numbers
    of size D / max(D), lambda and g, each rounded a few times, and a mean of s of them.

    Args:
        cost: C as factors.
        g: Any prices of the validation points, shape [M].
        n: The budget.

    Returns:
        One number per row, shape [N]. The floor of the work is a pass over C: 2 N M dim
        FLOPs.

    >>> from goracs_jax.cost import make_cost
    >>> x = jnp.array([[0.0], [4.0]])
    >>> values_below(make_cost(x, x), jnp.array([0.5, 1.0]), 2).round(3).tolist()
    [-0.25, -0.5]
    """
    n_valid = cost.shape[1]
    return _values_below(cost, g, served_by(n, n_valid), most_served(n, n_valid))


@partial(jax.jit, static_argnames="most")
def _values_below(
    cost: Cost, g: Float[AnyArray, " valid"], served: Served, most: int
) -> Float[jax.Array, " train"]:
    """Return `values_below`, by a program for all budgets that serve `most` or less."""
    unit = jnp.finfo(jnp.float32).eps / 2
    scale, (_, dim) = cost.distance_scale, cost.valid.shape
    farthest = jnp.linalg.norm(jnp.asarray(cost.valid), axis=1).max()
    reward = jnp.asarray(cost.reward)
    size = 1 + jnp.abs(reward).max() + jnp.abs(g).max()

    takes = None if cost.mass is None else jnp.minimum(served.mass, cost.mass)[None]

    def least(block: Block) -> jax.Array:
        reach = (jnp.linalg.norm(block.points, axis=1) + farthest) / scale
        squared = block.cost**2 - (2 * (dim + 10) * unit * reach**2)[:, None]
        reduced = jnp.sqrt(jnp.maximum(squared, 0)) - g
        if takes is None:
            return serve(reduced, None, served, most)[0]
        # At any t it is a bound; its sum has one term for each point below t, whose
        # masses are 2 / n at most together.
        _, t = last_weighted(reduced, takes, served.mass)
        terms = (reduced < t[:, None]).sum(1)
        off = 4 * terms * unit * size / served.n
        return weighted_value(reduced, takes, t, served.n) - off

    no_reward = cost._replace(reward=jnp.zeros_like(reward))
    off = (8 + served.s) * unit * size
    return map_rows(no_reward, least) - (reward + off) / served.n
