"""The search for the subset of least POO, stage by stage."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import column_mass, exact_cost
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.bound import relax, rounding
from goracs_jax.selection.method import Goracs, SimulatedAnnealing
from goracs_jax.selection.problem import (
    Problem,
    Refined,
    Selection,
    Step,
    check_budget,
    solve,
)
from goracs_jax.selection.search.annealing import anneal
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.search.group_exchange import group_exchange
from goracs_jax.selection.search.schedule import is_short
from goracs_jax.selection.wishes.feasible import feasible_rows
from goracs_jax.selection.wishes.record import meets
from goracs_jax.transport import dual_value, exact


def all_stages(
    problem: Problem, budget: int, *, key: jax.Array, settings: Goracs | None = None
) -> Selection:
    """Choose by greedy start, prices and group exchange, and anneal where it can help.

    The Lagrangian relaxation bounds POO from below and tells which rows it wants most.
    Their groups are exchanged. Where POO is then still above the bound by more than
    `SimulatedAnnealing.gap`, pairs of slots are annealed, and groups exchanged again,
    unless the problem is so large that little of the annealing would be left.

    The trace never rises, and the subset returned is never worse, by exact transport,
    than the greedy one. The search ends when group exchange finds nothing better, or
    where the problem's limit is up. Where the settings have no bound, there are no
    prices: the greedy groups are exchanged, and the annealing always runs.

    Args:
        problem: The cost, the transport solver, and wishes.
        budget: n, with the rows that are trained on already.
        key: Draws the moves of the annealing.
        settings: The settings of the stages; the defaults of `Goracs` when left out.

    Returns:
        The subset with its lower bound, which is None where there are no prices.

    Raises:
        NumericalError: The solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> problem = Problem(make_cost(x, x))
    >>> all_stages(problem, 2, key=jax.random.key(0)).indices.tolist()
    [1, 4]
    """
    settings = settings or Goracs()
    n_train, n_valid = problem.cost.shape
    check_budget(n_train, budget)
    started = time.perf_counter()
    cost = problem.materialize(problem.cost)
    problem = problem._replace(cost=cost)
    start = first_rows(problem, budget)
    rows_cost, solved = solve(cost, start, problem.solver)
    first = Step(solved.value, time.perf_counter() - started, 0)
    found = Refined(start, (first,), True)
    bound = None
    if budget < n_train:
        exchange, annealing = settings.exchange, settings.annealing
        wishes, wanted, seen = problem.wishes, start, None
        if settings.bound and not problem.limit.up():
            g, value, bounding = rows_cost.min(0), solved.value, settings.bound
            relaxed = relax(cost, g, value, budget, bounding, problem.limit, wishes)
            bound, wanted = relaxed.bound, relaxed.wanted[:budget]
            seen = relaxed.seen if wishes is None else None
            if wishes is not None:
                priced = wishes._replace(price=relaxed.price)
                problem = problem._replace(wishes=priced)
                wanted = feasible_rows(wishes, np.argsort(relaxed.wanted), budget)
        refine = partial(refined, problem, key=key, started=started)
        exchange_groups = partial(group_exchange, settings=exchange, seen=seen)
        found = refine(found, wanted, exchange_groups)
        gap = math.inf if bound is None else found.trace[-1].objective - bound
        if anneals(gap, (budget, n_valid), annealing, column_mass(cost)):
            before = found
            found = refine(found, found.rows, anneal, settings=annealing)
            # Where nothing has changed, a second exchange finds what the first did.
            if found.rows is not before.rows or not before.converged:
                found = refine(found, found.rows, exchange_groups)
    rows, trace, converged, stopped = found
    value = trace[-1].objective
    if problem.solver is not exact:
        # Entropic values are upper bounds and may fall where the exact one rises: the
        # better end is taken, and the trace ends with its exact value. Transports on
        # the host are few: the potentials tell where a subset cannot be the better one.
        _, ended = solve(cost, rows, problem.solver)
        _, certain = solve(cost, rows, exact, ended.g)
        value = certain.value
        # In float64, since the bound is one of exact costs.
        below = dual_value(exact_cost(cost, start), solved.g, column_mass(cost))
        if below < value:
            _, begun = solve(cost, start, exact, solved.g)
            if begun.value < value:
                value, rows, trace = begun.value, start, ()
        trace = (*trace, Step(value, time.perf_counter() - started, 0))
    if budget == n_train and settings.bound:  # there is nothing to choose
        bound = value - rounding(cost)
    rows = np.sort(rows).astype(np.int64)
    return Selection(rows, value, bound, trace, converged and not stopped, stopped)


def anneals(
    gap: float,
    shape: tuple[int, int],
    settings: SimulatedAnnealing,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> bool:
    """Tell whether POO is so far above its lower bound that annealing may help.

    Args:
        gap: How far; infinite where there is no bound.
        shape: n and M.
        settings: Those of the annealing.
        mass: b_j, where they differ.

    >>> given = SimulatedAnnealing()
    >>> [anneals(4e-4, shape, given) for shape in ((1000, 5000), (10, 5000))]
    [False, True]
    >>> [anneals(gap, (1000, 22_000), given) for gap in (1e-3, math.inf)]
    [False, True]
    """
    if math.isfinite(gap) and is_short(*shape, settings, mass):
        return False
    return gap > min(settings.gap, settings.slot_gap * shape[0])


def refined(
    problem: Problem,
    found: Refined,
    rows: Int[np.ndarray, " budget"],
    stage: Callable[..., Refined],
    **more: Any,
) -> Refined:
    """Return what a stage makes of some rows, or what was found, whichever is lower."""
    if problem.limit.up():
        return found._replace(stopped=True)
    after = stage(problem, rows, **more)
    start, *steps = after.trace
    start = start._replace(replaced=len(np.setdiff1d(rows, found.rows)))
    value = found.trace[-1].objective
    lower = [step for step in (start, *steps) if step.objective < value]
    ended = {
        "converged": after.converged,
        "stopped": found.stopped or after.stopped,
    }
    if not lower:
        return found._replace(**ended)
    return Refined(after.rows, (*found.trace, *lower), **ended)


def greedy_only(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose by the greedy start without any refinement; `key` is not used.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> greedy_only(Problem(make_cost(x, x)), 1, key=jax.random.key(0)).indices.tolist()
    [1]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    cost = problem.materialize(problem.cost)
    rows = first_rows(problem._replace(cost=cost), budget)
    return selection_of(problem, rows, started)


def first_rows(problem: Problem, budget: int) -> Int[np.ndarray, " budget"]:
    """Return the greedy picks, which meet all wishes.

    Raises:
        InputError: No rows that are as far apart as is wished meet the other wishes.
    """
    wishes = problem.wishes
    if wishes is None:
        return np.asarray(problem.start(problem.cost, budget))
    begun = np.flatnonzero(wishes.fixed)
    rows = np.asarray(greedy(problem.cost, budget, wishes=wishes, begun=begun))
    if len(np.unique(rows)) == budget and meets(wishes, rows):
        return rows
    # Picks have blocked all rows that are far enough: those that were picked first are
    # wanted most.
    wanted = np.full(len(wishes.fixed), float(budget))
    wanted[rows[::-1]] = np.arange(budget)[::-1]
    return feasible_rows(wishes, wanted, budget)
