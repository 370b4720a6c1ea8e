"""Units: equal parts of the validation mass, of which every slot has as many."""

import math

import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import column_mass, exact_cost
from goracs_jax.selection.method import SimulatedAnnealing
from goracs_jax.selection.problem import Problem
from goracs_jax.shapes import sizes_alike
from goracs_jax.transport import Transport, exact

UNEVEN = SimulatedAnnealing().uneven


def units_per_slot(
    n: int,
    n_valid: int,
    uneven: float = UNEVEN,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> int:
    """Return the least s for which n s equal units misplace little mass.

    A column gets floor(n s / M) units or one more, so that no mass is misplaced where
    n s is a multiple of M; n s b_j units where the columns have weights. Weights
    misplace some whatever s is, so that it is then one of the few `sizes_alike`.

    Args:
        n: Slots.
        n_valid: M, the columns.
        uneven: Share of the mass that may be misplaced.
        mass: b_j, where they differ.

    >>> [units_per_slot(n, 5000) for n in (1000, 3000, 64)]
    [5, 5, 77]
    """

    def misplaced(s: int) -> float:
        if mass is None:
            share = n * s / n_valid % 1
            return 2 * share * (1 - share) / (n * s / n_valid)
        shares = n * s * mass % 1
        return float((2 * shares * (1 - shares)).sum()) / (n * s)

    choices = range(1, math.ceil(8 * max(n, n_valid) / n) + 1)
    if mass is not None:  # none is even, so few numbers will do, and few programs
        choices = [s for s in choices if s == sizes_alike(s)[-1]]
    even = (s for s in choices if misplaced(s) <= uneven)
    return next(even, None) or min(choices, key=misplaced)


def draw_units(
    mass: Float[np.ndarray, " valid"], total: int, rng: np.random.Generator
) -> Int[np.ndarray, " valid"]:
    """Draw whole numbers of units, each less than 1 off its share of the total.

    The mean of each is its share (systematic sampling; Madow, 1949).

    >>> draw_units(np.array([0.5, 0.25, 0.25]), 4, np.random.default_rng(0)).tolist()
    [2, 1, 1]
    """
    order = rng.permutation(len(mass))
    ends = np.append(0, mass[order].cumsum() * total)
    ends[-1] = total
    # One offset for all: that of the ends would be drawn twice.
    passed = np.floor(np.round(ends, 9) + rng.random())
    passed[-1] = passed[0] + total
    units = np.empty(len(mass), int)
    units[order] = np.diff(passed)
    return units


def deal(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    solved: Transport,
    rng: np.random.Generator,
    uneven: float = UNEVEN,
) -> Int[np.ndarray, "budget units"]:
    """Deal units to slots by an optimal transport of the units, whose plan is integral.

    Args:
        problem: The cost and the solver of `solved`.
        rows: The subset, shape [n].
        solved: Its transport; where the units are even and it is exact, its plan is
            dealt as it is.
        rng: Draws the columns that get one unit more.
        uneven: Share of the mass that the units may misplace.

    Returns:
        Column numbers, shape [n, s].
    """
    n, n_valid = len(rows), problem.cost.shape[1]
    mass = column_mass(problem.cost)
    s = units_per_slot(n, n_valid, uneven, mass)
    if mass is None:
        count, more = divmod(n * s, n_valid)
        units = np.full(n_valid, count)
        units[rng.permutation(n_valid)[:more]] += 1
    else:
        more, units = n * s, draw_units(mass, n * s, rng)
    columns = np.flatnonzero(units)
    plan = solved.plan
    if more or problem.solver is not exact:
        cost = exact_cost(problem.cost, rows)[:, columns]
        dealt = units[columns] / units.sum()
        plan = exact(cost, b=dealt, g=solved.g[columns]).plan
    counts = np.rint(plan * n * s).astype(int)
    slot, column = np.nonzero(counts)
    return np.repeat(columns[column], counts[slot, column]).reshape(n, s)
