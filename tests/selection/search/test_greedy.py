from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax.cost import exact_cost, materialize
from goracs_jax.selection.search import greedy as module
from goracs_jax.selection.search.greedy import greedy, largest_of_groups, picks


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("lambda_", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("n_train", "n_valid", "budget"), [
    (1, 1, 1), (40, 25, 1), (40, 25, 10), (40, 25, 40), (200, 60, 50), (200, 5, 30),
])  # fmt: skip
def test_same_picks_as_the_double_loop(n_train, n_valid, budget, lambda_, in_memory):
    case = instance(n_train, n_valid, seed=budget, lambda_=lambda_)
    cost = exact_cost(case.cost, np.arange(n_train))
    given = materialize(case.cost) if in_memory else case.cost
    picks = np.asarray(greedy(given, budget)).tolist()
    expected = oracles.greedy(cost, budget)
    if picks != expected:
        # float32 may order two rows whose gains are as good as equal the other way:
        # then every pick must still have the best gain, within 1e-5 of M costs <= 1.
        nearest = np.ones(n_valid)
        for i, pick in enumerate(picks):
            gains = np.maximum(nearest - cost, 0).sum(1)
            gains[picks[:i]] = -np.inf
            assert gains[pick] >= gains.max() - 1e-5 * n_valid
            nearest = np.minimum(nearest, cost[pick])
    assert len(set(picks)) == budget


def test_ties_go_to_the_lowest_row():
    x = np.repeat(np.array([[0.0], [9.0]], np.float32), 3, axis=0)
    case = instance(6, 4, seed=0)._replace(x=x, y=x[1:5], lambda_=0.0)
    assert np.asarray(greedy(case.cost, 4)).tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_groups_of_accelerators_lead_to_the_same_picks(batch, monkeypatch):
    cost = instance(200, 60, seed=50, lambda_=0.1).cost
    expected = greedy(cost, 50)
    monkeypatch.setattr(module, "topmost", largest_of_groups)
    anew = jax.jit(partial(picks.__wrapped__, budget=50, room=60, batch=batch))
    np.testing.assert_array_equal(anew(cost)[:50], expected)


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_largest_of_groups(size):
    x = np.random.default_rng(size).normal(size=11).astype(np.float32)
    value, place = largest_of_groups(jnp.asarray(x), size)
    expected = [max(range(i, 11, size), key=x.__getitem__) for i in range(size)]
    assert place.tolist() == expected
    np.testing.assert_array_equal(value, x[expected])
