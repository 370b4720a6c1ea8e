from itertools import combinations

import numpy as np
import pytest

from goracs_jax.cost import make_cost
from goracs_jax.errors import InputError
from goracs_jax.selection.wishes import make_wishes, near
from goracs_jax.selection.wishes.given import in_parts
from goracs_jax.selection.wishes.near import cliques, near_pairs


@pytest.mark.parametrize("decimals", [0, 1, 2, 3])
def test_decimal_costs_are_exact(decimals):
    rng = np.random.default_rng(decimals)
    whole = rng.integers(0, 10**4, 9)
    costs = whole / 10**decimals
    for rows in map(list, combinations(range(9), 3)):
        parts, top = in_parts(costs, int(whole[rows].sum()) / 10**decimals)
        assert parts[rows].sum() == top
        assert parts[rows].sum() - 1 < top < parts[rows].sum() + 1


@pytest.mark.parametrize("limit", [1 / 3, 7.7, 1e6 * np.pi, float(1 << 40)])
def test_parts_are_never_too_few(limit):
    costs = np.random.default_rng(0).exponential(size=200) * limit / 20
    parts, top = in_parts(costs, limit)
    assert (parts.astype(float) / top >= costs / limit).all()
    assert parts / top == pytest.approx(costs / limit, abs=1e-7)
    parts, top = in_parts(np.array([1e300, limit]), limit)
    assert parts[0] == top + 1
    assert parts[1] == top


@pytest.mark.parametrize("entries", [1, 64, 1 << 24])
@pytest.mark.parametrize("radius", [1e-9, 0.5, 1e200])
def test_near_pairs_are_those_of_the_double_loop(entries, radius, monkeypatch):
    monkeypatch.setattr(near, "ENTRIES", entries)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2)).astype(np.float32)
    x[3] = x[20]
    cost = make_cost(x, x[:2])
    open_ = np.arange(30) != 5
    apart = lambda i, j: np.linalg.norm(x[i].astype(float) - x[j])
    expected = [
        [i, j]
        for i in range(30)
        for j in range(30)
        if i != j and open_[i] and open_[j] and apart(i, j) < radius
    ]
    assert near_pairs(cost, radius, open_).tolist() == expected
    assert len(expected) >= 2


def test_cliques_are_of_rows_that_are_all_near_and_of_one_group():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 2))
    wishes = make_wishes(
        make_cost(x, x[:3]), apart=0.8, groups=np.arange(40) % 2, group_max={0: 9}
    )
    pairs = {(i, j) for i, j in wishes.near.tolist()}
    for clique in np.unique(wishes.clique):
        rows = np.flatnonzero(wishes.clique == clique).tolist()
        assert {*combinations(rows, 2)} <= pairs
        assert len({i % 2 for i in rows}) == 1
    alone = cliques(wishes.near, None, 40)
    assert len(np.unique(alone)) < len(np.unique(wishes.clique)) < 40


def test_too_many_near_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(near, "MOST_PAIRS", 10)
    cost = make_cost(np.zeros((9, 1)), np.ones((1, 1)))
    with pytest.raises(InputError, match="over 10 pairs of training rows are closer"):
        make_wishes(cost, apart=1.0)


def test_rows_near_to_one_that_is_fixed_are_closed():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    cost = make_cost(x, x)
    wishes = make_wishes(cost, include=[1], trained=[3], apart=0.15)
    assert wishes.closed.tolist() == [True, False, True, False, True]
    assert not len(wishes.near)
    # Those that are trained on are as they are.
    assert make_wishes(cost, trained=[3, 4], apart=0.15) is not None
    with pytest.raises(InputError, match="rows 1 and 0 must both be chosen or were"):
        make_wishes(cost, include=[1], trained=[0], apart=0.15)


def test_limits_are_those_of_the_rows_chosen_now():
    cost = make_cost(np.eye(5), np.eye(5))
    given = {"groups": list("aabbb"), "group_min": {"a": 1}, "group_max": {"b": 1}}
    wishes = make_wishes(
        cost, trained=[0, 2], row_costs=[9, 1, 9, 1, 2], cost_limit=2, **given
    )
    assert wishes.parts.tolist() == [0, 1, 0, 1, 2]
    counts = [wishes.group[row] for row in (0, 2)]
    assert counts == [2, 2]  # a group of their own, without limits
    assert wishes.least.tolist() == [1, 0, 0]
    assert wishes.most[1] == 1
