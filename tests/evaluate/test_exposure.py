"""Coverage and the long tail, counted by hand and by loops."""

import numpy as np

from goracs_jax.evaluate.exposure import (
    NONE,
    coverage,
    first_items,
    long_tail,
    share_of,
)


def test_first_items_are_those_of_a_sort():
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 6, (20, 15)) / 5
    items = np.stack([rng.permutation(40)[:15] for _ in range(20)])
    items[::2, 12:] = NONE
    found = first_items(distances, items)
    for row, d, mine in zip(found, distances, items, strict=True):
        there = [k for k in range(15) if mine[k] != NONE]
        best = sorted(there, key=lambda k, d=d: (d[k], k))[:10]
        assert row.tolist() == [mine[k] for k in best]


def test_first_items_of_few_are_filled_up():
    found = first_items(np.array([[0.2, 0.1, 0.0]]), np.array([[4, 5, NONE]]))
    assert found.tolist() == [[5, 4, NONE]]


def test_coverage_counts_each_item_once():
    top = np.array([[3, 1, NONE], [1, 2, 3], [3, NONE, NONE]])
    assert coverage(top, 12) == 3 / 12


def test_the_head_is_the_fewest_items_with_80_percent():
    rng = np.random.default_rng(1)
    for _ in range(50):
        times = rng.integers(0, 20, 12)
        tail = long_tail(times)
        head = np.sort(times[~tail])[::-1]
        assert 10 * head.sum() >= 8 * times.sum()
        assert 10 * head[:-1].sum() < 8 * times.sum() or not len(head)
        assert not len(head) or times[tail].max(initial=0) <= head.min()
    # 8 of 10 are exactly 80 %: the third item is in the tail.
    assert long_tail(np.array([4, 4, 2])).tolist() == [False, False, True]


def test_share_of_the_tail_by_hand():
    tail = np.array([True, False, True, False])
    top = np.array([[0, 1, 2], [1, 3, NONE], [2, NONE, NONE]])
    np.testing.assert_allclose(share_of(tail, top), [2 / 3, 0, 1])
