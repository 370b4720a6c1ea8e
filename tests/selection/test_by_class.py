"""Label-aware selection against loops over classes and against the plain one."""

import jax
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax import goracs
from goracs_jax.cost import exact_cost
from goracs_jax.selection.by_class import by_class, class_table
from goracs_jax.selection.classes import class_budgets, make_classes
from goracs_jax.selection.method import METHODS, FunctionMethod, Goracs, LowerBound
from goracs_jax.selection.problem import Problem

KEY = jax.random.key(0)
RNG = np.random.default_rng(5)
CASE = instance(60, 40, seed=3)
TRAIN = RNG.choice(["a", "b", "c"], 60, p=[0.6, 0.2, 0.2])
VALID = np.repeat(["a", "b", "c"], [10, 20, 10])  # proportional for n = 8
BOTH = {"train_labels": TRAIN, "valid_labels": VALID}
COST = exact_cost(CASE.cost, np.arange(60))


def of_class(label):
    mine, theirs = np.flatnonzero(label == TRAIN), np.flatnonzero(label == VALID)
    return mine, COST[np.ix_(mine, theirs)]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_class_gets_its_budget_and_values_are_exact(method):
    arguments = {"key": KEY, "method": method, **CASE.scores_for(method), **BOTH}
    found = goracs(CASE.x, CASE.y, budget=8, lambda_=0.3, **arguments)
    assert (np.diff(found.indices) > 0).all()
    labels, counts = np.unique(TRAIN[found.indices], return_counts=True)
    assert dict(zip(labels, counts, strict=True)) == {"a": 2, "b": 4, "c": 2}
    # Both solve in float64.
    assert found.objective == pytest.approx(oracles.poo(COST, found.indices), abs=1e-9)
    assert found.trace[-1].objective == found.objective
    values = {}
    for row in class_table(
        CASE.cost, make_classes(TRAIN, VALID, (60, 40)), found.indices
    ):
        mine, cost = of_class(row.label)
        chosen = np.flatnonzero(np.isin(mine, found.indices))
        assert row.objective == pytest.approx(oracles.poo(cost, chosen), abs=1e-9)
        assert (row.train, row.valid) == cost.shape
        assert row.budget == len(chosen)
        values[row.label] = row.objective * row.valid / 40
    # The plans of the classes side by side are a plan of the whole.
    assert found.objective <= sum(values.values()) + 1e-9
    assert (found.lower_bound is None) == (method != "goracs")
    if found.lower_bound is None:
        return
    assert found.lower_bound <= oracles.strongly_relaxed_poo(COST, 8) + 1e-7  # HiGHS


def test_the_bound_is_that_of_the_whole():
    found = goracs(*CASE[:3], budget=8, lambda_=0.3, key=KEY, **BOTH)
    at_most = oracles.strongly_relaxed_poo(COST, 8) + 1e-7  # of HiGHS
    assert oracles.relaxed_poo(COST, 8) <= found.lower_bound <= at_most


def test_the_bound_has_the_settings_of_the_method():
    """No round is left to improve the first bound."""
    hasty = Goracs(bound=LowerBound(max_rounds=0))
    arguments = {"budget": 8, "lambda_": 0.3, "key": KEY, **BOTH}
    early = goracs(*CASE[:3], method=hasty, **arguments).lower_bound
    assert early < goracs(*CASE[:3], **arguments).lower_bound


def test_greedy_is_the_double_loop_in_every_class():
    found = goracs(*CASE[:3], budget=8, lambda_=0.3, key=KEY, method="greedy", **BOTH)
    expected = []
    for label, budget in (("a", 2), ("b", 4), ("c", 2)):
        mine, cost = of_class(label)
        expected += mine[oracles.greedy(cost, budget)].tolist()
    assert found.indices.tolist() == sorted(expected)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_class_is_the_plain_run(method):
    arguments = {"budget": 6, "key": KEY, "method": method, **CASE.scores_for(method)}
    plain = goracs(CASE.x, CASE.y, **arguments)
    one = goracs(
        *CASE[:2],
        train_labels=np.full(60, "x"),
        valid_labels=np.full(40, "x"),
        **arguments,
    )
    assert (one.indices == plain.indices).all()
    assert one[1:3] == plain[1:3]
    assert [s.objective for s in one.trace] == [s.objective for s in plain.trace]


def test_names_of_classes_do_not_matter():
    numbers = {"a": 7, "b": 8, "c": 9}
    as_numbers = (np.array([numbers[t] for t in part]) for part in (TRAIN, VALID))
    one = goracs(*CASE[:3], budget=9, key=KEY, **BOTH)
    two = goracs(
        *CASE[:3],
        budget=9,
        key=KEY,
        **dict(zip(("train_labels", "valid_labels"), as_numbers, strict=True)),
    )
    assert (one.indices == two.indices).all()


def test_classes_that_fall_short_are_warned_of():
    valid = np.where(VALID == "c", "d", VALID)  # "c" is absent, "d" has no rows
    with (
        pytest.warns(UserWarning, match="fewer rows than their share.*: d"),
        pytest.warns(
            UserWarning, match="budget 8: classes absent from validation.*: c"
        ),
    ):
        found = goracs(
            *CASE[:3], budget=8, key=KEY, train_labels=TRAIN, valid_labels=valid
        )
    assert set(TRAIN[found.indices]) == {"a", "b"}
    classes = make_classes(TRAIN, valid, (60, 40))
    expected = class_budgets(classes, 8)
    table = class_table(CASE.cost, classes, found.indices)
    assert [row.budget for row in table] == expected.tolist()
    assert [np.isnan(row.objective) for row in table] == [False, False, True, True]


def test_random_draws_differ_between_classes():
    """Each class has its own key."""
    same = np.tile(CASE.x[:30], (2, 1)), CASE.y, None
    ab = {"train_labels": np.repeat([0, 1], 30), "valid_labels": np.repeat([0, 1], 20)}
    found = goracs(*same, budget=10, lambda_=0.0, key=KEY, method="random", **ab)
    first, second = found.indices[:5], found.indices[5:] - 30
    assert (first != second).any()


def test_converged_is_that_of_all_classes():
    def tired(problem, budget, *, key):
        found = METHODS["random"].choose(problem, budget, key=key)
        return found._replace(converged=problem.cost.shape[1] != 20)

    method = FunctionMethod(name="tired", choose=tired, about="Gives up on one class.")
    classes = make_classes(TRAIN, VALID, (60, 40))
    assert not by_class(method, classes)(Problem(CASE.cost), 8, key=KEY).converged
