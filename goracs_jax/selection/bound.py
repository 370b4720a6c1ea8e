r"""A lower bound of POO: it certifies how far a subset can be from the best one.

Any prices g of the validation points give one, B(g) of `relaxation`. Good prices come
from an ascent over a core of training rows, which are chosen by one pass over C. What
was left out may have been needed: then B(g) over all of C is less than over the core,
and the next ascent starts again at the best prices known, over a core that has what was
missing (a null step; Hiriart-Urruty and Lemarechal, Convex Analysis and Minimization
Algorithms II, 1993). The search for g runs in float32; what is returned is B(g) in
float64, rounded down.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import (
    Cost,
    block_rows,
    column_mass,
    count_distinct,
    exact_cost,
    materialize,
    some_rows,
)
from goracs_jax.mesh import replicate
from goracs_jax.selection.core import core_order, core_shape
from goracs_jax.selection.limit import UNLIMITED, Limit
from goracs_jax.selection.method import LowerBound
from goracs_jax.selection.relaxation import Arcs, ascend, core_arcs
from goracs_jax.selection.values import Seen, exact_values, values_at
from goracs_jax.selection.wishes.lagrangian import priced_least, prices
from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import sizes_alike
from goracs_jax.transport import exact

DEFAULTS = LowerBound()
# A row with this share of the steps behind it belongs to the next core.
WANTED = 0.01


class Relaxed(NamedTuple):
    """The relaxed problem, solved as far as the settings say."""

    seen: Seen  # the best prices, and bounds of w_i there
    bound: float
    wanted: Int[np.ndarray, " train"]  # all rows, the most wanted first
    price: Float[np.ndarray, " train"] | None = None  # what limits add to the w_i


def relax(
    cost: Cost,
    g: Float[np.ndarray, " valid"],
    value: float,
    budget: int,
    settings: LowerBound = DEFAULTS,
    limit: Limit = UNLIMITED,
    wishes: Wishes | None = None,
) -> Relaxed:
    """Find prices with a high bound, and how much each training row is wanted there.

    Args:
        cost: C as factors.
        g: Prices to start from, such as the least cost of each point to a subset.
        value: The POO of some subset of this size.
        budget: n.
        settings: How many rounds and steps.
        limit: Where it is up, no further round begins.
        wishes: What a subset must meet. Near rows are relaxed to cliques.

    >>> from goracs_jax.cost import make_cost
    >>> x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [1.0], [2.0]])
    >>> relax(make_cost(x, y), np.zeros(3), 0.5, 1).wanted.tolist()
    [0, 1]
    """
    n_train, n_valid = cost.shape
    mesh = cost.tiling.mesh
    rounds = plan_rounds(n_train, n_valid, settings)
    distinct, mass = count_distinct(cost), column_mass(cost)
    shape_of = lambda n: core_shape(cost.shape, n, distinct, settings, mass)
    size, width = shape_of(budget)
    alike = sizes_alike(budget)
    (room, _), (_, widest) = shape_of(alike[-1]), shape_of(alike[0])
    chosen, step, steps = np.zeros(n_train, np.float32), 1.0, settings.steps
    everywhere = partial(replicate, mesh=mesh)
    best, trial = -np.inf, np.asarray(g, np.float32)
    centre = trial
    below, toll = np.zeros(n_train), 0.0
    seen: list[Seen] = []
    certified = certified_rows(n_train, budget)

    def values(g: Float[np.ndarray, " valid"], few: int) -> Float[np.ndarray, " train"]:
        w = values_at(cost, g, budget, seen, few)
        if wishes is None:  # what wishes ask for may be dear: then every pass is whole
            seen.append(Seen(g, w))
        return w

    for left in reversed(range(rounds + 1)):
        # The next core needs that many rows of least w, and a certificate needs its
        # own, for which a limit may ask at any time.
        w = values(trial, max(size, certified) if left else certified)
        bound, multiplier = _sum_up(trial, w, budget, mass, wishes)
        if bound > best:
            best, centre, below, toll = bound, trial, w, multiplier
        if not left or limit.up():
            break
        # Where the last core was wrong, the prices that were too high show the way.
        high = np.maximum(centre, trial)
        if centre is not trial:
            w = values(high, size)
        rows = np.sort(core_order(w, chosen <= WANTED, budget, wishes)[:size])
        rows = np.pad(rows, (0, room - size), mode="edge")
        core, least = materialize(some_rows(cost, rows)), min(settings.listing, size)
        arcs = core_arcs(core, everywhere(high), size, width, widest, least)
        start, limits = centre, None if wishes is None else wishes.take(rows)
        if limits is not None:
            filled = np.arange(room) >= size
            limits = limits._replace(
                fixed=limits.fixed & ~filled, closed=limits.closed | filled
            )
        if limits is not None and limits.shares is not None:
            start = np.append(centre, toll * np.sqrt(n_valid)).astype(np.float32)
        ascent = ascend(
            Arcs(*map(everywhere, arcs)),
            everywhere(start),
            everywhere(chosen[rows]),
            value,
            step,
            steps,
            budget,
            cost.mass,
            limits,
        )
        trial = np.asarray(ascent.best)[:n_valid]
        chosen[:] = 0
        chosen[rows[:size]] = np.asarray(ascent.chosen)[:size]
        # The next arcs may allow longer steps again.
        step = min(1.0, max(1.5 * float(ascent.step), 0.02))
        steps *= 2
    wanted = np.lexsort((below, -chosen))
    bound = _certified(cost, centre, below, budget, wishes)
    price = None if wishes is None else prices(below, wishes, budget)
    return Relaxed(Seen(centre, below), bound, wanted, price)


def plan_rounds(n_train: int, n_valid: int, settings: LowerBound = DEFAULTS) -> int:
    """Return the number of ascents.

    >>> plan_rounds(15_000, 5_000), plan_rounds(88_000, 22_000)
    (4, 3)
    """
    affordable = settings.passed_entries // (n_train * n_valid)
    return min(settings.max_rounds, max(settings.fewest_rounds, affordable))


def dual_bound(
    cost: Cost,
    g: Float[np.ndarray, " valid"],
    budget: int,
    wishes: Wishes | None = None,
) -> float:
    """Return B(g), a lower bound of POO for every subset of size n, whatever g is.

    With wishes it holds for the subsets that meet them.

    Rows that `values_below` shows to be far from the n smallest w_i keep the bound of
    w_i that they have there; this lowers B(g) at most.

    Args:
        cost: C as factors.
        g: Any prices of the validation points, shape [M].
        budget: n.
        wishes: What a subset must meet.

    Returns:
        B(g) in float64, less what the rounding of the factors to float32 can hide.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float32)
    >>> round(dual_bound(make_cost(x, x), np.zeros(2), 1), 4)
    0.5
    """
    g = np.asarray(g, np.float32)
    return _certified(cost, g, values_at(cost, g, budget), budget, wishes)


def _sum_up(
    g: Float[np.ndarray, " valid"],
    w: Float[np.ndarray, " train"],
    n: int,
    mass: Float[np.ndarray, " valid"] | None = None,
    wishes: Wishes | None = None,
) -> tuple[float, float]:
    """Return B(g) from w_i(g), or what is below it from less, and its multiplier."""
    least = priced_least(w, wishes, n)
    paid = np.average(g.astype(np.float64), weights=mass)
    return float(paid + least.value), least.multiplier


def certified_rows(n_train: int, budget: int) -> int:
    """Return how many rows of least w_i are computed in float64 for a bound.

    >>> certified_rows(15_000, 1000)
    1564
    """
    return min(n_train, budget + budget // 2 + 64)


def _certified(
    cost: Cost,
    g: Float[np.ndarray, " valid"],
    below: Float[np.ndarray, " train"],
    budget: int,
    wishes: Wishes | None = None,
) -> float:
    """Return `dual_bound`, where a bound of every w_i is known."""
    n_train, _ = cost.shape
    mass, few = column_mass(cost), certified_rows(n_train, budget)
    w = below.copy()
    if wishes is None:
        rows = np.argpartition(w, few - 1)[:few]
    else:
        rows = core_order(w, np.zeros(n_train, bool), budget, wishes)[:few]
    step = min(few, block_rows(cost))
    for first in range(0, few, step):
        # The last block starts early to keep its shape.
        block = rows[min(first, few - step) :][:step]
        w[block] = exact_values(exact_cost(cost, block) - g, budget, mass)
    return _sum_up(g, w, budget, mass, wishes)[0] - rounding(cost)


def rounding(cost: Cost) -> float:
    """Bound by how much POO changes because C is made of float32 numbers.

    With u = 2^-24: rewards and points are rounded once, by u relative to their size,
    and max(D) has an error of (dim + 2) u / 2, since |x|^2, |y|^2 and -2 x.y do not
    cancel where points are farthest apart. No mean distance is above 1 in units of
    max(D). The masses of weighted points are rounded twice.

    >>> from goracs_jax.cost import make_cost
    >>> f"{rounding(make_cost(np.eye(2), np.eye(2))):.0e}"
    '8e-07'
    """
    dim = cost.valid.shape[1]
    largest = float(jnp.abs(jnp.asarray(cost.reward)).max())
    weighted = 0 if cost.mass is None else 2
    return 2.0**-24 * (dim + 12 + 2 * largest + weighted)


def lower_bound(
    cost: Cost,
    rows: Int[np.ndarray, " budget"],
    settings: LowerBound = DEFAULTS,
    limit: Limit = UNLIMITED,
    wishes: Wishes | None = None,
) -> float:
    """Bound the POO of all subsets of this size from below.

    Args:
        cost: C as factors.
        rows: A subset of size n; the better it is, the fewer steps it takes.
        settings: How many rounds and steps.
        limit: As for `relax`.
        wishes: What the subsets must meet.

    >>> from goracs_jax.cost import make_cost
    >>> x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [1.0], [2.0]])
    >>> round(lower_bound(make_cost(x, y), np.array([1])), 4)
    0.5
    """
    rows_cost = exact_cost(cost, rows)
    value = exact(rows_cost, b=column_mass(cost)).value
    if len(rows) == cost.shape[0]:  # nothing to choose
        return value - rounding(cost)
    return relax(
        cost, rows_cost.min(0), value, len(rows), settings, limit, wishes
    ).bound
