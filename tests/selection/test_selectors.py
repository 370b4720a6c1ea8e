"""Every selector of the registry passes every test here."""

import sys

import jax
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax import goracs, poo
from goracs_jax.cost import exact_cost
from goracs_jax.errors import InputError
from goracs_jax.selection import SELECTORS, Problem, Step
from goracs_jax.selection.lower_bound import lower_bound
from goracs_jax.selection.problem import check_budget, objective
from goracs_jax.transport import sinkhorn

DETERMINISTIC = sorted(set(SELECTORS) - {"random"})


@pytest.fixture(params=sorted(SELECTORS))
def selector(request):
    return SELECTORS[request.param]


@pytest.mark.parametrize(("n_train", "n_valid", "budget"), [
    (1, 1, 1), (30, 20, 1), (30, 20, 7), (30, 20, 20), (30, 20, 30), (30, 4, 9),
])  # fmt: skip
def test_indices_and_objective(selector, n_train, n_valid, budget):
    case = instance(n_train, n_valid, seed=0)
    found = selector(Problem(case.cost), budget, key=jax.random.key(1))
    assert found.indices.dtype == np.int64
    assert found.indices.shape == (budget,)
    assert (np.diff(found.indices) > 0).all()
    assert found.indices[0] >= 0
    assert found.indices[-1] < n_train
    cost = exact_cost(case.cost, np.arange(n_train))
    assert found.objective == pytest.approx(oracles.poo(cost, found.indices), abs=1e-9)
    bound, _ = lower_bound(case.cost, found.indices)
    assert found.lower_bound <= bound + 1e-9
    assert bound <= found.objective + 1e-9
    assert found.converged
    assert found.trace[-1].objective == pytest.approx(found.objective, abs=1e-9)


def test_the_key_decides(selector):
    problem = Problem(instance(40, 20, seed=2).cost)
    first = selector(problem, 6, key=jax.random.key(3))
    again = selector(problem, 6, key=jax.random.key(3))
    assert (first.indices == again.indices).all()


def test_budget_must_be_whole():
    with pytest.raises(InputError, match=r"budget must be an integer, got 2\.5"):
        check_budget(30, 2.5)


def test_random_draws_differ():
    problem = Problem(instance(40, 20, seed=2).cost)
    draws = {
        tuple(SELECTORS["random"](problem, 6, key=jax.random.key(seed)).indices)
        for seed in range(5)
    }
    assert len(draws) == 5


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_order_of_the_rows_does_not_matter(method):
    case = instance(40, 20, seed=4)
    order = np.random.default_rng(0).permutation(40)
    key = jax.random.key(0)
    one = goracs(case.x, case.y, case.g, budget=6, key=key, method=method)
    two = goracs(case.x[order], case.y, case.g[order], budget=6, key=key, method=method)
    assert set(order[two.indices]) == set(one.indices)


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_units_do_not_matter(method):
    """C has no unit: scaled, shifted embeddings and scaled norms give the same rows."""
    case = instance(40, 20, seed=5)
    key = jax.random.key(0)
    one = goracs(case.x, case.y, case.g, budget=6, key=key, method=method)
    two = goracs(
        8 * case.x + 2, 8 * case.y + 2, 16 * case.g, budget=6, key=key, method=method
    )
    assert (one.indices == two.indices).all()
    assert one.objective == pytest.approx(two.objective, abs=1e-6)  # float32 of 8 x + 2


@pytest.mark.parametrize("budget", [0, -1, 31])
def test_budget_out_of_range(selector, budget):
    with pytest.raises(InputError, match=rf"budget must be in \[1, 30\], got {budget}"):
        selector(Problem(instance(30, 5, seed=0).cost), budget, key=jax.random.key(0))


def test_goracs_is_often_optimal():
    """How often is for benchmarks/brute_force.py; here only that it is not luck."""
    gaps = []
    for seed in range(20):
        case = instance(10, 6, seed=seed)
        cost = exact_cost(case.cost, np.arange(10))
        found = goracs(
            case.x, case.y, case.g, budget=3, lambda_=0.3, key=jax.random.key(0)
        )
        gaps.append(found.objective - oracles.best_poo(cost, 3))
    assert min(gaps) > -1e-9
    assert np.mean(np.array(gaps) < 1e-9) >= 0.5


def test_goracs_is_below_greedy_and_random():
    case = instance(300, 80, seed=7)
    values = {
        method: goracs(
            case.x, case.y, case.g, budget=20, key=jax.random.key(0), method=method
        ).objective
        for method in SELECTORS
    }
    assert values["goracs"] < values["greedy"] < values["random"]


def test_sinkhorn_reports_the_exact_objective():
    case = instance(60, 30, seed=8)
    found = goracs(
        case.x, case.y, case.g, budget=8, key=jax.random.key(0), solver="sinkhorn"
    )
    cost = oracles.cost_matrix(case.x, case.y, case.g, 0.1)
    assert found.objective == pytest.approx(oracles.poo(cost, found.indices), abs=1e-6)
    assert found.trace[-1].objective == found.objective


def test_a_solver_that_misleads_does_no_harm(monkeypatch):
    """The end is compared with the start by exact transport."""
    case = instance(60, 30, seed=8)
    worse = (np.arange(8), (Step(-9.0, 0.0, 8),), True)
    monkeypatch.setattr(
        sys.modules["goracs_jax.selection.goracs"],
        "group_exchange",
        lambda *a, **k: worse,
    )
    key = jax.random.key(0)
    start = SELECTORS["greedy"](Problem(case.cost), 8, key=key)
    found = SELECTORS["goracs"](Problem(case.cost, sinkhorn), 8, key=key)
    assert found.objective == start.objective
    assert (found.indices == start.indices).all()
    assert [step.objective for step in found.trace] == [start.objective]


@pytest.mark.parametrize("lambda_", [10.0, 1000.0])
def test_large_lambda_takes_the_largest_norms(lambda_):
    case = instance(40, 20, seed=9)
    found = goracs(
        case.x, case.y, case.g, budget=6, lambda_=lambda_, key=jax.random.key(0)
    )
    cost = oracles.cost_matrix(case.x, case.y, case.g, lambda_)
    # float32 of lambda.
    assert found.objective == pytest.approx(oracles.poo(cost, found.indices), rel=1e-6)
    if lambda_ == 1000:  # distances, at most 1, cannot outweigh a norm
        assert set(found.indices) == set(np.argsort(case.g)[-6:])


def test_poo_is_pots():
    case = instance(40, 20, seed=9)
    indices = np.array([3, 1, 30])
    value = poo(case.x, case.y, case.g, indices, lambda_=0.4)
    cost = oracles.cost_matrix(case.x, case.y, case.g, 0.4)
    assert value == pytest.approx(
        oracles.poo(cost, indices), abs=1e-6
    )  # max(D) in float32


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 0], r"indices must be distinct and in \[0, 29\]"),
        ([0, 30], r"indices must be distinct and in \[0, 29\]"),
        ([-1, 3], r"indices must be distinct and in \[0, 29\]"),
        ([0.0, 2.0], r"indices must be a vector of integers, got shape \[2\] of float"),
        ([[0, 2]], r"indices must be a vector of integers, got shape \[1, 2\]"),
    ],
)
def test_poo_of_no_subset(indices, message):
    case = instance(30, 5, seed=0)
    with pytest.raises(InputError, match=message):
        poo(case.x, case.y, case.g, np.array(indices))


def test_unknown_names():
    case = instance(30, 5, seed=0)
    arguments = {"budget": 2, "key": jax.random.key(0)}
    with pytest.raises(InputError, match=r"method must be one of goracs.*got 'best'"):
        goracs(case.x, case.y, case.g, method="best", **arguments)
    with pytest.raises(InputError, match=r"solver must be one of exact.*got 'fast'"):
        goracs(case.x, case.y, case.g, solver="fast", **arguments)


def test_poo_of_an_unconverged_plan_is_refused():
    case = instance(30, 20, seed=7)
    tired = lambda cost: sinkhorn(cost, max_iterations=220, threshold=1e-9)
    with pytest.raises(InputError, match=r"Sinkhorn stopped with a marginal error of"):
        objective(case.cost, np.arange(5), tired)
