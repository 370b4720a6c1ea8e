"""What is wished for: enumeration of all subsets of small instances is the oracle."""

from itertools import combinations, islice

import jax
import numpy as np
import oracles
import pytest

import goracs_jax as gx
from goracs_jax.cost import make_cost
from goracs_jax.errors import InputError
from goracs_jax.selection.bound import dual_bound
from goracs_jax.selection.method import Goracs, GroupExchange, SimulatedAnnealing
from goracs_jax.selection.wishes import make_wishes, meets, total
from goracs_jax.selection.wishes.feasible import check_wishes, feasible_rows

N, M, BUDGET = 10, 7, 3
KINDS = ("include", "exclude", "weights", "costs", "groups", "apart", "trained")
PAIRS = list(combinations(KINDS, 2))
KEY = jax.random.key(0)
# All stages, each short, with the same shapes for all wishes: few programs compile.
SHORT = Goracs(
    name="short",
    annealing=SimulatedAnnealing(starts=3, epochs=3, sweeps=12, gap=0.0, pool_sizes=1),
    exchange=GroupExchange(halvings=0),
)
# Wishes that ask for nothing.
NEUTRAL = {
    "include": [],
    "exclude": [],
    "trained": [],
    "row_costs": np.ones(N),
    "cost_limit": N,
    "groups": np.arange(N) % 3,
    "group_max": {0: N},
}


def instance(kinds, seed):
    """Embeddings, norms, and wishes of some kinds as arguments of `goracs`."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(N, 2)), rng.normal(size=(M, 2))
    rows = rng.permutation(N)
    wishes = {}
    if "weights" in kinds:
        wishes["valid_weights"] = rng.permutation([0.0, 1, 1, 2, 2, 3, 3.5])
    if "include" in kinds:
        wishes["include"] = rows[:1]
    if "exclude" in kinds:
        wishes["exclude"] = rows[1:3]
    if "trained" in kinds:
        wishes["trained"] = rows[3:5]
    if "costs" in kinds:
        whole = seed % 2 == 0
        costs = rng.integers(1, 20, N) if whole else 10 * rng.exponential(size=N)
        limit = np.sort(costs)[:BUDGET].sum() * rng.uniform(0.9, 2.5)
        wishes |= {
            "row_costs": costs,
            "cost_limit": np.floor(limit) if whole else limit,
        }
    if "groups" in kinds:
        groups = np.arange(N) % 3
        least, most = rng.choice(3, 2, replace=False).tolist()
        wishes |= {
            "groups": groups,
            "group_min": {least: int(rng.integers(1, 4))},
            "group_max": {most: int(rng.integers(0, 2))},
        }
    if "apart" in kinds:
        lengths = [np.linalg.norm(a - b) for a, b in combinations(x, 2)]
        wishes["apart"] = np.quantile(lengths, rng.uniform(0.05, 0.5))
    return x, y, rng.gamma(3.0, size=N), wishes


def feasible(kinds):
    """Instances whose wishes some subset meets."""
    cases = (instance(kinds, seed) for seed in range(1000))
    return (case for case in cases if subsets(case[0], case[3]))


def met(kinds, count):
    return [*islice(feasible(kinds), count)]


def subsets(x, wishes):
    """All subsets that meet the wishes."""
    asked = {k: v for k, v in wishes.items() if k != "valid_weights"}
    return [
        s for s in combinations(range(N), BUDGET) if oracles.meets_wishes(x, s, **asked)
    ]


def values_of(x, y, g, lambda_, wishes):
    """POO of all subsets that meet the wishes."""
    cost = oracles.cost_matrix(x, y, g, lambda_)
    weights = wishes.get("valid_weights", np.ones(M))
    done = [*wishes.get("trained", ())]
    possible = subsets(x, wishes)
    return {s: oracles.weighted_poo(cost, [*s, *done], weights) for s in possible}


def made(x, y, g, lambda_, wishes):
    """The cost and the wishes of the engine."""
    asked = {k: v for k, v in wishes.items() if k != "valid_weights"}
    weights = wishes.get("valid_weights")
    cost = make_cost(x, y, g, lambda_, valid_weights=weights)
    return cost, make_wishes(cost, **asked)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), *PAIRS, KINDS])
def test_any_prices_bound_all_subsets_that_meet_the_wishes(kinds):
    for seed, case in enumerate(met(kinds, 3)):
        least = min(values_of(*case[:3], 0.2, case[3]).values())
        cost, wishes = made(*case[:3], 0.2, case[3])
        g = np.random.default_rng(seed).normal(size=M) / 10
        n = total(wishes, BUDGET)
        # Prices near the optimum bound well, and random ones bound, too.
        assert dual_bound(cost, g, n, wishes) <= least
        assert dual_bound(cost, np.zeros(M), n, wishes) <= least


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), *PAIRS, KINDS])
def test_a_subset_is_found_if_there_is_one(kinds):
    cases = [*met(kinds, 2), *(instance(kinds, seed) for seed in range(5))]
    for seed, (x, y, g, asked) in enumerate(cases):
        possible = subsets(x, asked)
        rng = np.random.default_rng(seed)
        try:
            _, wishes = made(x, y, g, 0.2, asked)
            if wishes is None:
                return  # weights alone
            check_wishes(wishes, BUDGET)
            rows = feasible_rows(wishes, rng.random(N), total(wishes, BUDGET))
        except InputError:
            assert not possible
            continue
        new = np.setdiff1d(rows, asked.get("trained", []))
        assert tuple(new.tolist()) in possible
        assert meets(wishes, rows)


@pytest.mark.parametrize("seed", range(4))
def test_meets_is_the_plain_loop(seed):
    x, y, g, asked = instance(KINDS[:6], seed)
    _, wishes = made(x, y, g, 0.2, asked)
    for subset in combinations(range(N), BUDGET):
        plain = {k: v for k, v in asked.items() if k != "valid_weights"}
        assert meets(wishes, np.array(subset)) == oracles.meets_wishes(
            x, subset, **plain
        )


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), *PAIRS, KINDS])
def test_the_search_finds_the_best_subset_and_its_bound_holds(kinds):
    x, y, g, asked = next(c for c in feasible(kinds) if near_pairs(c) in (None, 6))
    values = values_of(x, y, g, 0.2, asked)
    given = {"budget": BUDGET, "lambda_": 0.2, "key": KEY, **NEUTRAL, **asked}
    found = gx.goracs(x, y, g, method=SHORT, **given)
    best = min(values.values())
    assert found.objective == pytest.approx(best, abs=1e-6)
    assert values[tuple(found.indices.tolist())] == pytest.approx(best, abs=1e-6)
    assert best - 0.05 < found.lower_bound <= best
    for method in ("greedy", "random"):
        found = gx.goracs(x, y, g, method=method, **given)
        value = values[tuple(found.indices.tolist())]
        assert found.objective == pytest.approx(value, abs=1e-6)


def near_pairs(case):
    """The number of near pairs that are left, on which shapes depend."""
    x, y, g, asked = case
    return None if "apart" not in asked else len(made(x, y, g, 0.2, asked)[1].near)


ROOTS = np.sqrt(np.arange(1, N + 1))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"include": [0], "exclude": [0]}, "include and exclude both have row 0"),
        ({"include": [N]}, f"include has row {N}, and there are {N} training rows"),
        ({"include": [0.5]}, "include must be row numbers"),
        ({"include": [0, 1, 2, 3]}, "4 rows must be in, the budget is 3"),
        ({"exclude": range(8)}, "2 rows may be chosen, the budget is 3"),
        ({"trained": range(8)}, "2 rows may be chosen, the budget is 3"),
        ({"row_costs": np.ones(N)}, "row costs and a cost limit together"),
        (
            {"row_costs": np.ones(N), "cost_limit": 2.0},
            "cheapest 3 rows cost 150 % of the cost limit",
        ),
        (
            {"row_costs": np.arange(1.0, N + 1), "cost_limit": 6.0, "include": [3]},
            "cheapest 3 rows that meet the other wishes cost 116.7 % of the cost limit",
        ),
        (
            {"row_costs": ROOTS, "cost_limit": float(ROOTS[:3].sum())},
            "all of the cost limit, and costs of more than 6 decimals are rounded up",
        ),
        ({"row_costs": -np.ones(N), "cost_limit": 2.0}, "row costs are negative"),
        ({"row_costs": np.ones(N), "cost_limit": 0.0}, "must be a number above 0"),
        ({"group_min": {"a": 1}}, "give groups"),
        ({"groups": np.arange(N)}, "neither least nor most"),
        ({"groups": np.arange(N), "group_min": {99: 1}}, "group 99, which no row has"),
        ({"groups": np.arange(N), "group_min": {1: 2}}, "of which 1 may be chosen"),
        ({"groups": np.zeros(N, int), "group_max": {0: 2}}, "group_max leaves 2 rows"),
        (
            {"groups": np.arange(N) % 2, "group_min": {0: 2, 1: 2}},
            "ask for 4 rows, the budget is 3",
        ),
        ({"apart": 1e9}, "at most 1 rows are as far apart"),
        ({"apart": -1.0}, "apart must be a distance above 0"),
        ({"valid_weights": np.zeros(M)}, "all validation weights are zero"),
        ({"valid_weights": np.ones(M + 1)}, f"the validation embeddings {M} rows"),
    ],
)
def test_wishes_that_cannot_be_met_are_one_line(wishes, message):
    x, y, _, _ = instance((), 0)
    with pytest.raises(InputError, match=message):
        gx.goracs(x, y, budget=BUDGET, lambda_=0.0, key=KEY, **wishes)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"cost_limit": float(ROOTS[1:4].sum())}, "are rounded up: raise it a little"),
        (
            {"cost_limit": 4.5},
            "cost 114.4 % of the cost limit: raise it",
        ),
        (
            {"cost_limit": 99.0, "groups": [0, 1, 1, 1], "group_max": {1: 2}},
            "no 3 rows",
        ),
    ],
)
def test_rows_that_are_apart_but_too_dear_are_told_from_others(wishes, message):
    """Only the last three rows are apart from each other; the first is cheap."""
    x = np.array([[0.0], [0.5], [-0.5], [9.0]])
    costs = np.append(0.1, ROOTS[1:4])
    given = {"lambda_": 0.0, "key": KEY, "apart": 0.7, "row_costs": costs}
    with pytest.raises(InputError, match=f"{message}.*apart"):
        gx.goracs(x, x, budget=3, **given, **wishes)


def test_a_method_that_cannot_heed_refuses():
    x, y, _, _ = instance((), 0)
    given = {"budget": BUDGET, "lambda_": 0.0, "key": KEY}
    with pytest.raises(InputError, match="method itra cannot heed wishes"):
        gx.goracs(x, y, method="itra", include=[0], **given)
    with pytest.raises(InputError, match="method k-center cannot heed weights"):
        gx.goracs(x, y, method="k-center", valid_weights=np.ones(M), **given)
    labels = {"train_labels": np.arange(N) % 2, "valid_labels": np.arange(M) % 2}
    with pytest.raises(InputError, match="label-aware selection cannot heed"):
        gx.goracs(x, y, include=[0], **labels, **given)


@pytest.mark.parametrize("name", ["grad-norm", "error", "loss-drop", "alignment"])
def test_rows_of_the_largest_scores_are_taken_within_the_wishes(name):
    (x, y, _, asked), (x2, y2, _, costly) = (
        met(("include", "exclude", "groups"), 1)[0],
        met(("costs", "apart", "trained"), 1)[0],
    )
    scores = np.random.default_rng(0).permutation(N) + 1.0
    given = {"grad_norms": scores, "errors": scores, "rewards": None}
    if name in ("loss-drop", "alignment"):
        given = {"rewards": scores}
    given |= {"budget": BUDGET, "lambda_": 0.0, "key": KEY, "method": name}
    found = gx.goracs(x, y, **given, **asked)
    possible = subsets(x, asked)
    assert tuple(found.indices.tolist()) in possible
    most = max(scores[list(s)].sum() for s in possible)
    assert scores[found.indices].sum() == most
    found = gx.goracs(x2, y2, **given, **costly)
    assert tuple(found.indices.tolist()) in subsets(x2, costly)


def test_a_sweep_heeds_wishes_as_one_selection_does():
    ((x, y, g, asked),) = met(("include", "groups", "weights"), 1)
    shared = {"key": KEY, "method": "greedy", **asked}
    found = gx.sweep(x, y, g, budgets=[3, 4], lambdas=[0.0, 0.2], **shared)
    for (n, lambda_), chosen in found.items():
        alone = gx.goracs(x, y, g, budget=n, lambda_=lambda_, **shared)
        assert (chosen.indices == alone.indices).all()
        assert chosen.objective == alone.objective


def test_equal_weights_change_nothing():
    x, y, g, _ = instance((), 0)
    given = {"budget": BUDGET, "lambda_": 0.2, "key": KEY, "method": SHORT}
    plain = gx.goracs(x, y, g, **given)
    equal = gx.goracs(x, y, g, valid_weights=np.full(M, 3.0), **given)
    assert (plain.indices == equal.indices).all()
    assert plain.objective == pytest.approx(equal.objective, abs=1e-9)


def test_a_weight_of_two_is_a_row_twice():
    x, y, g, _ = instance((), 1)
    given = {"budget": BUDGET, "lambda_": 0.2, "method": "greedy", "key": KEY}
    once = gx.goracs(x, y, g, valid_weights=[2, *np.ones(M - 1)], **given)
    twice = gx.goracs(x, np.concatenate([y[:1], y]), g, **given)
    assert (once.indices == twice.indices).all()
    assert once.objective == pytest.approx(twice.objective, abs=1e-7)
