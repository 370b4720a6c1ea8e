"""Each baseline against a loop that follows its definition."""

import jax
import numpy as np
import pytest
from instances import instance, ranked

from goracs_jax.cost import centred_train, make_cost, with_tiling
from goracs_jax.selection.baselines import coverage
from goracs_jax.selection.method import METHODS, Herding, KMeans
from goracs_jax.selection.problem import Problem

KEY = jax.random.key(0)


@pytest.fixture(params=[False, True])
def small_blocks(request):
    """Whether blocks have a few rows only, of which the last repeats some."""
    return request.param


def blocked(cost, small):
    return with_tiling(cost, block_entries=60) if small else cost


def distance(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in y] for a in x])


def test_k_center_is_farthest_first():
    case = instance(40, 5, seed=4)
    apart = distance(case.x, case.x)
    traversals = []
    for first in range(40):
        chosen = [first]
        while len(chosen) < 6:
            chosen.append(int(apart[:, chosen].min(1).argmax()))
        traversals.append(sorted(chosen))
    found = METHODS["k-center"].choose(Problem(case.cost), 6, key=KEY)
    assert found.indices.tolist() in traversals


@pytest.mark.parametrize("rounds", [3, 10])
def test_k_means_is_lloyd(small_blocks, rounds):
    case = instance(40, 5, seed=5)
    train = np.asarray(centred_train(case.cost))
    seeds = np.asarray(coverage._plus_plus(train, KEY, 6))
    assert len(set(seeds)) == 6
    centres = train[seeds].astype(np.float64)
    for _ in range(rounds):
        owner = distance(train, centres).argmin(1)
        for j in set(owner):
            centres[j] = train[owner == j].mean(0)
    taken = []
    for centre in centres:
        order = distance(train, centre[None])[:, 0].argsort()
        taken.append(next(row for row in order if row not in taken))
    problem = Problem(blocked(case.cost, small_blocks))
    found = KMeans(rounds=rounds).choose(problem, 6, key=KEY)
    assert found.indices.tolist() == sorted(taken)


def test_k_means_plus_plus_draws_by_squared_distance():
    train = np.array([[0.0], [1.0], [3.0]], np.float32)
    keys = jax.random.split(KEY, 3000)
    first, second = np.asarray(
        jax.vmap(lambda key: coverage._plus_plus(train, key, 2))(keys)
    ).T
    assert np.bincount(first) / 3000 == pytest.approx([1 / 3] * 3, abs=0.04)
    after_0 = np.bincount(second[first == 0], minlength=3) / (first == 0).sum()
    assert after_0 == pytest.approx([0, 0.1, 0.9], abs=0.04)


@pytest.mark.parametrize("budget", [3, 7, 25, 40])
def test_nearest_is_a_round_robin(budget, small_blocks):
    case = instance(40, 7, seed=6)
    apart = distance(case.x, case.y)
    taken = []
    for turn in range(budget):
        order = apart[:, turn % 7].argsort()
        taken.append(next(row for row in order if row not in taken))
    problem = Problem(blocked(case.cost, small_blocks))
    found = METHODS["nearest"].choose(problem, budget, key=KEY)
    assert found.indices.tolist() == sorted(taken)


@pytest.mark.parametrize("budget", [1, 9, 20])
def test_nearest_for_points_that_agree(budget, small_blocks):
    """All validation points want the same rows, so that every list runs out."""
    case = instance(20, 1, seed=7)
    cost = make_cost(case.x, np.repeat(case.y, 12, axis=0))
    order = distance(case.x, case.y)[:, 0].argsort()
    problem = Problem(blocked(cost, small_blocks))
    found = METHODS["nearest"].choose(problem, budget, key=KEY)
    assert found.indices.tolist() == sorted(order[:budget])


@pytest.mark.parametrize("method", ["alignment", "error", "grad-norm", "loss-drop"])
@pytest.mark.parametrize("lambda_", [0.0, 0.3])
def test_the_largest_scores_win(method, lambda_):
    case = instance(40, 5, seed=8, lambda_=lambda_)
    scores = {"grad-norm": case.g, "error": case.errors}.get(method, case.rewards)
    found = METHODS[method].choose(case.problem, 6, key=KEY)
    assert set(found.indices) == set(scores.argsort()[-6:])
    tied = np.array([1.0, 2.0, 3.0, 2.0, 2.0])
    cost = make_cost(case.x[:5], case.y)
    problem = ranked(cost, tied, tied, tied)
    assert METHODS[method].choose(problem, 3, key=KEY).indices.tolist() == [1, 2, 3]


def test_herding_is_herding(small_blocks):
    case = instance(40, 7, seed=9)
    apart = distance(case.x, case.y)
    size = 60 // 7 if small_blocks else 40
    sigma = np.median(apart[np.arange(size) * 40 // size])
    kernel = lambda d: np.exp(-(d**2) / (2 * sigma**2))
    attraction, among = kernel(apart).mean(1), kernel(distance(case.x, case.x))
    chosen = []
    for t in range(12):
        score = attraction - among[:, chosen].sum(1) / (t + 1)
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
    method = Herding(median_entries=60) if small_blocks else Herding()
    found = method.choose(Problem(blocked(case.cost, small_blocks)), 12, key=KEY)
    assert found.indices.tolist() == sorted(chosen)


@pytest.mark.parametrize("budget", [1, 6, 40])
def test_stratified_random_takes_one_row_a_stratum(budget):
    case = instance(40, 7, seed=10)
    order = distance(case.x, case.y).min(1).argsort()
    sizes = []
    found = METHODS["stratified"].choose(Problem(case.cost), budget, key=KEY)
    for stratum in range(budget):
        rows = order[stratum * 40 // budget : (stratum + 1) * 40 // budget]
        sizes.append(len(rows))
        assert len(set(rows) & set(found.indices)) == 1
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].weighed])
def test_lambda_moves_no_row(method):
    light = instance(40, 7, seed=11).problem
    heavy = instance(40, 7, seed=11, lambda_=9.0).problem
    one, two = (METHODS[method].choose(p, 6, key=KEY) for p in (heavy, light))
    assert (one.indices == two.indices).all()
