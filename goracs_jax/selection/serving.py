r"""What a chosen row does best at given prices: the w_i(g) of `relaxation`.

A row sends out a mass of 1/n, and to point j no more than that point takes, so it
serves the points of least x_j = C_ij - g_j in full, up to one of which a part is left.
Where all points take 1/M, that are the s = max(M / n, 1) smallest x; where they have
weights b_j, the place t of the last one is found by bisection.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from goracs_jax.shapes import sizes_alike

# Up to this many of the smallest numbers are found one after the other; more are
# sorted.
FEW = 32
# Where there are many more numbers, they are first looked for by groups of this size.
GROUP = 16
# Masses are counted in these parts of min(1/n, 1/M), because a sum of integers is the
# same in whichever order a device adds them up. All mass may go to one point: it has
# this many parts at most, so that 32 bits hold it, and what rounding adds.
PARTS, MOST_PARTS = 1 << 12, 1 << 30
# Steps of the bisection for t where points have weights.
BISECTIONS = 26
TINY = 1e-30  # in place of a mass of zero that is divided by

Number = jax.Array | float | int


def points_served(n: int, n_valid: int) -> float:
    """Return s, the number of validation points whose mass a row can take on.

    >>> points_served(2, 5), points_served(5, 2)
    (2.5, 1.0)
    """
    return max(n_valid / n, 1.0)


class Served(NamedTuple):
    """What a chosen row serves: numbers of a program, which others replace.

    Another budget of the same `sizes_alike` then compiles no other program.
    """

    n: Number
    mass: Number  # 1 / n, what a row sends out
    s: Number  # points that it serves where all have weight 1 / M
    last: Number  # ceil(s), the place of the last of them
    full: Number  # parts of min(1/n, 1/M)
    parts: Number  # those of a mass of 1


def served_by(n: int, n_valid: int) -> Served:
    """Return what each of n rows serves of M points.

    >>> served_by(2, 5)
    Served(n=2, mass=0.5, s=2.5, last=3, full=4096, parts=20480.0)
    """
    s = points_served(n, n_valid)
    full = max(1, min(PARTS, MOST_PARTS // max(n, n_valid)))
    return Served(n, 1 / n, s, math.ceil(s), full, full * n * s)


def most_served(n: int, n_valid: int) -> int:
    """Return the most points that a row serves, of all budgets that share a program.

    >>> most_served(64, 5000), math.ceil(points_served(64, 5000))
    (82, 79)
    """
    return math.ceil(points_served(sizes_alike(n)[0], n_valid))


def last_served(
    reduced: Float[jax.Array, "rows width"], k: Number, most: int
) -> Float[jax.Array, " rows"]:
    """Return the k-th smallest number of every row.

    Args:
        reduced: The numbers.
        k: A place, from 1 on.
        most: The highest k that the program is for.

    >>> last_served(jnp.array([[3.0, 1.0, 2.0, 1.0]]), 3, most=4).tolist()
    [2.0]
    """
    width = reduced.shape[1]
    if width >= 4 * GROUP * most:
        # All numbers below the k-th smallest are in the groups of the k least minima.
        room = ((0, 0), (0, -width % GROUP))
        groups = jnp.pad(reduced, room, constant_values=jnp.inf)
        groups = groups.reshape(len(reduced), GROUP, -1)
        _, least = jax.lax.top_k(-groups.min(1), most)
        reduced = jnp.take_along_axis(groups, least[:, None], 2)
        reduced = reduced.reshape(len(reduced), -1)
    elif most <= FEW:
        return _kth(reduced, k)
    least = -jax.lax.top_k(-reduced, min(most, width))[0]
    return jax.lax.dynamic_index_in_dim(least, k - 1, 1, keepdims=False)


def _kth(x: Float[jax.Array, "rows width"], k: Number) -> Float[jax.Array, " rows"]:
    """Return the k-th smallest number of every row, from the smallest on."""

    def next_larger(_: Number, t: jax.Array) -> jax.Array:
        enough = (x <= t[:, None]).sum(1) >= k  # equal numbers count each
        above = jnp.where(x > t[:, None], x, jnp.inf).min(1)
        return jnp.where(enough, t, above)

    return jax.lax.fori_loop(0, k, next_larger, jnp.full(len(x), -jnp.inf))


def last_weighted(
    reduced: Float[jax.Array, "rows width"],
    most: Float[jax.Array, "#rows width"],
    mass: Number,
) -> tuple[Float[jax.Array, " rows"], Float[jax.Array, " rows"]]:
    """Return two neighbouring numbers between which a row runs out of mass.

    Args:
        reduced: C_ij - g_j; infinite where there is no point.
        most: The most that each point takes, min(1/n, b_j).
        mass: What the row sends out, 1/n.

    >>> low, t = last_weighted(jnp.array([[3.0, 1.0, 2.0]]), jnp.full((1, 3), 0.6), 1.0)
    >>> bool(1 <= low[0] < 2 <= t[0]), round(t.item(), 4)
    (True, 2.0)
    """
    low = reduced.min(1) - 1e-6
    high = jnp.where(jnp.isfinite(reduced), reduced, -jnp.inf).max(1)

    def halve(_: Number, ends: tuple[jax.Array, jax.Array]) -> tuple:
        low, high = ends
        middle = low + (high - low) / 2
        enough = (most * (reduced <= middle[:, None])).sum(1) >= mass
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    return jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))


def weighted_value(
    reduced: Float[jax.Array, "rows width"],
    most: Float[jax.Array, "#rows width"],
    t: Float[jax.Array, " rows"],
    n: Number,
) -> Float[jax.Array, " rows"]:
    """Return t/n + sum_j most_j min(x_j - t, 0): it is w_i at the best t, else less.

    >>> x, most = jnp.array([[3.0, 1.0, 2.0]]), jnp.full((1, 3), 0.6)
    >>> weighted_value(x, most, jnp.array([2.0]), 1).round(4).tolist()
    [1.4]
    """
    return t / n + (most * jnp.minimum(reduced - t[:, None], 0)).sum(1)


def serve(
    reduced: Float[jax.Array, "rows width"],
    takes: Float[jax.Array, "rows width"] | None,
    served: Served,
    most: int,
) -> tuple[Float[jax.Array, " rows"], ...]:
    """Return w_i of some rows, and the numbers between which each runs out of mass.

    The sum of the s smallest numbers x is max_t (s t + sum_j min(x_j - t, 0)), and the
    last of them is a t that attains it.

    Args:
        reduced: x, the C_ij - g_j; infinite where there is no point.
        takes: The most that each point takes, where they have weights.
        served: What each row serves.
        most: `most_served`.

    >>> x = jnp.array([[3.0, 1.0, 2.0]])
    >>> [y.round(2).item() for y in serve(x, None, served_by(2, 3), most=2)]
    [0.67, 2.0, 2.0]
    """
    if takes is None:
        t = last_served(reduced, served.last, most)
        below = jnp.minimum(reduced - t[:, None], 0).sum(1)
        return (t + below * (1 / served.s)) * (1 / served.n), t, t
    low, t = last_weighted(reduced, takes, served.mass)
    return weighted_value(reduced, takes, t, served.n), low, t


def mass_sent(
    x: Float[jax.Array, "rows width"],
    low: Float[jax.Array, "rows 1"],
    last: Float[jax.Array, "rows 1"],
    takes: Float[jax.Array, "rows width"] | None,
    served: Served,
) -> Int[jax.Array, "rows width"]:
    """Return the mass that points get of rows, in parts; see `Served.parts`.

    Points below the last one are served in full, and those at it share what is left.

    >>> at = jnp.array([[2.0]])
    >>> sent = mass_sent(jnp.array([[3.0, 1.0, 2.0]]), at, at, None, served_by(2, 3))
    >>> (sent / PARTS).tolist()
    [[0.0, 1.0, 0.5]]
    """
    if takes is None:
        left = (served.s - (x < last).sum(1)) / (x == last).sum(1)
        shared = jnp.rint(served.full * left).astype(jnp.int32)[:, None]
        return jnp.where(x < last, served.full, jnp.where(x == last, shared, 0))
    in_full = x <= low
    at = (x <= last) & ~in_full
    left = (served.mass - (takes * in_full).sum(1)) / jnp.maximum(
        (takes * at).sum(1), TINY
    )
    share = jnp.where(in_full, 1, jnp.where(at, jnp.clip(left, 0, 1)[:, None], 0))
    return jnp.rint(served.parts * takes * share).astype(jnp.int32)
