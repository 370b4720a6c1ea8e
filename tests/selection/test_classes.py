"""Budgets of classes: against the definition, the released rule, and bad labels."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goracs_jax.errors import InputError
from goracs_jax.selection.classes import (
    Classes,
    class_budgets,
    class_notes,
    given_classes,
    largest_remainder,
    make_classes,
)


def classes_of(train, valid) -> Classes:
    """Classes 0, 1, ... with these numbers of rows."""
    names = tuple(range(len(train)))
    return Classes(
        names, *(np.repeat(np.arange(len(part)), part) for part in (train, valid))
    )


@pytest.mark.parametrize("weights", [(5, 3, 2), (1, 1, 1), (7, 0, 2), (1, 10, 1)])
@pytest.mark.parametrize("seats", [0, 1, 4, 7])
def test_largest_remainder_is_nearest_to_the_shares(weights, seats):
    """Hamilton's rule is the whole-numbered split that is nearest to the real one."""
    shares = np.array(weights) * seats / sum(weights)
    splits = [s for s in product(range(seats + 1), repeat=3) if sum(s) == seats]
    away = lambda split: np.abs(np.array(split) - shares).sum()
    found = largest_remainder(np.array(weights), seats)
    assert found.sum() == seats
    # Sums of three float64 shares.
    assert away(found) == pytest.approx(min(map(away, splits)), abs=1e-12)


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 300))
def test_two_classes_agree_with_the_released_rule(yes, no, budget):
    """round(n * share) for one class and the rest for the other, where defined."""
    doubled = 2 * budget * yes
    if doubled % (yes + no) == 0 and (doubled // (yes + no)) % 2:
        return  # n * share ends in .5: the rule depends on which class is rounded
    found = class_budgets(classes_of((budget, budget), (yes, no)), budget)
    first = round(budget * yes / (yes + no))
    assert found.tolist() == [first, budget - first]


@given(st.data())
def test_budgets_add_up_and_can_be_had(data):
    counts = st.lists(st.integers(0, 30), min_size=4, max_size=4)
    train, valid = np.array(data.draw(counts)), np.array(data.draw(counts))
    most = train[valid > 0].sum()
    if not most:
        return
    budget = data.draw(st.integers(1, int(most)))
    found = class_budgets(classes_of(train, valid), budget)
    assert found.sum() == budget
    assert (found <= train).all()
    assert (found[valid == 0] == 0).all()
    # A class with rows to spare is not below the floor of its share.
    floor = valid * budget // valid.sum()
    assert ((found == train) | (found >= floor)).all()


def test_what_a_class_cannot_give_is_shared_by_the_others():
    classes = classes_of((2, 50, 50, 9), (60, 20, 20, 0))
    # Shares of 10 are 6, 2, 2: two rows there, and 8 in the proportion 20 : 20.
    assert class_budgets(classes, 10).tolist() == [2, 4, 4, 0]
    assert class_notes(classes, 10) == [
        "classes absent from validation, nothing of them is chosen: 3",
        "classes with fewer rows than their share, others get the rest of it: 0",
    ]
    # The next class that runs short passes its rest on as well.
    assert class_budgets(classes_of((2, 3, 50, 9), (60, 20, 20, 0)), 10).tolist() == [
        2, 3, 5, 0,
    ]  # fmt: skip


def test_a_class_too_small_for_a_row_is_named():
    assert class_notes(classes_of((9, 9), (99, 1)), 3) == [
        "classes with too small a share for a row, nothing of them is chosen: 1"
    ]
    assert class_notes(classes_of((9, 9), (50, 50)), 4) == []


def test_long_lists_are_cut():
    notes = class_notes(classes_of((1,) * 9, (1,) + (0,) * 8), 1)
    assert notes[0].endswith("chosen: 1, 2, 3, 4, 5 and 3 more")


def test_a_budget_that_no_classes_can_give():
    classes = classes_of((3, 9), (5, 0))
    with pytest.raises(
        InputError, match=r"at most 3, got 4: validation lacks classes 1"
    ):
        class_budgets(classes, 4)
    with pytest.raises(InputError, match=r"budget must be in \[1, 12\], got 13"):
        class_budgets(classes, 13)
    with pytest.raises(InputError, match=r"budget must be in \[1, 12\], got 0"):
        class_budgets(classes, 0)


@pytest.mark.parametrize(
    ("train", "valid"), [([3, 1, 1], [1, 3]), (["b", "a", "a"], ["a", "b"])]
)
def test_classes_are_numbered_in_order(train, valid):
    classes = make_classes(np.array(train), np.array(valid), (3, 2))
    assert classes.names == tuple(sorted(set(train)))
    assert classes.train.tolist() == [1, 0, 0]
    assert classes.valid.tolist() == [0, 1]


def test_large_integers_stay_apart():
    signed, unsigned = np.array([2**53]), np.array([2**53 + 1], np.uint64)
    assert make_classes(signed, unsigned, (1, 1)).names == (2**53, 2**53 + 1)


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        ([0, 1], [0, 1, 2], r"training labels must be 3 .*got shape \[2\] of int64"),
        ([0, 1, 2], [[0, 1, 2]], r"validation labels must be 3 .*shape \[1, 3\]"),
        ([0.0, 1.0, 2.0], [0, 1, 2], r"integers or strings.*of float64"),
        ([None, 1, 2], [0, 1, 2], r"integers or strings.*of object"),
        (["0", "1", "2"], [0, 1, 2], r"training labels are <U1, validation.* int64"),
        ([0, 1, 2], None, r"give train_labels and valid_labels together"),
        (None, [0, 1, 2], r"give train_labels and valid_labels together"),
    ],
)
def test_bad_labels(train, valid, message):
    arrays = [None if part is None else np.array(part) for part in (train, valid)]
    with pytest.raises(InputError, match=message):
        given_classes(*arrays, (3, 3), [1])
