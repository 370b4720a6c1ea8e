"""Subsets and assignments, against enumeration of them all."""

from itertools import combinations, product

import numpy as np
import pytest

from goracs_jax.selection.wishes import Wishes, meets
from goracs_jax.selection.wishes.assign import assign_within
from goracs_jax.selection.wishes.feasible import choose_within, feasible_rows

N = 8


def limited(seed):
    """Groups, costs and near rows."""
    rng = np.random.default_rng(seed)
    no = np.zeros(N, bool)
    pairs = rng.permutation(np.array(list(combinations(range(N), 2))))[:7]
    near = np.concatenate([pairs, pairs[:, ::-1]])
    wishes = Wishes(
        no,
        no,
        group=np.arange(N) % 2,
        least=np.array([1, 0]),
        most=np.array([2, 2]),
        parts=rng.integers(1, 9, N).astype(np.int32),
        limit=np.int32(rng.integers(8, 15)),
        near=near[np.lexsort(near.T[::-1])],
        clique=np.arange(N),
    )
    return wishes._replace(shares=wishes.parts / wishes.limit), rng


@pytest.mark.parametrize("seed", range(12))
def test_the_integer_programme_finds_the_best_subset(seed):
    wishes, rng = limited(seed)
    value = rng.normal(size=N)
    sets = [np.array(s) for s in combinations(range(N), 3)]
    possible = [s for s in sets if meets(wishes, s)]
    rows = choose_within(wishes, value, 3)
    if not possible:
        assert rows is None
        return
    least = min(value[s].sum() for s in possible)
    assert value[rows].sum() == pytest.approx(least, abs=1e-9)
    assert meets(wishes, feasible_rows(wishes, value, 3))


@pytest.mark.parametrize("seed", range(12))
def test_the_assignment_is_the_best_of_all(seed):
    wishes, rng = limited(seed)
    sets = [np.array(s) for s in combinations(range(N), 3)]
    possible = [s for s in sets if meets(wishes, s)]
    if not possible:
        return
    current = rng.permutation(possible[0])
    wishes = wishes._replace(fixed=np.arange(N) == current[0])
    # A row that is fixed has no near rows.
    touched = (wishes.near == current[0]).any(1)
    wishes = wishes._replace(near=wishes.near[~touched])
    q = rng.normal(size=(3, N))
    candidates = np.stack([rng.permutation(N)[:5] for _ in range(3)])
    value = np.take_along_axis(q, candidates, 1)
    value[1, 3] = np.inf
    now = q[np.arange(3), current]
    assigned = assign_within(value, candidates, now, current, wishes)
    best = np.inf
    for choice in product(range(6), repeat=3):
        rows = np.array([[*candidates[k], current[k]][c] for k, c in enumerate(choice)])
        of = [[*value[k], now[k]][c] for k, c in enumerate(choice)]
        if len({*rows.tolist()}) == 3 and rows[0] == current[0] and meets(wishes, rows):
            best = min(best, sum(of))
    assert meets(wishes, assigned)
    assert assigned[0] == current[0]
    found = q[np.arange(3), assigned].sum()
    assert found == pytest.approx(best, abs=3e-5)  # GAP
