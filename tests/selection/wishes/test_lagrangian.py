"""Enumeration of all subsets of a few rows is the oracle."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from goracs_jax.selection.wishes import Wishes, meets, row_wishes
from goracs_jax.selection.wishes.lagrangian import n_least, priced_least, prices
from goracs_jax.selection.wishes.near import cliques

N, BUDGET = 9, 4


def matroid(seed):
    """Rows in or out, groups, and near rows that fall into cliques."""
    rng = np.random.default_rng(seed)
    group = rng.integers(3, size=N)
    wishes = row_wishes(
        N,
        include=rng.permutation(N)[: seed % 3],
        groups=group,
        group_min={int(group[0]): 1},
        group_max={int(group[1]): 2},
    )
    # Sets of rows that are all near, each within a group.
    parts = 3 * group + rng.integers(3, size=N)
    pairs = [(i, j) for i in range(N) for j in range(N) if parts[i] == parts[j]]
    near = np.array([p for p in pairs if p[0] != p[1]]).reshape(-1, 2)
    near = near[~wishes.fixed[near].any(1)]
    clique = cliques(near, wishes.group, N)
    return wishes._replace(near=near, clique=clique), rng


def subsets(wishes):
    every = map(list, combinations(range(N), BUDGET))
    return [s for s in every if meets(wishes, np.array(s))]


def test_the_rows_of_least_value_are_those_of_the_best_subset():
    seen = 0
    for seed in range(40):
        wishes, rng = matroid(seed)
        possible = subsets(wishes)
        if not possible:
            continue
        seen += 1
        value = rng.normal(size=N)
        rows = n_least(value, wishes, BUDGET)
        assert sorted(rows.tolist()) in possible
        least = min(value[s].sum() for s in possible)
        assert value[rows].sum() == pytest.approx(least, abs=1e-12)
    assert seen > 20


def test_the_multiplier_is_that_of_the_linear_programme():
    """max t so that t <= w(S) + mu (c(S) - 1) of every subset S, and mu >= 0."""
    bound = 0
    for seed in range(40):
        wishes, rng = matroid(seed)
        possible = subsets(wishes)
        if not possible:
            continue
        w, shares = rng.normal(size=N), rng.exponential(size=N)
        low = min(shares[s].sum() for s in possible)
        shares /= low * rng.uniform(1, 2)
        lines = np.array([[w[s].sum(), shares[s].sum() - 1] for s in possible])
        best = linprog(
            [-1, 0],
            A_ub=np.stack([np.ones(len(lines)), -lines[:, 1]], 1),
            b_ub=lines[:, 0],
            bounds=[(None, None), (0, None)],
        )
        found = priced_least(w, wishes._replace(shares=shares), BUDGET)
        assert found.value == pytest.approx(-best.fun, abs=1e-8)
        within = lines[lines[:, 1] <= 0, 0].min()
        assert found.value <= within + 1e-12
        assert shares[found.rows].sum() <= 1 + 1e-9
        bound += found.multiplier > 0
    assert bound > 10


def test_a_limit_that_the_cheapest_rows_fill_has_a_bound_below_them():
    """Their costs add up to the limit up to rounding, which no bound may rest on."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, shares = rng.normal(size=N), rng.exponential(size=N)
        rows = np.argsort(shares)[:BUDGET]
        shares /= shares[rows].sum()
        no = np.zeros(N, bool)
        found = priced_least(w, Wishes(no, no, shares=shares), BUDGET)
        assert found.value <= w[rows].sum() + 1e-15
        assert found.value == pytest.approx(w[rows].sum(), abs=1e-6)


def test_with_their_prices_the_least_rows_are_the_chosen_ones():
    for seed in range(40):
        wishes, rng = matroid(seed)
        wishes = wishes._replace(near=None, clique=None)
        if not subsets(wishes):
            continue
        w = rng.normal(size=N)
        priced = w + prices(w, wishes, BUDGET)
        free = ~wishes.fixed & ~wishes.closed
        chosen = np.zeros(N, bool)
        chosen[n_least(w, wishes, BUDGET)] = True
        if (free & chosen).any() and (free & ~chosen).any():
            most = priced[free & chosen].max()
            assert most <= priced[free & ~chosen].min() + 1e-12
