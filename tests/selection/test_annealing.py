from itertools import combinations

import jax
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax.cost import exact_cost
from goracs_jax.selection import annealing
from goracs_jax.selection.annealing import (
    anneal,
    candidate_pool,
    regions,
    search_region,
)
from goracs_jax.selection.group_exchange import group_exchange
from goracs_jax.selection.problem import Problem
from goracs_jax.transport import exact, exact_plan


def test_regions_cut_the_slots_into_neighbours():
    points = np.random.default_rng(0).normal(size=(3 * annealing.REGION + 5, 4))
    cut = regions(points, np.random.default_rng(1))
    assert sorted(np.concatenate(cut)) == list(range(len(points)))
    assert [len(r) for r in cut] == [annealing.REGION] * 3 + [5]
    # The first region is a slot and its nearest.
    away = ((points - points[cut[0][0]]) ** 2).sum(1)
    assert set(cut[0]) == set(np.argsort(away)[: annealing.REGION])


def test_pool_holds_the_best_free_rows_of_every_slot(monkeypatch):
    monkeypatch.setattr(annealing, "POOL_DEPTH", 3)
    case = instance(50, 20, seed=5)
    rows = np.arange(6)
    cost = exact_cost(case.cost, np.arange(50))
    plan = exact(cost[rows]).plan
    best = 6 + np.argsort((plan @ cost.T)[:, 6:], 1)[:, :3]
    assert candidate_pool(case.cost, plan, rows).tolist() == sorted(
        {*rows.tolist(), *best.ravel().tolist()}
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_cold_region_never_gets_worse(seed):
    case = instance(30, 15, seed=seed)
    cost = exact_cost(case.cost, np.arange(30))
    mass = np.full(15, 1 / 15)
    found = search_region(cost, 5, mass, 1.0, 0.0, np.random.default_rng(seed))
    assert len(set(found)) == 5
    assert oracles.poo(cost, found) <= oracles.poo(cost, np.arange(5)) + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_beats_group_exchange_and_finds_small_optima(seed):
    case = instance(14, 9, seed=seed)
    problem = Problem(case.cost)
    cost = exact_cost(case.cost, np.arange(14))
    rows, _, _ = group_exchange(problem, np.arange(4))
    found, trace = anneal(problem, rows, key=jax.random.key(seed), started=0.0)
    best = min(oracles.poo(cost, s) for s in combinations(range(14), 4))
    # 1,120 moves over 1,001 subsets.
    assert oracles.poo(cost, found) == pytest.approx(best, abs=1e-7)
    assert (np.diff([step.objective for step in trace]) < 0).all()


def test_every_row_chosen_leaves_nothing_to_search():
    case = instance(6, 9, seed=0)
    found, trace = anneal(
        Problem(case.cost), np.arange(6), key=jax.random.key(0), started=0.0
    )
    assert found.tolist() == list(range(6))
    assert trace == ()


@pytest.mark.parametrize("near", [True, False])
def test_warm_exact_transport_is_exact(near):
    """Few arcs at first, all of them priced: potentials near or far, one optimum."""
    case = instance(900, 700, seed=1)
    first, second = (np.arange(i, 250 + i) for i in (0, 10 if near else 500))
    g = exact(exact_cost(case.cost, first)).g
    cost = exact_cost(case.cost, second)
    cold, warm = exact(cost), exact(cost, g=g)
    assert warm.value == pytest.approx(cold.value, abs=1e-12)  # float64, twice
    # Feasible potentials of the same value prove it: weak duality.
    assert (cost - warm.f[:, None] - warm.g).min() > -1e-9
    assert warm.f.mean() + warm.g.mean() == pytest.approx(cold.value, abs=1e-9)


def test_small_plans_are_those_of_exact():
    cost = exact_cost(instance(6, 9, seed=2).cost, np.arange(6)) - 5.0
    mass = np.full(6, 1 / 6), np.random.default_rng(0).dirichlet(np.ones(9))
    plan, value = exact_plan(cost, *mass)
    assert value == pytest.approx(exact(cost, *mass).value, abs=1e-12)
    np.testing.assert_allclose(plan.sum(0), mass[1], atol=1e-12)
