import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import instance

from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.selection.bound import dual_bound, lower_bound, slack_below
from goracs_jax.selection.method import LowerBound


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(1, 4), scale=st.floats(0, 3))
def test_any_dual_is_below_every_subset(seed, budget, scale):
    """Weak duality: even a random g gives a bound."""
    case = instance(7, 5, seed=seed)
    g = np.random.default_rng(seed).normal(size=5) * scale
    bound, _ = dual_bound(case.cost, g, budget)
    cost = exact_cost(case.cost, np.arange(7))
    assert bound <= oracles.best_poo(cost, budget) + 1e-12


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("n_train", "n_valid", "budget"), [
    (5, 4, 5), (12, 7, 1), (40, 15, 3), (60, 20, 12), (60, 4, 30),
])  # fmt: skip
def test_row_generation_solves_the_relaxed_programme(n_train, n_valid, budget, lambda_):
    case = instance(n_train, n_valid, seed=n_train, lambda_=lambda_)
    cost = exact_cost(case.cost, np.arange(n_train))
    bound, f = lower_bound(case.cost, np.arange(budget), LowerBound(tolerance=0.0))
    # linprog (HiGHS) stops at 1e-7 primal and dual infeasibility.
    assert bound == pytest.approx(oracles.relaxed_poo(cost, budget), abs=1e-6)
    assert (f <= 0).all()


def test_bound_is_valid_after_one_round():
    case = instance(400, 30, seed=1)
    early, _ = lower_bound(case.cost, np.arange(5), LowerBound(max_rounds=1))
    late, _ = lower_bound(case.cost, np.arange(5))
    assert early < late  # 400 rows do not fit into the first pool of 10


def test_bound_of_all_rows_is_their_poo():
    case = instance(9, 6, seed=2)
    cost = exact_cost(case.cost, np.arange(9))
    bound, _ = lower_bound(case.cost, np.arange(9))
    assert bound == pytest.approx(oracles.poo(cost, np.arange(9)), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_screening_is_below_float64(dtype, shift):
    """Also where points coincide and the square root magnifies what is lost."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 40)) + shift).astype(dtype)
    y = np.concatenate([x[:20], (rng.normal(size=(30, 40)) + shift).astype(dtype)])
    cost = make_cost(x, y, rng.gamma(4.0, size=300), 0.5)
    g = rng.normal(size=50) / 10
    surely = np.asarray(slack_below(cost, jnp.asarray(g, jnp.float32)))
    truly = (exact_cost(cost, np.arange(300)) - g).min(1)
    assert (surely <= truly).all()
    # sqrt(e) / max(D), the most that a root near zero can move, and e / 2 D elsewhere.
    assert (truly - surely).max() < np.sqrt(2 * 50 * 2.0**-24 * 4)
    assert np.median(truly - surely) < 50 * 2.0**-24 * 20


def test_tolerance_ends_the_rounds():
    case = instance(400, 30, seed=1)
    close, _ = lower_bound(case.cost, np.arange(5), LowerBound(tolerance=1e-2))
    best, _ = lower_bound(case.cost, np.arange(5), LowerBound(tolerance=0.0))
    assert best - 1e-2 <= close <= best
