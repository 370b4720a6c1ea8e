import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import instance

from goracs_jax.cost import (
    column_mass,
    exact_cost,
    make_cost,
    materialize,
    rows_in_place,
)
from goracs_jax.selection import bound, values
from goracs_jax.selection.bound import (
    dual_bound,
    lower_bound,
    relax,
    rounding,
)
from goracs_jax.selection.method import LowerBound
from goracs_jax.selection.problem import objective
from goracs_jax.selection.values import Seen, exact_values, values_at, values_below
from goracs_jax.selection.wishes import make_wishes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(1, 7), scale=st.floats(0, 3))
def test_any_prices_are_below_every_subset(seed, budget, scale):
    case = instance(7, 5, seed=seed)
    g = np.random.default_rng(seed).normal(size=5) * scale
    cost = exact_cost(case.cost, np.arange(7))
    assert dual_bound(case.cost, g, budget) <= oracles.best_poo(cost, budget)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("n_train", "n_valid", "budget"), [
    (5, 4, 5), (12, 7, 1), (40, 15, 3), (60, 20, 12), (60, 4, 30), (30, 9, 9),
])  # fmt: skip
def test_between_both_relaxed_programmes(n_train, n_valid, budget, lambda_):
    """No price beats the strong one, of which B is the dual; the weak one is passed."""
    case = instance(n_train, n_valid, seed=n_train, lambda_=lambda_)
    cost = exact_cost(case.cost, np.arange(n_train))
    bound = lower_bound(case.cost, np.arange(budget))
    # linprog (HiGHS) stops at 1e-7 primal and dual infeasibility.
    assert bound <= oracles.strongly_relaxed_poo(cost, budget) + 1e-6
    # An ascent ends short of the maximum, here by less than 1e-4 max(D).
    assert bound >= oracles.relaxed_poo(cost, budget) - 1e-4


def test_more_rounds_raise_the_bound():
    case = instance(400, 30, seed=1)
    bounds = [
        lower_bound(case.cost, np.arange(5), LowerBound(max_rounds=rounds))
        for rounds in (0, 1, 4)
    ]
    assert bounds == sorted(set(bounds))


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_prices_are_the_same_where_every_pass_is_whole(lambda_):
    """A matrix in memory is passed over as a whole, other costs in parts."""
    case = instance(400, 30, seed=1, lambda_=lambda_)
    start = exact_cost(case.cost, np.arange(5)).min(0)
    costs = case.cost, materialize(case.cost)
    parts, whole = (relax(cost, start, 0.5, 5) for cost in costs)
    # The kept matrix is rounded once more before prices and bounds are made of it.
    assert parts.bound == pytest.approx(whole.bound, abs=1e-5)
    assert set(parts.wanted[:5]) == set(whole.wanted[:5])


def test_a_core_that_is_too_small_is_mended():
    """Most rows and points are left out at first: the whole of C says which lack."""
    case = instance(400, 60, seed=1, lambda_=1.0)
    once, often = (
        lower_bound(
            case.cost,
            np.arange(12),
            LowerBound(core=2, least_core=24, listing=1, max_rounds=rounds),
        )
        for rounds in (1, 6)
    )
    # A core of the usual size; ascents end short of the maximum.
    assert often > once
    assert often >= lower_bound(case.cost, np.arange(12)) - 1e-2


def test_bound_of_all_rows_is_their_poo():
    case = instance(9, 6, seed=2)
    cost = exact_cost(case.cost, np.arange(9))
    bound = lower_bound(case.cost, np.arange(9))
    value = oracles.poo(cost, np.arange(9))
    assert bound == pytest.approx(value - rounding(case.cost), abs=1e-9)


def test_the_wanted_rows_are_the_best():
    """Three far clusters, each with one row in its middle."""
    rng = np.random.default_rng(0)
    middles = 50 * np.eye(3)
    y = np.concatenate([m + rng.normal(size=(20, 3)) for m in middles])
    x = np.concatenate([y[:40] + 3, [y[i : i + 20].mean(0) for i in (0, 20, 40)]])
    cost = make_cost(x, y)
    whole = exact_cost(cost, np.arange(43))
    found = relax(cost, whole[:3].min(0), oracles.poo(whole, [0, 1, 2]), 3)
    assert set(found.wanted[:3]) == {40, 41, 42}
    assert sorted(found.wanted) == list(range(43))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("budget", [4, 20, 80])
def test_screening_is_below_float64(dtype, shift, budget):
    """Also where points coincide and the square root magnifies what is lost."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 40)) + shift).astype(dtype)
    y = np.concatenate([x[:20], (rng.normal(size=(30, 40)) + shift).astype(dtype)])
    cost = make_cost(x, y, rng.gamma(4.0, size=300), 0.5)
    g = rng.normal(size=50) / 10
    surely = np.asarray(values_below(cost, jnp.asarray(g, jnp.float32), budget))
    reduced = np.sort(exact_cost(cost, np.arange(300)) - g)
    # The mean of the s smallest, of the last of which only a part counts.
    share = np.clip(max(50 / budget, 1) - np.arange(50), 0, 1)
    truly = reduced @ share / share.sum() / budget
    assert (surely <= truly).all()
    # sqrt(e) / max(D), the most that a root near zero can move, and e / 2 D elsewhere.
    gap = budget * (truly - surely)
    assert gap.max() < np.sqrt(2 * 50 * 2.0**-24 * 4)
    assert np.median(gap) < 50 * 2.0**-24 * 20


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 0.003, 0.03, 0.3]),
    budget=st.sampled_from([3, 7, 40]),
    weighted=st.booleans(),
)
def test_rows_that_cannot_matter_are_not_looked_at_again(seed, scale, budget, weighted):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(203, 6)), rng.normal(size=(23, 6))
    mass = rng.gamma(1.0, size=23) if weighted else None
    cost = make_cost(x, y, rng.gamma(4.0, size=203), 0.3, valid_weights=mass)
    first = (rng.normal(size=23) / 10).astype(np.float32)
    second = (first + scale * rng.normal(size=23)).astype(np.float32)
    seen = [Seen(g, values_at(cost, g, budget)) for g in (first, first / 2)]
    whole = values_at(cost, second, budget)
    near = values_at(cost, second, budget, seen, least=10)
    # Bounds of float32 (u = 6e-8) are sums of up to 23 terms, four roundings each: what
    # was seen before may be sharper by as much, and none is above the truth.
    off = 4 * 23 * 6e-8 * 2 / budget
    reduced = exact_cost(cost, np.arange(203)) - second
    truth = exact_values(reduced, budget, column_mass(cost))
    assert (near <= truth + 1e-7 / budget).all()  # masses are rounded to float32
    cheap = whole <= np.sort(whole)[9]
    np.testing.assert_allclose(near[cheap], whole[cheap], rtol=0, atol=off)
    assert (near[~cheap] >= whole[cheap].max() - off).all()


def test_few_rows_are_looked_at_again_where_prices_hardly_move(monkeypatch):
    case, looked = instance(640, 30, seed=0), []

    def counted(cost, places):
        looked.append(len(places))
        return rows_in_place(cost, places)

    monkeypatch.setattr(values, "rows_in_place", counted)
    g = (np.random.default_rng(0).normal(size=30) / 10).astype(np.float32)
    seen = [Seen(g, values_at(case.cost, g, 5))]
    values_at(case.cost, g, 5, seen, least=25)
    assert sum(looked) == 40  # of 640, in parts of 20
    looked.clear()
    values_at(case.cost, g + np.float32(10), 5, seen, least=25)
    assert sum(looked) == 40  # prices that rise alike change no order
    looked.clear()
    values_at(case.cost, -10 * g, 5, seen, least=25)
    assert 40 < sum(looked) <= 640


def test_every_row_of_a_part_counts_once(monkeypatch):
    """200 rows are no 32 parts: the last part repeats rows of the one before."""
    case, counted = instance(200, 20, seed=0), []

    def recorded(known, kth):
        counted.append(len(known))
        return np.sort(known)

    g = (np.random.default_rng(0).normal(size=20) / 10).astype(np.float32)
    seen = [Seen(g, values_at(case.cost, g, 5))]
    monkeypatch.setattr(values.np, "partition", recorded)
    monkeypatch.setattr(values, "exact_values", lambda *_: np.zeros(1))
    values_at(case.cost, g, 5, seen, least=200)
    assert counted == [200]


@pytest.mark.parametrize("rounds", range(4))
@pytest.mark.parametrize("seed", range(3))
def test_what_is_seen_is_below_the_values_at_its_prices(seed, rounds):
    case = instance(200, 30, seed=seed)
    start = exact_cost(case.cost, np.arange(5)).min(0)
    more = LowerBound(max_rounds=rounds, fewest_rounds=0, core=2, least_core=10)
    seen = relax(case.cost, start, 0.6, 5, more).seen
    exactly = exact_values(exact_cost(case.cost, np.arange(200)) - seen.g, 5)
    assert (seen.w <= exactly + 1e-7).all()
    assert (exactly - np.sort(seen.w)[4] > -1e-7).sum() >= 196


def test_what_a_certificate_or_a_wish_asks_for_is_looked_at(monkeypatch):
    case, asked = instance(300, 20, seed=0), []

    def recorded(cost, g, n, seen=(), least=1):
        asked.append((len(seen), least))
        return values_at(cost, g, n, seen, least)

    monkeypatch.setattr(bound, "values_at", recorded)
    budget = 40  # of which a certificate looks at 40 + 20 + 64 rows
    lower_bound(case.cost, np.arange(budget), LowerBound(core=1, least_core=1))
    assert [seen for seen, _ in asked] == list(range(len(asked)))
    assert len(asked) > 2
    # Cores have 40; the last prices are only certified.
    assert {least for _, least in asked} == {40, 124}
    assert asked[0][1] == asked[-1][1] == 124
    asked.clear()
    lower_bound(case.cost, np.arange(budget), LowerBound(core=5))
    assert asked[0][1] == 200
    assert asked[-1][1] == 124
    asked.clear()
    wishes = make_wishes(case.cost, include=[7])
    lower_bound(case.cost, np.arange(budget), wishes=wishes)
    assert {seen for seen, _ in asked} == {0}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lambda_=st.sampled_from([0.0, 0.5, 1000.0]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_no_subset_of_the_given_arrays_is_below(seed, lambda_, dtype):
    """POO by POT of C that is made in float64 from what was given."""
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(size, 6)).astype(dtype) for size in (9, 5))
    g = rng.gamma(4.0, size=9)
    made = make_cost(x, y, g, lambda_)
    bound = lower_bound(made, np.arange(8))
    cost = oracles.cost_matrix(np.float64(x), np.float64(y), g, lambda_)
    assert bound <= oracles.best_poo(cost, 8)
    # A single row serves all points whatever their prices: only rounding is between.
    best, alone = oracles.best_poo(cost, 1), lower_bound(made, np.arange(1))
    assert best - 2 * rounding(made) <= alone <= best
    every = lower_bound(made, np.arange(9))
    assert every <= oracles.poo(cost, np.arange(9))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dim", [2, 384])
def test_copies_of_the_validation_set_cost_nothing(dtype, dim):
    x = (3 + np.random.default_rng(dim).normal(size=(20, dim))).astype(dtype)
    cost = make_cost(x, x[::-2])
    chosen = np.arange(1, 20, 2)
    assert objective(cost, chosen) == 0.0
    assert lower_bound(cost, chosen) <= 0.0
