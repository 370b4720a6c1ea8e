"""Single rows are exchanged where there are few; a plain loop is the oracle."""

import jax
import numpy as np
import pytest
from instances import instance

from goracs_jax.cost import make_cost
from goracs_jax.selection.method import find_method
from goracs_jax.selection.problem import Problem, objective
from goracs_jax.selection.search.group_exchange import TOLERANCE, group_exchange
from goracs_jax.selection.search.row_exchange import best_swap
from goracs_jax.selection.wishes import row_wishes
from goracs_jax.transport import sinkhorn


def after_every_swap(cost, rows, fixed=(), closed=()):
    outside = set(range(cost.shape[0])) - {*rows, *closed}
    return {
        (row, other): objective(cost, np.array([*(set(rows) - {row}), other]))
        for row in set(rows) - {*fixed}
        for other in outside
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("wished", [False, True])
def test_the_best_swap_is_that_of_a_loop(seed, wished):
    cost = instance(9, 7, seed=seed, lambda_=0.3).cost
    rows = np.random.default_rng(seed).choice(9, 3, replace=False)
    fixed = closed = ()
    problem = Problem(cost)
    if wished:
        fixed, closed = rows[:1].tolist(), np.setdiff1d(np.arange(9), rows)[:2].tolist()
        wishes = row_wishes(9, include=fixed, exclude=closed)
        problem = problem._replace(wishes=wishes)
    found = best_swap(problem, rows, np.zeros(7), 18)
    assert found is not None
    values = after_every_swap(cost, rows.tolist(), fixed, closed)
    # Both are exact transports in float64.
    assert found[-1].value == pytest.approx(min(values.values()), abs=1e-12)
    (row,), (other,) = np.setdiff1d(rows, found[0]), np.setdiff1d(found[0], rows)
    assert values[row, other] == pytest.approx(found[-1].value, abs=1e-12)


def test_more_pairs_than_may_be_tried_and_other_solvers():
    problem = instance(9, 7, seed=0).problem
    assert best_swap(problem, np.arange(3), np.zeros(7), 17) is None
    entropic = problem._replace(solver=sinkhorn)
    assert best_swap(entropic, np.arange(3), np.zeros(7), 18) is None


@pytest.mark.parametrize("seed", range(8))
def test_an_exchange_ends_where_no_swap_is_better(seed):
    cost = instance(12, 10, seed=seed, lambda_=0.1).cost
    start = np.random.default_rng(seed).choice(12, 4, replace=False)
    found = group_exchange(Problem(cost), start)
    assert found.converged
    best = min(after_every_swap(cost, found.rows.tolist()).values())
    assert best >= found.trace[-1].objective - TOLERANCE


@pytest.mark.parametrize("key", [0, 2, 9])
def test_an_instance_that_annealing_alone_misses(key):
    """From the enumerated instances of benchmarks/brute_force.py."""
    rng = np.random.default_rng(195)
    x, y = (rng.normal(size=(n, 3)).astype(np.float32) for n in (12, 10))
    cost = make_cost(x, y, rng.gamma(4.0, size=12), 0.1)
    found = find_method("goracs").choose(Problem(cost), 4, key=jax.random.key(key))
    assert found.indices.tolist() == [1, 4, 8, 11]
