"""The budget from which on a held-out half of validation gains nothing."""

import jax
import numpy as np
import oracles
import pytest

import goracs_jax as gx
from goracs_jax.cost import make_cost
from goracs_jax.errors import InputError
from goracs_jax.selection.auto_budget import auto_budget, sizes_to_try
from goracs_jax.selection.wishes import make_wishes, row_wishes

KEY = jax.random.key(0)
N, M = 24, 12


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 2)), rng.normal(size=(M, 2))


def halves():
    order = np.random.default_rng(np.asarray(jax.random.key_data(KEY))).permutation(M)
    return [np.sort(half) for half in np.array_split(order, 2)]


@pytest.mark.parametrize("weights", [None, np.arange(M) + 1.0])
def test_the_curve_is_that_of_greedy_subsets_on_the_other_half(data, weights):
    x, y = data
    found = auto_budget(make_cost(x, y, valid_weights=weights), key=KEY)
    cost = oracles.cost_matrix(x, y)
    seen, held_out = halves()
    w = np.ones(M) if weights is None else weights
    # Weights of whole numbers are rows that many times.
    columns = np.repeat(seen, w[seen].astype(int))
    picks = oracles.greedy(cost[:, columns], found.curve[-1].budget)
    for n, value in found.curve:
        exact = oracles.weighted_poo(cost[:, held_out], picks[:n], w[held_out])
        assert value == pytest.approx(exact, abs=1e-6)
    values = [value for _, value in found.curve]
    within = min(values) + 0.01 * (values[0] - min(values))
    assert found.budget == next(n for n, v in found.curve if v <= within)


def test_a_limit_of_costs_limits_the_budget(data):
    x, y = data
    cost = make_cost(x, y)
    wishes = make_wishes(cost, row_costs=np.full(N, 2.5), cost_limit=10)
    found = auto_budget(cost, key=KEY, wishes=wishes)
    assert [n for n, _ in found.curve] == [1, 2, 3, 4]
    given = {"row_costs": np.full(N, 2.5), "cost_limit": 10, "method": "greedy"}
    chosen = gx.goracs(x, y, budget="auto", lambda_=0.0, key=KEY, **given)
    assert len(chosen.indices) == found.budget <= 4


def test_sizes_are_those_that_the_wishes_allow():
    assert sizes_to_try(row_wishes(N, include=[1, 2, 3], exclude=[0]), N)[0] == 3
    assert sizes_to_try(row_wishes(N, include=[1, 2, 3], exclude=[0]), N)[-1] == 23
    assert sizes_to_try(row_wishes(N, trained=[1, 2, 3], exclude=[0]), N)[-1] == 20
    exact = row_wishes(N, include=range(5), row_costs=np.ones(N), cost_limit=5)
    assert sizes_to_try(exact, N) == [5]


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"row_costs": np.ones(N), "cost_limit": 0.5}, "0 rows that cost less than"),
        ({"exclude": range(N)}, "0 rows may be chosen"),
        (
            {"groups": np.arange(N), "group_min": {3: 1}, "exclude": [3]},
            "group_min asks for 1 rows of the group of row 3, of which 0 may be",
        ),
    ],
)
def test_wishes_that_no_budget_meets_are_refused(wishes, message):
    with pytest.raises(InputError, match=message):
        sizes_to_try(row_wishes(N, **wishes), N)


def test_auto_is_refused_where_it_means_nothing(data):
    x, y = data
    given = {"budget": "auto", "lambda_": 0.0, "key": KEY}
    with pytest.raises(InputError, match="validation, which has 1 row"):
        gx.goracs(x, y[:1], **given)
    with pytest.raises(InputError, match="all weight is in one half"):
        gx.goracs(x, y, valid_weights=np.arange(M) == 3, **given)
    with pytest.raises(InputError, match="budget auto is not for classes"):
        gx.goracs(x, y, train_labels=np.zeros(N, int), **given)
    with pytest.raises(InputError, match="method itra cannot heed wishes"):
        gx.goracs(x, y, method="itra", include=[0], **given)
