import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interactions import PAIRS, log_of

from goracs_jax.data.splits import (
    check_size,
    leave_one_out,
    split_by_time,
    training_rows,
)
from goracs_jax.errors import InputError


def windows_loop(pairs, history, min_history):
    """(row, past items) of every example, by walking through time."""
    seen, made = {}, []
    for row, (user, item) in enumerate(pairs):
        past = seen.setdefault(user, [])
        if len(past) >= min_history:
            made.append((row, past[-history:]))
        past.append(item)
    return made


def leave_one_out_loop(pairs, min_history):
    """Parts of rows: all but the last two examples of a user, second last, last."""
    train, valid, test = [], [], []
    for user in {user for user, _ in pairs}:
        rows = [
            r for r, _ in windows_loop(pairs, 1, min_history) if pairs[r][0] == user
        ]
        if len(rows) < 3:
            train += rows
        else:
            train, valid, test = (
                train + rows[:-2],
                [*valid, rows[-2]],
                [*test, rows[-1]],
            )
    return [sorted(part) for part in (train, valid, test)]


@given(PAIRS, st.integers(1, 4), st.integers(1, 3))
def test_histories_are_those_of_a_loop(pairs, history, min_history):
    log = log_of(pairs)
    names = lambda rows: [log.item_ids[log.item[row]] for row in rows]
    for row, past in windows_loop(pairs, history, min_history):
        assert names(log.history(row, history)) == past


@given(PAIRS, st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_split_by_time(pairs, min_history, valid, test):
    rows = [row for row, _ in windows_loop(pairs, 1, min_history)]
    log = log_of(pairs)
    if valid + test >= len(rows):
        with pytest.raises(InputError, match=r"leave none to train on: there are \d+"):
            split_by_time(log, valid=valid, test=test, min_history=min_history)
        return
    split = split_by_time(log, valid=valid, test=test, min_history=min_history)
    assert np.concatenate(split).tolist() == rows
    assert (len(split.valid), len(split.test)) == (valid, test)
    times = [log.timestamp[part] for part in split]
    assert times[0].max() <= times[1].min()
    assert times[1].max() <= times[2].min()


@given(PAIRS, st.integers(1, 3))
def test_leave_one_out_is_that_of_a_loop(pairs, min_history):
    expected = leave_one_out_loop(pairs, min_history)
    if not expected[2]:
        with pytest.raises(InputError, match=r"no user has three examples"):
            leave_one_out(log_of(pairs), min_history=min_history)
        return
    split = leave_one_out(log_of(pairs), min_history=min_history)
    assert [part.tolist() for part in split] == expected


def test_shares_are_of_the_examples_and_rounded():
    log = log_of([("u", item) for item in "abcdefghij"])
    # 9 examples: 0.3 of them are 2.7, 0.01 of them is less than one.
    split = split_by_time(log, valid=0.3, test=0.01, min_history=1)
    assert [len(part) for part in split] == [5, 3, 1]


@pytest.mark.parametrize("size", [0, -1, 1.5, float("nan"), float("inf"), -0.5])
def test_sizes_that_are_neither_count_nor_share(size):
    with pytest.raises(InputError, match=r"--test must be a whole number from 1, or a"):
        check_size("test", size)


@given(PAIRS, st.integers(1, 3))
def test_training_knows_nothing_of_what_is_held_out(pairs, min_history):
    log = log_of(pairs)
    train, valid, test = leave_one_out_loop(pairs, min_history)
    if test:
        split = leave_one_out(log, min_history=min_history)
        held_out = {*valid, *test}
        expected = [row for row in range(len(pairs)) if row not in held_out]
        found = training_rows(log, split).tolist()
        # Where all of training is older than that, the split is one by time as well.
        assert found in (expected, list(range(min(held_out))))
        assert set(train) <= set(found)


def test_training_of_a_split_by_time_ends_where_validation_starts():
    pairs = [(user, item) for item in "abcd" for user in "uvwxy"]
    pairs.insert(19, ("z", "a"))  # newer, and too early in z's history to be held out
    log = log_of(pairs)
    split = split_by_time(log, valid=2, test=2, min_history=1)
    assert training_rows(log, split).tolist() == list(range(split.valid[0]))
