from itertools import combinations, product

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax.cost import exact_cost
from goracs_jax.selection.method import PairMoves, SimulatedAnnealing
from goracs_jax.selection.problem import Problem
from goracs_jax.selection.search import annealing
from goracs_jax.selection.search.annealing import anneal, candidate_field
from goracs_jax.selection.search.pair_exchange import (
    FEW,
    Field,
    Slots,
    pair_slots,
    sorting_network,
    sweeps,
)
from goracs_jax.selection.search.stages import greedy_only
from goracs_jax.selection.search.units import deal
from goracs_jax.transport import exact, sinkhorn


@pytest.mark.parametrize("seed", range(3))
def test_finds_small_optima(seed):
    case = instance(14, 9, seed=seed)
    cost = exact_cost(case.cost, np.arange(14))
    found, trace, converged, _ = anneal(
        Problem(case.cost), np.arange(4), key=jax.random.key(seed)
    )
    assert converged
    best = min(oracles.poo(cost, s) for s in combinations(range(14), 4))
    assert oracles.poo(cost, found) == pytest.approx(best, abs=1e-7)
    assert (np.diff([step.objective for step in trace]) < 0).all()


def test_every_row_chosen_leaves_nothing_to_search():
    case = instance(6, 9, seed=0)
    found, trace, *_ = anneal(Problem(case.cost), np.arange(6), key=jax.random.key(0))
    assert found.tolist() == list(range(6))
    assert len(trace) == 1


def test_cold_sweeps_never_cost_more_and_keep_units_and_rows():
    case = instance(40, 20, seed=3)
    rows = np.arange(10)
    pool, field = candidate_field(case.cost, rows)
    solved = exact(exact_cost(case.cost, rows))
    units = deal(Problem(case.cost), rows, solved, np.random.default_rng(0))
    slots = Slots(jnp.asarray(np.searchsorted(pool, rows)), jnp.asarray(units))
    # Dealt by an exact transport: 2 units a slot cost 20 times POO.
    value = 20 * oracles.poo(exact_cost(case.cost, np.arange(40)), rows)
    for seed in range(8):
        key = jax.random.key(seed)
        slots, after, _ = sweeps(field, slots, jnp.zeros(1), key, PairMoves())
        assert after <= value + 1e-5  # float32 sums of 20 costs
        value = float(after)
        assert sorted(np.asarray(slots.units).ravel()) == list(range(20))
        assert len(set(np.asarray(slots.rows).tolist())) == 10


@pytest.mark.parametrize("s", [1, 3, FEW // 2, FEW // 2 + 1, FEW])
def test_two_slots_divide_their_units_as_well_as_any(s):
    """One pair of slots at T = 0: by the comparison of few units, and by sorting."""
    rng = np.random.default_rng(s)
    cost = rng.random((6, 2 * s)).astype(np.float32)
    every = jnp.tile(jnp.arange(6), (2 * s, 1))
    points = [jnp.zeros((size, 1)) for size in (6, 2 * s)]
    field = Field(*points, jnp.zeros(6), every, jnp.asarray(cost))
    slots = Slots(jnp.arange(2), jnp.arange(2 * s).reshape(2, s))
    key = jax.random.key(0)
    slots, value, _ = sweeps(field, slots, jnp.zeros(30), key, PairMoves())
    pairs = [cost[list(pair)] for pair in combinations(range(6), 2)]
    best = min(b.sum() + np.sort(a - b)[:s].sum() for a, b in pairs)
    assert value == pytest.approx(best, abs=1e-5 * s)  # float32 sums of 2 s costs < 1


def test_pairs_share_no_slot():
    neighbours = jnp.asarray([[j for j in range(9) if j != i] for i in range(9)])
    for seed in range(20):
        first, second, valid = pair_slots(neighbours, jax.random.key(seed), 9)
        slots = np.concatenate([first[valid], second[valid]])
        assert len(set(slots.tolist())) == len(slots)


@pytest.mark.parametrize(("n", "n_valid"), [(4, 10), (7, 5), (3, 11)])
def test_uneven_units_fill_every_slot(n, n_valid):
    case = instance(20, n_valid, seed=1)
    rows = np.arange(n)
    solved = exact(exact_cost(case.cost, rows))
    units = deal(Problem(case.cost), rows, solved, np.random.default_rng(0))
    counts = np.bincount(units.ravel(), minlength=n_valid)
    assert len(units) == n
    assert np.ptp(counts) <= 1


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


@pytest.mark.parametrize(("effort", "vain"), [(0.05, 1), (0.1, 2), (0.3, 5)])
def test_annealings_in_vain_end_the_search(monkeypatch, effort, vain):
    case, begun = instance(30, 20, seed=1), []
    rows = np.arange(8)
    better = greedy_only(Problem(case.cost), 8, key=jax.random.key(0))

    def cool(problem, start, hottest, plan, key, settings):
        begun.append(hottest)
        # The second finds a better subset, all others the one that is known.
        found = better.indices if len(begun) == 2 else rows
        value = oracles.poo(exact_cost(case.cost, np.arange(30)), found)
        value -= 1e-12 * len(begun)  # as rounding may have it
        yield from [(value, found)] * plan.epochs

    monkeypatch.setattr(annealing, "_cool", cool)
    settings = SimulatedAnnealing(effort=effort)
    found = anneal(Problem(case.cost), rows, key=jax.random.key(0), settings=settings)
    assert found.converged
    # With one annealing in vain the second never begins.
    assert len(begun) == (1 if vain == 1 else 2 + vain)
    assert set(found.rows) == set(rows if vain == 1 else better.indices)
    assert begun[:2] == [0.27, 16 * 0.27][: len(begun)]


@pytest.mark.parametrize(("solver", "times"), [(exact, 3), (sinkhorn, 1)])
def test_units_are_dealt_by_the_exact_solver_alone(monkeypatch, solver, times):
    case, dealt = instance(40, 30, seed=0), []

    def counted(*arguments):
        dealt.append(deal(*arguments))
        return dealt[-1]

    monkeypatch.setattr(annealing, "deal", counted)
    settings = SimulatedAnnealing(epochs=3, fewest_epochs=3, starts=1)
    problem, rows = Problem(case.cost, solver), np.arange(8)
    found = anneal(problem, rows, key=jax.random.key(0), settings=settings)
    assert len(dealt) == times
    assert found.trace[-1].objective < found.trace[0].objective


@pytest.mark.parametrize("n", range(1, FEW // 2 + 1))
def test_a_network_sorts(n):
    # Zeros and ones tell (Knuth, The Art of Computer Programming 3, 5.3.4, Theorem Z):
    # all of them up to 8 numbers, and random ones.
    rng = np.random.default_rng(n)
    ones = product((0, 1), repeat=n) if n <= 8 else rng.integers(0, 2, (500, n))
    for numbers in ones:
        x = list(numbers)
        for i, k in sorting_network(n):
            x[i], x[k] = min(x[i], x[k]), max(x[i], x[k])
        assert x == sorted(x)
