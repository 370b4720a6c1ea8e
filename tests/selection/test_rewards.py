"""Rewards of any sign instead of gradient norms: brute force and plain loops."""

import jax
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax import goracs, poo, sweep
from goracs_jax.cost import exact_cost, make_cost, with_lambda
from goracs_jax.errors import InputError
from goracs_jax.selection.bound import lower_bound, rounding
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.values import values_below

KEY = jax.random.key(0)
CASE = instance(12, 7, seed=3)
SIGNED = np.random.default_rng(0).normal(size=12)
REWARDS = {
    "mixed": SIGNED,
    # All costs are above one, and the least are not those of the first row.
    "negative": np.roll(-1 - np.abs(SIGNED), 5),
    "one positive": np.where(np.arange(12) == 4, 0.1, -np.abs(SIGNED)),
}


def cost_of(rewards, lambda_):
    """C_ij = D_ij / max(D) - lambda r_i / max|r|, entry by entry."""
    distances = oracles.cost_matrix(CASE.x, CASE.y)
    return distances - lambda_ * (rewards / np.abs(rewards).max())[:, None]


@pytest.fixture(params=REWARDS, name="rewards")
def _rewards(request):
    return REWARDS[request.param]


@pytest.mark.parametrize("lambda_", [0.3, 2.0])
def test_the_best_subset_is_found(rewards, lambda_):
    given = {"rewards": rewards, "lambda_": lambda_}
    cost = exact_cost(make_cost(CASE.x, CASE.y, **given), np.arange(12))
    # float32 of embeddings and rewards.
    np.testing.assert_allclose(cost, cost_of(rewards, lambda_), atol=1e-6)
    for budget in (1, 3):
        found = goracs(CASE.x, CASE.y, budget=budget, key=KEY, **given)
        best = oracles.best_poo(cost, budget)
        assert found.objective == pytest.approx(best, abs=1e-9)
        assert found.lower_bound <= best + 1e-9
        value = poo(CASE.x, CASE.y, None, found.indices, **given)
        assert value == pytest.approx(found.objective, abs=1e-12)


@pytest.mark.parametrize("lambda_", [0.3, 5.0])
def test_greedy_is_the_double_loop(rewards, lambda_):
    """Which starts from the largest cost that there is."""
    cost = make_cost(CASE.x, CASE.y, rewards=rewards, lambda_=lambda_)
    exact = exact_cost(cost, np.arange(12))
    nearest, chosen = np.full(7, exact.max()), []
    for _ in range(6):
        gains = np.maximum(nearest - exact, 0).sum(1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        nearest = np.minimum(nearest, exact[chosen[-1]])
    assert greedy(cost, 6).tolist() == chosen


def test_bounds_hold(rewards):
    cost = make_cost(CASE.x, CASE.y, rewards=rewards, lambda_=700.0)
    exact = exact_cost(cost, np.arange(12))
    bound = lower_bound(cost, np.arange(3))
    # linprog (HiGHS) stops at 1e-7 of infeasibility, here of costs of size 700.
    assert bound <= oracles.strongly_relaxed_poo(exact, 3) + 7e-4
    assert bound >= oracles.relaxed_poo(exact, 3) - rounding(cost) - 7e-4
    g = np.random.default_rng(1).normal(size=7).astype(np.float32)
    below = np.asarray(values_below(cost, jax.numpy.asarray(g), 7))
    assert (7 * below <= (exact - g).min(1)).all()


def test_positive_rewards_are_gradient_norms():
    arguments = {"budget": 4, "lambda_": 0.5, "key": KEY}
    one = goracs(CASE.x, CASE.y, CASE.g, **arguments)
    other = goracs(CASE.x, CASE.y, rewards=CASE.g, **arguments)
    np.testing.assert_array_equal(one.indices, other.indices)
    assert one.objective == other.objective


def test_a_sweep_is_runs_of_their_own(rewards):
    found = sweep(
        CASE.x, CASE.y, budgets=[2, 4], lambdas=[0.0, 0.4], rewards=rewards, key=KEY
    )
    for (budget, lambda_), selection in found.items():
        alone = goracs(
            CASE.x, CASE.y, budget=budget, lambda_=lambda_, rewards=rewards, key=KEY
        )
        np.testing.assert_array_equal(selection.indices, alone.indices)
    cost = make_cost(CASE.x, CASE.y, rewards=rewards, lambda_=0.9)
    again = with_lambda(make_cost(CASE.x, CASE.y), None, 0.9, rewards)
    np.testing.assert_array_equal(cost.reward, again.reward)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": SIGNED, "grad_norms": CASE.g}, "norms or rewards, not both"),
        ({"rewards": SIGNED[1:]}, r"rewards have shape \[11\]"),
        ({"rewards": np.where(SIGNED > 1, np.nan, SIGNED)}, "rewards are NaN or inf"),
        ({"rewards": 0 * SIGNED}, "all rewards are zero"),
        ({"rewards": SIGNED + 1j}, "rewards must be real numbers, got complex128"),
        ({"rewards": ["a"] * len(SIGNED)}, "rewards must be real numbers, got <U1"),
    ],
)
def test_bad_rewards_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        goracs(CASE.x, CASE.y, budget=2, lambda_=0.3, key=KEY, **changes)
