"""Selectors to compare with."""

import time

import jax
import numpy as np

from goracs_jax.cost import materialize
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    Step,
    check_budget,
    objective,
)


def random(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """A uniform random subset: the baseline that data selection most often loses to.

    >>> from goracs_jax.cost import make_cost
    >>> eye = np.eye(3, dtype=np.float32)
    >>> random(Problem(make_cost(eye, eye)), 3, key=jax.random.key(0)).indices.tolist()
    [0, 1, 2]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    n_train, _ = problem.cost.shape
    rows = jax.random.choice(key, n_train, (budget,), replace=False)
    return selection_of(problem, np.asarray(rows), started)


def greedy_only(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """The greedy start without any refinement; `key` is not used.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> greedy_only(Problem(make_cost(x, x)), 1, key=jax.random.key(0)).indices.tolist()
    [1]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    rows = np.asarray(problem.start(materialize(problem.cost), budget))
    return selection_of(problem, rows, started)


def selection_of(problem: Problem, rows: np.ndarray, started: float) -> Selection:
    """The selection of a method that picks once and knows no lower bound.

    Args:
        problem: What was selected from.
        rows: Distinct training rows in any order, shape [n].
        started: `time.perf_counter()` when the method began.

    Returns:
        Sorted rows with their exact objective and a trace of one step.

    >>> from goracs_jax.cost import make_cost
    >>> eye = np.eye(3, dtype=np.float32)
    >>> selection_of(Problem(make_cost(eye, eye)), np.array([2, 0]), 0.0).indices
    array([0, 2])
    """
    seconds = time.perf_counter() - started
    indices = np.sort(rows).astype(np.int64)
    value = objective(problem.cost, indices)
    return Selection(
        indices, value, -np.inf, (Step(value, seconds, 0),), converged=True
    )
