"""A search of more or less effort, and one that has to end before it is through."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax import Goracs, goracs, sweep
from goracs_jax.cost import exact_cost
from goracs_jax.errors import InputError
from goracs_jax.selection.by_class import by_class
from goracs_jax.selection.classes import make_classes
from goracs_jax.selection.limit import Limit
from goracs_jax.selection.method import METHODS, SimulatedAnnealing, with_search
from goracs_jax.selection.problem import Problem
from goracs_jax.selection.search import annealing
from goracs_jax.selection.search.annealing import candidate_field
from goracs_jax.selection.search.pair_exchange import PairMoves, Slots, sweeps
from goracs_jax.selection.search.schedule import Pace, Plan, is_short, plan_search
from goracs_jax.selection.search.stages import greedy_only

CASE, BUDGET, KEY = instance(60, 24, seed=5), 8, jax.random.key(0)
# It anneals at any gap, in four epochs.
QUICK = Goracs(
    annealing=SimulatedAnnealing(gap=0.0, epochs=4, fewest_epochs=1, sweeps=8, starts=2)
)


class Questions:
    """Answers no to the first few questions, and yes from then on."""

    def __init__(self, patience: int):
        self.left = patience

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def search(limit: Limit, method=QUICK):
    problem = CASE.problem._replace(limit=limit)
    return method.choose(problem, BUDGET, key=KEY)


def assert_valid(found):
    assert len(set(found.indices.tolist())) == BUDGET
    cost = exact_cost(CASE.cost, np.arange(60))
    assert found.objective == pytest.approx(oracles.poo(cost, found.indices), abs=1e-9)
    values = [step.objective for step in found.trace]
    assert values == sorted(values, reverse=True)
    assert values[-1] == found.objective
    assert found.lower_bound is None or found.lower_bound <= found.objective


def test_stopped_anywhere_it_has_the_best_so_far():
    whole, values = search(Limit()), []
    for patience in range(99):
        questions = Questions(patience)
        found = search(Limit(asked=questions))
        assert_valid(found)
        values.append(found.objective)
        if not found.stopped:
            break
        assert not found.converged
    assert patience > 8  # bound, exchanges, and every epoch of two starts
    assert found.indices.tolist() == whole.indices.tolist()
    assert found.lower_bound == whole.lower_bound
    # What is known does not get worse with time.
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_without_time_the_greedy_start_is_the_answer():
    found = search(Limit.after(1e-9))
    start = greedy_only(CASE.problem, BUDGET, key=KEY)
    assert found.indices.tolist() == start.indices.tolist()
    assert found.stopped
    assert found.lower_bound is None
    assert not start.stopped


def test_a_limit_that_is_not_reached_changes_nothing():
    arguments = {"budget": BUDGET, "key": KEY, "method": QUICK}
    free, limited = (
        goracs(*CASE[:3], time_limit=limit, **arguments) for limit in (None, 3600.0)
    )
    assert limited.indices.tolist() == free.indices.tolist()
    assert limited[1:3] == free[1:3]
    assert not limited.stopped


@pytest.mark.parametrize(("seconds", "length"), [(100.0, 5), (1000.0, 0)])
def test_an_annealing_fits_into_the_time(monkeypatch, seconds, length):
    """An hour, of which an annealing may take 2880 s, for four epochs and a quench."""
    plans, cool = [], annealing._cool
    monkeypatch.setattr(annealing, "_pace", lambda *_: Pace(seconds, 0.1))
    monkeypatch.setattr(
        annealing, "_cool", lambda *given: plans.append(given[3]) or cool(*given)
    )
    found = search(Limit.after(3600.0))
    assert_valid(found)
    assert found.stopped
    assert plans == [Plan(4, length)]


def test_each_selection_of_a_sweep_has_its_own_time():
    limited = sweep(*CASE[:3], budgets=[3, 5], lambdas=[0.1], key=KEY, time_limit=1e-9)
    assert all(found.stopped for found in limited.values())
    assert {len(found.indices) for found in limited.values()} == {3, 5}


def test_swaps_of_itra_end_too():
    found = search(Limit.after(1e-9), METHODS["itra"])
    assert_valid(found)
    assert found.stopped


def test_classes_share_the_time():
    labels = np.arange(60) % 2
    classes = make_classes(labels, np.arange(24) % 2, (60, 24))
    problem = CASE.problem._replace(limit=Limit.after(1e-9))
    found = by_class(QUICK, classes)(problem, BUDGET, key=KEY)
    assert found.stopped
    assert np.bincount(labels[found.indices]).tolist() == [4, 4]
    first, second = Limit.after(60).share(0.25), Limit.after(60)
    assert first.left == pytest.approx(15, abs=1)
    assert second.left == pytest.approx(60, abs=1)
    assert Limit().share(0.25) == Limit()


def test_more_effort_is_more_sweeps():
    efforts = [0.1, 0.3, 1.0, 3.0, 10.0]
    for n, n_valid in ((8, 100), (64, 500), (1000, 5000), (1024, 22_000)):
        plans = [plan_search(n, n_valid, SimulatedAnnealing(effort=e)) for e in efforts]
        whole = plans[2].epochs * plans[2].length
        for effort, plan in zip(efforts, plans, strict=True):
            done = plan.epochs * plan.length
            assert effort * whole <= done < effort * whole + plan.epochs
            assert 5 <= plan.epochs <= plans[2].epochs


def test_an_annealing_of_which_little_is_left_needs_effort():
    settings = [SimulatedAnnealing(effort=e) for e in (0.1, 1.0, 10.0)]
    short = lambda *shape: [is_short(*shape, each) for each in settings]
    assert short(8, 100) == short(64, 500) == [False, False, False]
    assert short(1000, 5000) == [True, False, False]
    assert short(1024, 22_000) == [True, True, False]


def test_efforts_find_no_worse_than_the_greedy_start_and_keep_the_default():
    assert with_search(METHODS["goracs"]) is METHODS["goracs"]
    assert with_search(METHODS["goracs"], 1.0, "full") == METHODS["goracs"]
    start = greedy_only(CASE.problem, BUDGET, key=KEY)
    for effort in (0.1, 2.0):
        found = goracs(*CASE[:3], budget=BUDGET, lambda_=0.3, key=KEY, effort=effort)
        assert_valid(found)
        assert found.objective <= start.objective


def test_bounds_by_their_work():
    found = {
        bound: goracs(*CASE[:3], budget=BUDGET, lambda_=0.3, key=KEY, bound=bound)
        for bound in ("none", "quick", "full", None)
    }
    for each in found.values():
        assert_valid(each)
    assert found["none"].lower_bound is None
    assert found["quick"].lower_bound < found["full"].lower_bound
    assert found[None].lower_bound == found["full"].lower_bound
    # All rows leave nothing to choose: there is no bound where none is asked for.
    arguments = {"budget": 60, "lambda_": 0.3, "key": KEY}
    assert goracs(*CASE[:3], **arguments, bound="none").lower_bound is None
    assert goracs(*CASE[:3], **arguments).lower_bound is not None


def test_padding_a_schedule_changes_nothing():
    rows = np.arange(BUDGET)
    pool, field = candidate_field(CASE.cost, rows)
    units = np.arange(24).reshape(BUDGET, 3)
    slots = Slots(jnp.asarray(np.searchsorted(pool, rows)), jnp.asarray(units))
    heat = np.linspace(0.3, 0.1, 5).astype(np.float32)
    plain = sweeps(field, slots, heat, KEY, PairMoves())
    padded = sweeps(field, slots, np.pad(heat, (0, 11)), KEY, PairMoves(), 5)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(padded), strict=True):
        assert (a == b).all()
    assert (plain[0].rows != slots.rows).any()


MISTAKES = {
    "no effort": ({"effort": 0.0}, r"effort must be in \[0\.1, 10\], got 0"),
    "much effort": ({"effort": 11.0}, r"effort must be in \[0\.1, 10\], got 11"),
    "nan": ({"effort": float("nan")}, "effort must be in"),
    "bound": ({"bound": "fast"}, "bound must be one of none, quick, full, got 'fast'"),
    "no time": ({"time_limit": 0.0}, "time_limit must be above 0 seconds, got 0"),
    "no search": (
        {"method": "random", "effort": 2.0},
        "method random has no search to scale and no bound",
    ),
    "no bound": ({"method": "itra", "bound": "quick"}, "method itra has no search"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name):
    arguments, message = MISTAKES[name]
    for front, size in ((goracs, {"budget": 3}), (sweep, {"budgets": [3]})):
        weight = {"lambda_": 0.0} if front is goracs else {"lambdas": [0.0]}
        with pytest.raises(InputError, match=message):
            front(*CASE[:3], **size, **weight, key=KEY, **arguments)


def test_a_method_of_ones_own_can_search():
    slow = replace(QUICK, name="mine")
    found = with_search(slow, 0.5, "none")
    assert found.annealing.effort == 0.5
    assert (found.name, found.bound) == ("mine", None)
    assert Problem(CASE.cost).limit == Limit()
