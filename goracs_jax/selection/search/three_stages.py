"""The search for the subset of least POO: greedy start, annealing, group exchange."""

import time

import jax
import numpy as np

from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.bound import lower_bound
from goracs_jax.selection.method import Goracs
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    Step,
    check_budget,
    objective,
)
from goracs_jax.selection.search.annealing import anneal
from goracs_jax.selection.search.group_exchange import group_exchange
from goracs_jax.transport import exact


def three_stages(
    problem: Problem, budget: int, *, key: jax.Array, settings: Goracs | None = None
) -> Selection:
    """Choose by a greedy start, annealed pairs of slots, and group exchange.

    The trace never rises, and the subset returned is never worse, by exact transport,
    than the greedy one. The search ends when group exchange finds nothing better.

    Args:
        problem: The cost and the transport solver.
        budget: n.
        key: Draws the moves of the annealing.
        settings: The settings of the stages; the defaults of `Goracs` when left out.

    Returns:
        The subset with its lower bound.

    Raises:
        NumericalError: The solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> problem = Problem(make_cost(x, x))
    >>> three_stages(problem, 2, key=jax.random.key(0)).indices.tolist()
    [1, 4]
    """
    settings = settings or Goracs()
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    cost = problem.materialize(problem.cost)
    problem = problem._replace(cost=cost)
    start = np.asarray(problem.start(cost, budget))
    annealed = anneal(
        problem, start, key=key, settings=settings.annealing, started=started
    )
    refined = group_exchange(
        problem, annealed.rows, key=key, settings=settings.exchange, started=started
    )
    rows, trace = refined.rows, (*annealed.trace, *refined.trace[1:])
    value = trace[-1].objective
    if problem.solver is not exact:
        # Entropic values are upper bounds and may fall where the exact one rises: the
        # better end is taken, and the trace ends with its exact value.
        ends = [
            (objective(cost, rows), rows, trace),
            (objective(cost, start), start, ()),
        ]
        value, rows, trace = min(ends, key=lambda end: end[0])
        trace = (*trace, Step(value, time.perf_counter() - started, 0))
    bound, _ = lower_bound(cost, rows, settings.bound)
    indices = np.sort(rows).astype(np.int64)
    return Selection(indices, value, bound, trace, refined.converged)


def greedy_only(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose by the greedy start without any refinement; `key` is not used.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> greedy_only(Problem(make_cost(x, x)), 1, key=jax.random.key(0)).indices.tolist()
    [1]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    rows = np.asarray(problem.start(problem.materialize(problem.cost), budget))
    return selection_of(problem, rows, started)
