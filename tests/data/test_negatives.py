from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interactions import PAIRS, log_of

from goracs_jax.data.negatives import check_negatives, draw_negatives
from goracs_jax.errors import InputError


def draw(log, rows, n, seed=0):
    rng = np.random.default_rng(seed)
    return [items.tolist() for items in draw_negatives(log, rows, n, rng=rng)]


def unseen_loop(pairs, user):
    """Items of the catalogue that the user has at no time."""
    items = sorted({item for _, item in pairs})
    return [item for item in items if (user, item) not in pairs]


@given(PAIRS, st.integers(0, 4), st.integers(0, 99))
def test_distinct_and_never_seen(pairs, n, seed):
    log, rows = log_of(pairs), np.arange(len(pairs))
    fewest = min(len(unseen_loop(pairs, user)) for user, _ in pairs)
    if fewest < n:
        with pytest.raises(
            InputError, match=rf"drawn from {fewest}; .*{fewest} or few"
        ):
            check_negatives(log, rows, n)
        return
    check_negatives(log, rows, n)
    for (user, target), items in zip(pairs, draw(log, rows, n, seed), strict=True):
        names = [log.item_ids[item] for item in items]
        assert len(set(names)) == n
        assert set(names) <= set(unseen_loop(pairs, user)) - {target}
    assert draw(log, rows, n, seed) == draw(log, rows, n, seed)


def test_all_that_are_left():
    pairs = [("u", item) for item in "bdh"] + [("v", item) for item in "acefg"]
    log = log_of(pairs)
    (items,) = draw(log, np.array([0]), 5)
    assert sorted(log.item_ids[item] for item in items) == list("acefg")


def test_equally_likely():
    pairs = [("u", item) for item in "bdh"] + [("v", item) for item in "acefg"]
    log = log_of(pairs)
    n, draws = 2, 5_000
    counts = Counter(np.ravel(draw(log, np.zeros(draws, int), n)).tolist())
    # Each of 5 items comes up in n/5 of the draws: binomial with p = 0.4.
    expected, deviation = draws * 0.4, np.sqrt(draws * 0.4 * 0.6)
    assert len(counts) == 5
    assert max(abs(count - expected) for count in counts.values()) < 5 * deviation


def test_repeated_items_count_once():
    log = log_of([("u", "a"), ("u", "a"), ("v", "b"), ("v", "c")])
    check_negatives(log, np.arange(2), 2)
    assert sorted(draw(log, np.array([1]), 2)[0]) == [1, 2]
