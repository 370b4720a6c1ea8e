import jax
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import instance
from scipy.optimize import linear_sum_assignment

from goracs_jax.cost import (
    column_mass,
    exact_cost,
    make_cost,
    rows_in_place,
    with_tiling,
)
from goracs_jax.errors import NumericalError
from goracs_jax.selection import values
from goracs_jax.selection.method import Goracs, GroupExchange, SimulatedAnnealing
from goracs_jax.selection.problem import Problem
from goracs_jax.selection.search import candidates as module
from goracs_jax.selection.search.candidates import (
    largest_entries,
    sends_all,
    slot_candidates,
    update_candidates,
)
from goracs_jax.selection.search.group_exchange import (
    assign,
    best_assignment,
    group_exchange,
)
from goracs_jax.selection.values import Seen, values_at
from goracs_jax.transport import exact, sinkhorn


@settings(max_examples=40, deadline=None)
@given(
    n_train=st.sampled_from([5, 30]),
    n_valid=st.sampled_from([3, 12]),
    budget=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    lambda_=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_never_raises_poo(n_train, n_valid, budget, seed, lambda_):
    case = instance(n_train, n_valid, seed=seed, lambda_=lambda_)
    start = np.random.default_rng(seed).choice(n_train, budget, replace=False)
    rows, trace, converged, _ = group_exchange(Problem(case.cost), start)
    assert converged
    assert len(set(rows)) == budget
    descent = [step.objective for step in trace]
    assert (np.diff(descent) < 0).all()
    cost = exact_cost(case.cost, np.arange(n_train))
    # POT twice, in float64.
    assert descent[0] == pytest.approx(oracles.poo(cost, start), abs=1e-9)
    assert descent[-1] == pytest.approx(oracles.poo(cost, rows), abs=1e-9)


def test_one_slot_finds_the_optimum():
    case = instance(50, 20, seed=3)
    rows, *_ = group_exchange(Problem(case.cost), np.array([7]))
    cost = exact_cost(case.cost, np.arange(50))
    assert rows.tolist() == [cost.mean(1).argmin()]


def test_sinkhorn_plans_lead_close_to_exact_ones():
    case = instance(60, 40, seed=4)
    start = np.arange(8)
    by_sinkhorn, trace, *_ = group_exchange(Problem(case.cost, sinkhorn), start)
    cost = exact_cost(case.cost, np.arange(60))
    found = oracles.poo(cost, by_sinkhorn)
    assert found < oracles.poo(cost, start)
    # epsilon log(n) + 2 threshold (max C - min C), both 1e-3 of that range.
    assert (
        0 <= trace[-1].objective - found + 1e-6 <= 1e-3 * np.ptp(cost) * (np.log(8) + 2)
    )


def test_candidates_are_the_cheapest_rows():
    case = instance(50, 20, seed=5)
    cost = with_tiling(case.cost, block_entries=7 * 20)
    plan = exact(exact_cost(case.cost, np.arange(6))).plan
    q = plan @ exact_cost(case.cost, np.arange(50)).T
    value, rows = slot_candidates(cost, plan, 9)
    np.testing.assert_allclose(value, np.sort(q, 1)[:, :9], atol=1e-6)  # float32
    np.testing.assert_allclose(
        np.take_along_axis(q, np.asarray(rows), 1), value, atol=1e-6
    )
    assert all(len(set(row)) == 9 for row in np.asarray(rows).tolist())


@pytest.mark.parametrize("changed", [0, 1, 3, 12])
def test_slots_with_the_same_group_keep_their_candidates(changed):
    case = instance(60, 40, seed=changed)
    plan = exact(exact_cost(case.cost, np.arange(12))).plan
    before = update_candidates(case.cost, largest_entries(plan), 5)
    # Groups go round among the first slots; the others stay.
    plan[:changed] = np.roll(plan[:changed], 1, axis=0)
    after = update_candidates(case.cost, largest_entries(plan), 5, before)
    q = plan @ exact_cost(case.cost, np.arange(60)).T
    np.testing.assert_allclose(after.value, np.sort(q, 1)[:, :5], atol=1e-6)  # float32
    kept = np.arange(12) >= changed
    np.testing.assert_array_equal(after.value[kept], before.value[kept])
    np.testing.assert_array_equal(after.rows[kept], before.rows[kept])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 5, 12]),
    scale=st.sampled_from([0.0, 0.1, 3.0]),
    weighted=st.booleans(),
)
def test_prices_leave_out_no_candidate(seed, k, scale, weighted):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(203, 6)), rng.normal(size=(30, 6))
    mass = rng.gamma(1.0, size=30) if weighted else None
    cost = make_cost(x, y, rng.gamma(4.0, size=203), 0.3, valid_weights=mass)
    rows = rng.choice(203, 12, replace=False)
    plan = exact(exact_cost(cost, rows), b=column_mass(cost)).plan
    groups = largest_entries(plan)
    assert sends_all(cost, groups)
    g = (exact_cost(cost, rows).min(0) + scale * rng.normal(size=30)).astype("f4")
    seen = Seen(g, values_at(cost, g, 12))
    whole = update_candidates(cost, groups, k)
    few = update_candidates(cost, groups, k, seen=seen)
    # The same float32 products, of blocks of other shapes.
    np.testing.assert_allclose(few.value, whole.value, rtol=1e-6, atol=1e-6)
    q = plan @ exact_cost(cost, np.arange(203)).T
    found = np.take_along_axis(q, few.rows, 1)
    np.testing.assert_allclose(found, np.sort(q, 1)[:, :k], atol=1e-6)
    assert all(len(set(row)) == k for row in few.rows.tolist())


@pytest.mark.parametrize("changed", [0, 1, 3, 12])
def test_prices_leave_out_none_of_the_slots_that_change(changed):
    """The last part, of bounds far below w, repeats rows: 200 are no 32 parts."""
    case, k = instance(200, 40, seed=changed), 5
    rows = np.arange(12)
    plan = exact(exact_cost(case.cost, rows)).plan
    q = plan @ exact_cost(case.cost, np.arange(200)).T
    seen = Seen(np.zeros(40, "f4"), -10 - q.min(0))  # the best rows come last
    before = update_candidates(case.cost, largest_entries(plan), k, seen=seen)
    np.testing.assert_allclose(before.value, np.sort(q, 1)[:, :k], atol=1e-6)
    assert all(len(set(row)) == k for row in before.rows.tolist())
    # Groups go round among the last slots; the others stay.
    plan[12 - changed :] = np.roll(plan[12 - changed :], 1, axis=0)
    after = update_candidates(case.cost, largest_entries(plan), k, before, seen=seen)
    q = plan @ exact_cost(case.cost, np.arange(200)).T
    np.testing.assert_allclose(after.value, np.sort(q, 1)[:, :k], atol=1e-6)
    found = np.take_along_axis(q, after.rows, 1)
    np.testing.assert_allclose(found, after.value, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_of_equal_rows_prices_leave_the_lower_numbers(seed):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(-8.0, 8)] * 3), -1).reshape(-1, 3)
    x, half = rng.permutation(grid), rng.permutation(grid)[:20]
    y = np.concatenate([half, -half])  # small integers about 0: distances are exact
    cost = make_cost(x, y)
    plan = largest_entries(exact(exact_cost(cost, np.arange(40))).plan)
    g = exact_cost(cost, np.arange(40)).min(0).astype("f4")
    seen = Seen(g, values_at(cost, g, 40))
    whole = update_candidates(cost, plan, 16)
    few = update_candidates(cost, plan, 16, seen=seen)
    np.testing.assert_array_equal(few.value, whole.value)
    np.testing.assert_array_equal(few.rows, whole.rows)


def test_good_prices_leave_most_rows_out(monkeypatch):
    """Rows far from all points are dear at any prices."""
    looked = []

    def counted(cost, places):
        looked.append(len(places))
        return rows_in_place(cost, places)

    monkeypatch.setattr(values, "rows_in_place", counted)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(640, 6)), rng.normal(size=(30, 6))
    x[100:] += 20
    cost = make_cost(x, y)
    plan = exact(exact_cost(cost, np.arange(12))).plan
    g = exact_cost(cost, np.arange(12)).min(0).astype("f4")
    seen = Seen(g, values_at(cost, g, 12))
    given = largest_entries(plan), 5
    kept = cost._replace(matrix=exact_cost(cost, np.arange(640)).astype("f4"))
    entropic = largest_entries(np.where(plan < plan.max(), plan, 0.9 * plan))
    for everything in (
        update_candidates(cost, entropic, 5, seen=seen),
        update_candidates(kept, *given, seen=seen),
        update_candidates(cost, *given, shut=np.zeros(640, bool), seen=seen),
    ):
        assert not looked
        assert everything.rows.max() < 100
    update_candidates(cost, *given, seen=seen)
    assert 0 < sum(looked) <= 100 + 20  # in parts of 20


def test_accelerators_find_the_same_candidates(monkeypatch):
    """By a dense product, of a plan with slots and entries that only fill room."""
    case = instance(60, 14, seed=2, lambda_=0.3)
    plan = np.random.default_rng(0).random((9, 14)) * (np.arange(9) != 2)[:, None]
    other = np.concatenate([plan[3::-1], plan[4:]])  # four of the slots change
    least = lambda: update_candidates(case.cost, largest_entries(plan), 5, old)
    old = update_candidates(case.cost, largest_entries(other), 5)
    expected = least()
    anew = jax.jit(module._least.__wrapped__, static_argnames="k")
    monkeypatch.setattr(module, "_least", anew)
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args)
    )
    found = least()
    np.testing.assert_array_equal(found.rows, expected.rows)
    # The same 14 float32 products, added up in another order.
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-6, atol=1e-6)


def test_largest_entries_of_a_dense_plan():
    plan = np.random.default_rng(0).random((3, 5))
    entries = largest_entries(plan)
    assert sorted(entries.data) == sorted(plan.ravel())[-8:]
    np.testing.assert_array_equal(entries.toarray()[entries.nonzero()], entries.data)


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_hungarian_one(seed):
    rng = np.random.default_rng(seed)
    slots, n_train = 6, 15
    q = rng.normal(size=(slots, n_train))
    current = rng.choice(n_train, slots, replace=False)
    # With n candidates a slot nothing is lost.
    candidates = np.argsort(q, 1)[:, :slots]
    value = np.take_along_axis(q, candidates, 1)
    rows = assign(value, candidates, q[np.arange(slots), current], current)
    assert len(set(rows)) == slots
    best = q[linear_sum_assignment(q)].sum()
    assert q[np.arange(slots), rows].sum() == pytest.approx(best, abs=1e-12)


def test_scarce_candidates_leave_the_current_row():
    # Both slots want row 5 and nothing else: one of them keeps what it has.
    value, candidates = np.array([[0.0], [0.0]]), np.array([[5], [5]])
    rows = assign(value, candidates, np.array([3.0, 1.0]), np.array([0, 1]))
    assert rows.tolist() == [5, 1]


@pytest.mark.parametrize("columns", [1, 3])
def test_slots_that_want_the_same_rows(columns):
    """All slots rank the rows alike: 64 candidates each would miss the optimum."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    y = np.repeat(rng.normal(size=(1, 2)), columns, axis=0).astype(np.float32)
    problem = Problem(make_cost(x, y))
    start = rng.choice(400, 150, replace=False)
    rows, trace, converged, _ = group_exchange(problem, start)
    cost = exact_cost(problem.cost, np.arange(400))
    assert converged
    # With one distinct validation point, POO is the mean cost: the 150 least are best.
    assert trace[-1].objective == pytest.approx(
        np.sort(cost[:, 0])[:150].mean(), abs=1e-6
    )
    assert len(set(rows)) == 150


@pytest.mark.parametrize("k", [1, 2, 7, 64])
def test_few_candidates_are_enough_or_doubled(k):
    case = instance(60, 20, seed=9, lambda_=2.0)
    rows = np.arange(12)
    rows_cost = exact_cost(case.cost, rows)
    plan = exact(rows_cost).plan
    q = plan @ exact_cost(case.cost, np.arange(60)).T
    settings = GroupExchange(candidates=k)
    found, _ = best_assignment(case.cost, plan, rows, rows_cost, settings)
    # Q is float32 inside: 12 slots of 1e-7.
    best = q[linear_sum_assignment(q)].sum()
    assert q[np.arange(12), found].sum() == pytest.approx(best, abs=2e-6)


def test_stops_at_the_round_limit():
    case = instance(200, 50, seed=6)
    _, trace, converged, _ = group_exchange(
        Problem(case.cost), np.arange(20), settings=GroupExchange(max_rounds=1)
    )
    assert len(trace) == 2
    assert not converged


def test_refuses_an_unconverged_plan():
    case = instance(30, 20, seed=7)
    tired = lambda cost: sinkhorn(cost, max_iterations=220, threshold=1e-9)
    with pytest.raises(NumericalError, match=r"Sinkhorn stopped with a marginal error"):
        group_exchange(Problem(case.cost, tired), np.arange(5))


def test_second_selection_compiles_nothing(caplog):
    # The number of candidates is a shape that depends on the data: here there is one.
    method = Goracs(annealing=SimulatedAnnealing(gap=-1.0, pool_sizes=1))
    one, two = instance(64, 16, seed=8), instance(64, 16, seed=9)
    run = lambda case: method.choose(Problem(case.cost), 4, key=jax.random.key(0))
    run(one)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(two)
    assert not [r for r in caplog.messages if "Compiling" in r]
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(instance(65, 16, seed=8))  # other shapes: the check can fail
    assert [r for r in caplog.messages if "Compiling" in r]
