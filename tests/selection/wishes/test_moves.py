"""What is allowed is what leaves all wishes met, or lets them be met in the end."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goracs_jax.selection.wishes import meets, row_wishes
from goracs_jax.selection.wishes.moves import (
    accept,
    allows,
    limits_of,
    open_rows,
    tally,
)

N, BUDGET = 9, 4
ROWS = np.arange(N)
SETS = [np.array(s) for s in combinations(ROWS, BUDGET)]
LIMITS = (("rows",), ("costs",), ("groups",), ("costs", "groups"))


def wished(kinds, seed):
    rng = np.random.default_rng(seed)
    given = {}
    if "rows" in kinds:
        given |= {"include": rng.permutation(N)[:1], "exclude": rng.permutation(N)[:1]}
        given["exclude"] = np.setdiff1d(given["exclude"], given["include"])
    if "groups" in kinds:
        group = np.concatenate([np.arange(3), rng.integers(3, size=N - 3)])
        given |= {"groups": group, "group_min": {0: 1, 1: 1}, "group_max": {2: 1}}
    if "costs" in kinds:
        costs = rng.integers(1, 9, N)
        given |= {"row_costs": costs, "cost_limit": int(np.sort(costs)[:6].sum())}
    wishes = row_wishes(N, **given)
    if "near" in kinds:
        pairs = rng.permutation(np.array(list(combinations(ROWS, 2))))[:6]
        pairs = pairs[~(wishes.fixed | wishes.closed)[pairs].any(1)]
        near = np.concatenate([pairs, pairs[:, ::-1]])
        near = near[np.lexsort(near.T[::-1])]
        wishes = wishes._replace(near=near, clique=ROWS)
    return wishes


@pytest.mark.parametrize("kinds", LIMITS)
def test_a_row_is_open_if_a_subset_with_it_can_still_be_reached(kinds):
    opened = jax.jit(open_rows, static_argnames="room")
    refused = 0
    for seed in range(6):
        wishes = wished(kinds, seed)
        possible = [{*s.tolist()} for s in SETS if meets(wishes, s)]
        fixed = {*np.flatnonzero(wishes.fixed).tolist()}
        for begun in [fixed, *({*list(s)[:3]} | fixed for s in possible[::9])]:
            if len(begun) == BUDGET:
                continue
            chosen = np.isin(ROWS, list(begun))
            can = [any(begun | {i} <= s for s in possible) for i in ROWS]
            found = opened(wishes, jnp.asarray(chosen), BUDGET, room=BUDGET + 1)
            assert np.asarray(found).tolist() == (np.array(can) & ~chosen).tolist()
            refused += (~np.array(can) & ~chosen).sum()
    assert refused


@pytest.mark.parametrize(
    "kinds", [*LIMITS, ("rows", "near"), ("costs", "groups", "near")]
)
def test_a_move_is_allowed_if_what_it_leaves_meets_all_wishes(kinds):
    allowed = jax.jit(allows)
    yes = no = 0
    for seed in range(4):
        wishes = wished(kinds, seed)
        rng = np.random.default_rng(seed)
        limits = limits_of(wishes, ROWS)
        for rows in [s for s in SETS if meets(wishes, s)][::25]:
            now = tally(limits, jnp.asarray(rows))
            for _ in range(12):
                out = rng.permutation(rows)[:2]
                others = np.setdiff1d(ROWS, np.setdiff1d(rows, out))
                into = rng.permutation(others)[:2]
                after = np.union1d(np.setdiff1d(rows, out), into)
                expected = meets(wishes, after)
                assert bool(allowed(limits, now, out, into)) == expected
                yes, no = yes + expected, no + (not expected)
    assert min(yes, no) > 5


@pytest.mark.parametrize("kinds", [("costs",), ("groups",), ("rows", "near")])
def test_moves_that_are_accepted_can_be_made_together(kinds):
    accepted = jax.jit(accept)
    made = left = 0
    for seed in range(12):
        wishes = wished(kinds, seed)
        possible = [s for s in SETS if meets(wishes, s)]
        if not possible:
            continue
        rng = np.random.default_rng(seed)
        rows = rng.permutation(possible[len(possible) // 2])
        limits = limits_of(wishes, ROWS)
        out = rows.reshape(2, 2)
        into = rng.permutation(np.setdiff1d(ROWS, rows))[:4].reshape(2, 2)
        now = tally(limits, jnp.asarray(rows))
        taken = np.asarray(accepted(limits, now, out, into, jnp.ones(2, bool)))
        for move in range(2):  # each in turn, if it is allowed after those before it
            there = np.where(np.arange(2) == move, True, taken & (np.arange(2) < move))
            after = np.where(there[:, None], into, out)
            assert taken[move] == meets(wishes, after.ravel())
        made, left = made + taken.sum(), left + (~taken).sum()
    assert min(made, left) > 1
