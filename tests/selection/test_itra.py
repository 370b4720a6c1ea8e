from itertools import product
from math import ceil

import jax
import numpy as np
import oracles
import ot
import pytest
from instances import instance

from goracs_jax.cost import exact_cost
from goracs_jax.selection.itra import (
    GAIN,
    improvement_scores,
    promising_pairs,
    solved_rows,
)
from goracs_jax.selection.method import Itra
from goracs_jax.selection.problem import Problem, solve
from goracs_jax.transport import exact, pair_values

KEY = jax.random.key(0)
SHAPES = [
    (20, 12, 4), (20, 12, 5), (25, 7, 3), (15, 4, 7), (12, 9, 1), (6, 5, 6),
    (30, 30, 10), (40, 24, 8),
]  # fmt: skip


def row_duals(cost, rows):
    """Row potentials of POT, in float64."""
    cost = cost[rows]
    n, m = cost.shape
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    return ot.emd(a, b, cost - cost.min(), log=True)[1]["u"] + cost.min()


def scores(cost, rows, duals):
    """F_i, every minimum taken over the rows that the formula names."""
    n, m = len(rows), cost.shape[1]
    out = []
    for i in range(len(cost)):
        f = np.array([
            min((cost[k, j] - u for k, u in zip(rows, duals, strict=True) if k != i),
                default=np.inf)
            for j in range(m)
        ])  # fmt: skip
        if np.isinf(f).all():
            out.append(cost[i].mean())
            continue
        t = sorted(cost[i] - f, reverse=True)[ceil(m / n) - 1]
        total = sum(min(cost[i, j] - t - f[j], 0) for j in range(m))
        out.append(total / m + t / n)
    return np.array(out)


def swaps(cost, budget, candidates, max_swaps=100):
    """Every pair by exact transport, the first that helps: the subsets on the way."""
    rows = oracles.greedy(cost, budget)
    path = [(rows, oracles.poo(cost, rows))]
    while len(path) <= max_swaps:
        rows, value = path[-1]
        f = scores(cost, rows, row_duals(cost, rows))
        leavers = sorted(range(budget), key=lambda slot: -f[rows[slot]])
        outside = sorted(set(range(len(cost))) - set(rows), key=lambda i: f[i])
        for slot, entrant in product(leavers[:candidates], outside[:candidates]):
            new = [*rows[:slot], entrant, *rows[slot + 1 :]]
            if oracles.poo(cost, new) < value - GAIN:
                path.append((new, oracles.poo(cost, new)))
                break
        else:
            break
    return path


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
@pytest.mark.parametrize(("n_train", "n_valid", "budget"), SHAPES)
def test_scores(n_train, n_valid, budget, lambda_):
    case = instance(n_train, n_valid, seed=1, lambda_=lambda_)
    rows = np.random.default_rng(0).choice(n_train, budget, replace=False)
    duals = solve(case.cost, rows, exact)[1].f
    got = improvement_scores(case.cost, rows, duals)
    expected = scores(exact_cost(case.cost, np.arange(n_train)), rows, duals)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n_train", "n_valid", "budget"), SHAPES)
def test_same_swaps_as_trying_every_pair(n_train, n_valid, budget, seed):
    lambda_ = [0.0, 0.1, 0.5, 1.0][seed]
    case = instance(n_train, n_valid, seed=seed, lambda_=lambda_)
    cost = exact_cost(case.cost, np.arange(n_train))
    expected = swaps(cost, budget, candidates=6)
    got = Itra(candidates=6).choose(Problem(case.cost), budget, key=KEY)
    assert got.converged
    rows, value = expected[-1]
    assert got.indices.tolist() == sorted(rows)
    assert got.objective == pytest.approx(value, abs=1e-9)
    descent = [step.objective for step in got.trace]
    np.testing.assert_allclose(descent, [poo for _, poo in expected], atol=1e-9)
    assert (np.diff(descent) < 0).all()


@pytest.mark.parametrize("iterations", [10, 100])
@pytest.mark.parametrize(("n_train", "n_valid", "budget"), SHAPES)
def test_pair_values_are_lower_bounds(n_train, n_valid, budget, iterations):
    case = instance(n_train, n_valid, seed=2)
    cost = exact_cost(case.cost, np.arange(n_train))
    rows = np.arange(budget)
    slots, entrants = rows[:4], np.arange(n_train)[-4:]
    g = exact(cost[rows]).g
    epsilon = np.float32(0.01)
    values = pair_values(cost[rows], cost[entrants], slots, g, epsilon, iterations)
    kept, swapped = (np.asarray(value) for value in values)
    assert kept <= oracles.poo(cost, rows) + 1e-6
    for (p, slot), (q, entrant) in product(enumerate(slots), enumerate(entrants)):
        new = [*rows[:slot], entrant, *rows[slot + 1 :]]
        assert swapped[p, q] <= oracles.poo(cost, new) + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_no_better_pair_is_ruled_out(seed):
    case = instance(60, 40, seed=seed, lambda_=0.5)
    rows = np.random.default_rng(seed).choice(60, 12, replace=False)
    cost = exact_cost(case.cost, np.arange(60))
    value = oracles.poo(cost, rows)
    incumbent = solved_rows(case.cost, rows)
    promising = set(promising_pairs(case.cost, incumbent, Itra(candidates=60)))
    assert len(promising) < 12 * 48
    for slot, entrant in product(range(12), set(range(60)) - set(rows)):
        new = [*rows[:slot], entrant, *rows[slot + 1 :]]
        if oracles.poo(cost, new) < value - GAIN:
            assert (slot, entrant) in promising


def test_stops_at_max_swaps():
    case = instance(40, 24, seed=0)
    free = Itra().choose(Problem(case.cost), 8, key=KEY)
    assert len(free.trace) > 2
    short = Itra(max_swaps=1).choose(Problem(case.cost), 8, key=KEY)
    assert not short.converged
    assert short.trace[-1].objective == free.trace[1].objective
    assert [step.replaced for step in short.trace] == [0, 1]
