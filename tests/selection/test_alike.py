"""Budgets that share programs: rooms that are not filled change nothing."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import instance

from goracs_jax import goracs
from goracs_jax.cost import some_rows
from goracs_jax.selection.method import Goracs, PairMoves, SimulatedAnnealing
from goracs_jax.selection.relaxation import ascend, core_arcs
from goracs_jax.selection.search.annealing import candidate_field
from goracs_jax.selection.search.pair_exchange import Slots, padded_slots, sweeps
from goracs_jax.shapes import sizes_alike

#: Both have as many units per slot, whose number is a shape of its own.
N_VALID, BUDGETS = 172, (35, 34)
#: The annealing runs in any case.
BRIEF = SimulatedAnnealing(gap=-1.0, epochs=2, fewest_epochs=2, sweeps=9, starts=1)
CASE = instance(300, N_VALID, seed=0, lambda_=0.3)
WISHED = {
    "include": [3, 5],
    "groups": np.arange(300) % 3,
    "group_min": {"1": 16},
    "row_costs": 1 + np.arange(300) % 7,
    "cost_limit": 120,
    "valid_weights": 1 + np.arange(N_VALID) % 5,
    "apart": 0.3,
}


def choose(budget, **more):
    method, key = Goracs(annealing=BRIEF), jax.random.key(0)
    given = {"lambda_": CASE.lambda_, "key": key, "method": method}
    return goracs(CASE.x, CASE.y, CASE.g, budget=budget, **given, **more)


PROGRAMS = ("picks", "_values_below", "core_arcs", "_ascend", "_least", "sweeps")


def compiled_for(budget, more, caplog):
    """The messages about programs that a selection compiles."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        assert len(choose(budget, **more).indices) == budget
    texts = [record.getMessage() for record in caplog.records]
    return [text for text in texts if "Finished XLA compilation" in text]


@pytest.mark.parametrize("more", [{}, WISHED], ids=["plain", "wishes"])
def test_another_budget_compiles_nothing(more, caplog):
    one, two = BUDGETS
    assert two in sizes_alike(one)
    jax.clear_caches()
    first = compiled_for(one, more, caplog)
    assert all(any(f"({name})" in text for text in first) for name in PROGRAMS)
    assert compiled_for(two, more, caplog) == []


def test_room_for_more_slots_changes_nothing():
    rows, rng = np.arange(0, 170, 10), np.random.default_rng(0)
    pool, field = candidate_field(CASE.cost, rows)
    at, units = np.searchsorted(pool, rows), rng.integers(N_VALID, size=(17, 3))
    heat, key = np.linspace(0.01, 0, 12).astype(np.float32), jax.random.key(1)
    roomy = padded_slots(at, units)
    assert len(roomy.rows) == 18
    plain, more = (
        sweeps(field, Slots(*map(jnp.asarray, slots)), heat, key, PairMoves())
        for slots in ((at, units), roomy)
    )
    assert (plain[0].rows != at).any()
    np.testing.assert_array_equal(plain[0].rows, more[0].rows[:17])
    np.testing.assert_array_equal(plain[0].units, more[0].units[:17])
    assert more[0].rows[17] == -1
    assert plain[2] == more[2]


@pytest.mark.parametrize("weighted", [False, True])
def test_room_for_a_larger_core_changes_rounding_alone(weighted):
    n, size, width, rng = 17, 60, 20, np.random.default_rng(2)
    g = jnp.asarray(0.1 * rng.normal(size=N_VALID), jnp.float32)
    mass = rng.random(N_VALID).astype(np.float32)
    mass = jnp.asarray(mass / mass.sum()) if weighted else None
    core = some_rows(CASE.cost, np.arange(size))
    wide = some_rows(CASE.cost, np.pad(np.arange(size), (0, 5), mode="edge"))
    arcs = core_arcs(core, g, size, width, width, 8)
    roomy = core_arcs(wide, g, size, width, width + 3, 8)
    np.testing.assert_array_equal(roomy.cost[:size, :width], arcs.cost)
    np.testing.assert_array_equal(roomy.points[:size, :width], arcs.points)
    assert np.isinf(roomy.cost[size:]).all()
    assert np.isinf(roomy.cost[:, width:]).all()
    plain, more = (
        ascend(x, g, jnp.zeros(len(x.cost)), 1.0, 1.0, 3, n, mass)
        for x in (arcs, roomy)
    )
    assert plain.chosen.sum() > 0
    np.testing.assert_array_equal(plain.chosen, more.chosen[:size])
    assert not more.chosen[size:].any()
    # Three steps of float32 sums in another order.
    np.testing.assert_allclose(more.g, plain.g, atol=1e-5)
    assert float(more.bound) == pytest.approx(float(plain.bound), abs=1e-5)
