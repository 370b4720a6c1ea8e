"""Every method of the registry passes every test here."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from instances import instance, ranked

from goracs_jax import goracs, poo
from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.selection.bound import lower_bound
from goracs_jax.selection.method import (
    METHODS,
    Goracs,
    KMeans,
    LowerBound,
    SimulatedAnnealing,
)
from goracs_jax.selection.problem import (
    Problem,
    Refined,
    Step,
    check_budget,
    objective,
)
from goracs_jax.selection.search import stages
from goracs_jax.selection.select import select_from_cost
from goracs_jax.transport import exact, sinkhorn

# Of a method by angles, all that changes with the origin of the embeddings.
DIRECTED = {"gist"}
# These draw rows by their numbers. goracs anneals, but ends on small instances in the
# same subset whatever it draws.
DRAWN = {"k-center", "k-means", "random", "stratified", "tsds"}
DETERMINISTIC = sorted(set(METHODS) - DRAWN)


@pytest.fixture(params=sorted(METHODS))
def method(request):
    return request.param


@pytest.fixture
def run(method):
    return METHODS[method].choose


def choose(case, budget, method, **keywords):
    """The front door, with a score of every kind."""
    arguments = {"key": jax.random.key(0)} | case.scores_for(method) | keywords
    return goracs(case.x, case.y, budget=budget, method=method, **arguments)


@pytest.mark.parametrize(("n_train", "n_valid", "budget"), [
    (1, 1, 1), (30, 20, 1), (30, 20, 7), (30, 20, 20), (30, 20, 30), (30, 4, 9),
])  # fmt: skip
def test_indices_and_objective(run, n_train, n_valid, budget):
    case = instance(n_train, n_valid, seed=0)
    found = run(case.problem, budget, key=jax.random.key(1))
    assert found.indices.dtype == np.int64
    assert found.indices.shape == (budget,)
    assert (np.diff(found.indices) > 0).all()
    assert found.indices[0] >= 0
    assert found.indices[-1] < n_train
    cost = exact_cost(case.cost, np.arange(n_train))
    assert found.objective == pytest.approx(oracles.poo(cost, found.indices), abs=1e-9)
    bound = lower_bound(case.cost, found.indices)
    # Ascents from different starts end at different bounds.
    for each in (found.lower_bound, bound):
        assert each is None or each <= found.objective
    assert found.converged
    assert found.trace[-1].objective == pytest.approx(found.objective, abs=1e-9)


@pytest.mark.parametrize("budget", [1, 4, 6])
@pytest.mark.parametrize("x", [np.ones((6, 2)), np.zeros((6, 2))])
def test_rows_that_are_all_alike(run, method, x, budget):
    """In one place, apart from the validation points or on them: any n rows do."""
    norms = np.array([1.0, 3.0, 3.0, 2.0, 1.0, 2.0])
    cost = make_cost(x, np.zeros((3, 2)), norms, 0.5)
    problem = ranked(cost, norms, norms, norms)
    found = run(problem, budget, key=jax.random.key(0))
    assert len(set(found.indices) & set(range(6))) == budget
    # Every row is as far from every point; what differs is the reward.
    expected = x[0, 0] - 0.5 * norms[found.indices].mean() / 3
    assert found.objective == pytest.approx(expected, abs=1e-6)  # float32
    if method == "goracs":
        best = np.sort(norms)[-budget:].mean()
        assert norms[found.indices].mean() == pytest.approx(best)


def test_every_row_twice(run):
    x = np.repeat(np.random.default_rng(0).normal(size=(4, 2)), 2, axis=0)
    norms = np.arange(1.0, 9)
    problem = ranked(make_cost(x, x[:3], norms, 0.1), norms, norms, norms)
    found = run(problem, 5, key=jax.random.key(1))
    assert len(set(found.indices) & set(range(8))) == 5


def test_the_key_decides(run):
    problem = instance(40, 20, seed=2).problem
    first = run(problem, 6, key=jax.random.key(3))
    again = run(problem, 6, key=jax.random.key(3))
    assert (first.indices == again.indices).all()


def test_budget_must_be_whole():
    with pytest.raises(InputError, match=r"budget must be an integer, got 2\.5"):
        check_budget(30, 2.5)


def test_who_uses_the_key(method):
    problem = instance(40, 20, seed=2).problem
    draws = {
        tuple(METHODS[method].choose(problem, 6, key=jax.random.key(seed)).indices)
        for seed in range(4)
    }
    assert (len(draws) > 1) == (method in DRAWN)


@pytest.mark.parametrize("method", DETERMINISTIC)
def test_order_of_the_rows_does_not_matter(method):
    case = instance(40, 20, seed=4)
    order = np.random.default_rng(0).permutation(40)
    rows = ("x", "g", "errors", "rewards")
    two = case._replace(**{name: getattr(case, name)[order] for name in rows})
    one, two = choose(case, 6, method), choose(two, 6, method)
    assert set(order[two.indices]) == set(one.indices)


def test_units_do_not_matter(method):
    """Scaled and shifted embeddings and scaled scores give the same rows."""
    case = instance(40, 20, seed=5)
    shift = 0 if method in DIRECTED else 2
    two = case._replace(x=8 * case.x + shift, y=8 * case.y + shift)
    scores = ("g", "errors", "rewards")
    two = two._replace(**{name: 16 * getattr(case, name) for name in scores})
    one, two = choose(case, 6, method), choose(two, 6, method)
    assert (one.indices == two.indices).all()
    assert one.objective == pytest.approx(two.objective, abs=1e-6)  # float32 of 8 x + 2


@pytest.mark.parametrize(
    "method", sorted(set(DETERMINISTIC) - DIRECTED - {"herding", "unbalanced-ot"})
)  # these measure in the median, or the largest, of all distances, of far rows too
def test_rows_far_away_change_nothing(method):
    case = instance(40, 20, seed=6)
    cost = case.cost._replace(
        train=jnp.pad(case.cost.train, ((0, 10), (0, 0)), constant_values=500.0),
        reward=jnp.pad(case.cost.reward, (0, 10)),
        row_means=None,
    )
    least = (np.append(s, np.full(10, s.min() - 1)) for s in case[2:5])
    padded = ranked(cost, *least)
    one, two = (
        METHODS[method].choose(problem, 6, key=jax.random.key(0))
        for problem in (case.problem, padded)
    )
    assert (one.indices == two.indices).all()
    assert one.objective == pytest.approx(two.objective, abs=1e-9)


# Few steps of each loop: without jit a sweep takes tenths of a second.
SHORT = METHODS | {
    "goracs": Goracs(
        bound=LowerBound(max_rounds=2, steps=2),
        annealing=SimulatedAnnealing(gap=-1.0, epochs=2, sweeps=1, starts=1),
    ),
    "k-means": KMeans(rounds=2),
}


# Sinkhorn alone makes itra take half a minute here without jit; tarot has it, too.
@pytest.mark.parametrize("method", sorted(set(SHORT) - {"itra", "tarot"}))
def test_jit_changes_nothing(method):
    problem = instance(8, 5, seed=0).problem
    jitted = SHORT[method].choose(problem, 3, key=jax.random.key(0))
    with jax.disable_jit():
        plain = SHORT[method].choose(problem, 3, key=jax.random.key(0))
    assert (jitted.indices == plain.indices).all()


@pytest.mark.parametrize("budget", [0, -1, 31])
def test_budget_out_of_range(run, budget):
    with pytest.raises(InputError, match=rf"budget must be in \[1, 30\], got {budget}"):
        run(instance(30, 5, seed=0).problem, budget, key=jax.random.key(0))


def test_cost_that_is_not_finite(method):
    cost = instance(30, 5, seed=0).cost
    for spoilt in (
        cost._replace(reward=cost.reward.at[3].set(np.nan)),
        cost._replace(train=cost.train.at[3, 0].set(np.inf)),
    ):
        with pytest.raises(InputError, match=r"the cost has NaN or infinity: make"):
            select_from_cost(spoilt, 2, key=jax.random.key(0), method=method)


def test_transport_that_does_not_fit(method, monkeypatch):
    """Refused before any method begins."""
    monkeypatch.setattr(os, "sysconf", lambda name: 20)  # 20 pages of 20 bytes
    with pytest.raises(InputError, match=r"a transport of 4 x 5 takes .* this machine"):
        choose(instance(30, 5, seed=0), 4, method)


@pytest.mark.parametrize(
    ("method", "scores"),
    [
        ("grad-norm", "gradient norms"),
        ("error", "prediction errors"),
        ("loss-drop", "rewards"),
    ],
)
def test_no_scores_to_rank_by(method, scores):
    cost, key = instance(30, 5, seed=0).cost, jax.random.key(0)
    with pytest.raises(InputError, match=rf"needs {scores}, got none: give one p"):
        select_from_cost(cost, 2, key=key, method=method)


def test_scores_of_another_length():
    case = instance(30, 5, seed=0)
    with pytest.raises(InputError, match=r"errors have shape \[29\].*30 rows"):
        choose(case._replace(errors=case.errors[1:]), 2, "error")


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
    values = {m: choose(case, 20, m).objective for m in ("goracs", "greedy", "random")}
    assert values["goracs"] < values["greedy"] < values["random"]


def test_sinkhorn_reports_the_exact_objective():
    case = instance(60, 30, seed=8)
    found = goracs(
        case.x, case.y, case.g, budget=8, key=jax.random.key(0), solver="sinkhorn"
    )
    cost = oracles.cost_matrix(case.x, case.y, case.g, 0.1)
    assert found.objective == pytest.approx(oracles.poo(cost, found.indices), abs=1e-6)
    assert found.trace[-1].objective == found.objective


def test_a_search_by_sinkhorn_waits_for_one_exact_transport(monkeypatch):
    """The greedy subset's potentials show that it is not the better one."""
    case, costs = instance(60, 30, seed=8), []

    def counted(cost, *arguments, **more):
        costs.append(cost)
        return exact(cost, *arguments, **more)

    monkeypatch.setattr(stages, "exact", counted)
    choose = METHODS["goracs"].choose
    found = choose(Problem(case.cost, sinkhorn), 8, key=jax.random.key(0))
    assert len(costs) == 1
    rows = np.sort(costs[0], axis=0)  # in the order of slots
    assert (rows == np.sort(exact_cost(case.cost, found.indices), axis=0)).all()
    assert found.objective < objective(
        case.cost, stages.first_rows(Problem(case.cost), 8)
    )


def test_a_solver_that_misleads_does_no_harm(monkeypatch):
    """The end is compared with the start by exact transport."""
    case = instance(60, 30, seed=8)
    worse = Refined(np.arange(8), (Step(-9.0, 0.0, 8),), True)
    monkeypatch.setattr(stages, "group_exchange", lambda *a, **k: worse)
    key = jax.random.key(0)
    start = METHODS["greedy"].choose(Problem(case.cost), 8, key=key)
    found = METHODS["goracs"].choose(Problem(case.cost, sinkhorn), 8, key=key)
    # The same transport, its rows in the order of picking: float64.
    assert found.objective == pytest.approx(start.objective, abs=1e-12)
    assert (found.indices == start.indices).all()
    assert [step.objective for step in found.trace] == [found.objective]


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
    with pytest.raises(
        InputError, match=r"solver must be one of auto, exact.*got 'fast'"
    ):
        goracs(case.x, case.y, case.g, solver="fast", **arguments)


def test_an_unconverged_plan_is_refused():
    case = instance(30, 20, seed=7)
    tired = lambda cost: sinkhorn(cost, max_iterations=220, threshold=1e-9)
    message = r"Sinkhorn stopped with a marginal error of .*: use the exact solver"
    with pytest.raises(NumericalError, match=message):
        objective(case.cost, np.arange(5), tired)
    with pytest.raises(NumericalError, match=message):
        METHODS["goracs"].choose(Problem(case.cost, tired), 5, key=jax.random.key(0))
