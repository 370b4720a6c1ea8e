"""The random baseline, and the selection of every method that picks rows only once."""

import time

import jax
import numpy as np

from goracs_jax.selection.problem import (
    Problem,
    Selection,
    Step,
    check_budget,
    objective,
)
from goracs_jax.selection.wishes.feasible import feasible_rows


def random(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose a uniformly random subset: data selection most often loses to this one.

    With wishes it is one that meets them, of rows in a random order.

    >>> from goracs_jax.cost import make_cost
    >>> eye = np.eye(3, dtype=np.float32)
    >>> random(Problem(make_cost(eye, eye)), 3, key=jax.random.key(0)).indices.tolist()
    [0, 1, 2]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    n_train, _ = problem.cost.shape
    if problem.wishes is not None:
        wanted = np.asarray(jax.random.uniform(key, (n_train,)))
        rows = feasible_rows(problem.wishes, wanted, budget)
        return selection_of(problem, rows, started)
    rows = np.asarray(jax.random.permutation(key, n_train))[:budget]
    return selection_of(problem, rows, started)


def selection_of(problem: Problem, rows: np.ndarray, started: float) -> Selection:
    """Return the selection of a method that picks once and knows no lower bound.

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
    return Selection(indices, value, None, (Step(value, seconds, 0),), converged=True)
