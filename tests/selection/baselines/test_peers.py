"""Each published method against a plain loop that follows its paper or its code."""

import jax
import numpy as np
import oracles
import ot
import pytest
from instances import instance
from scipy.linalg import eigh
from scipy.optimize import linprog

from goracs_jax import goracs, tarot_budget, unit_rows
from goracs_jax.cost import exact_cost, make_cost, with_tiling
from goracs_jax.errors import InputError
from goracs_jax.selection.baselines import tarot, tsds, unbalanced
from goracs_jax.selection.method import METHODS, Gist, Tsds, UnbalancedOT
from goracs_jax.selection.problem import Problem

KEY = jax.random.key(0)
PEERS = ("doubly-greedy", "gist", "less", "rds", "tarot", "tsds", "unbalanced-ot")


@pytest.fixture(params=[False, True])
def small_blocks(request):
    """Whether blocks have a few rows only, and no matrix is kept."""
    return request.param


def problem_of(x, y, small=False):
    cost = make_cost(x, y)
    sizes = {"block_entries": 60, "matrix_entries": 60} if small else {}
    return Problem(with_tiling(cost, **sizes))


def cosines(x, y):
    """Entry by entry."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    norm = lambda v: np.sqrt((v * v).sum())
    return np.array([[(a * b).sum() / norm(a) / norm(b) for b in y] for a in x])


def distances(problem):
    """D / max(D) in float64."""
    return exact_cost(problem.cost, np.arange(problem.cost.shape[0]))


@pytest.mark.parametrize("method", ["less", "rds"])
@pytest.mark.parametrize(("budget", "n_valid"), [(1, 7), (9, 7), (30, 7), (5, 40)])
def test_less_is_a_round_robin_by_cosine(method, budget, n_valid, small_blocks):
    case = instance(30, n_valid, seed=1)
    similar, taken = cosines(case.x, case.y), []
    for turn in range(budget):
        order = (-similar[:, turn % n_valid]).argsort()
        taken.append(next(row for row in order if row not in taken))
    problem = problem_of(unit_rows(case.x), unit_rows(case.y), small_blocks)
    found = METHODS[method].choose(problem, budget, key=KEY)
    assert found.indices.tolist() == sorted(taken)


@pytest.mark.parametrize("budget", [1, 9, 30])
def test_doubly_greedy_ranks_by_the_largest_cosine(budget):
    case = instance(30, 7, seed=2)
    best = [max(row) for row in cosines(case.x, case.y)]
    ranked = sorted(range(30), key=lambda row: -best[row])
    problem = problem_of(unit_rows(case.x), unit_rows(case.y))
    found = METHODS["doubly-greedy"].choose(problem, budget, key=KEY)
    assert set(found.indices) == set(ranked[:budget])


def near_duplicates(n_train, n_valid):
    """Rows of which some are nearly the same."""
    case = instance(n_train, n_valid, seed=3)
    x = case.x.copy()
    x[1:4] = x[0] + np.array([[0.05], [0.1], [0.2]], np.float32)
    return x, case.y


def kernel_counts(x, bandwidth, longest):
    """The near duplicates of every row, itself included, each weighed by nearness."""
    counts = []
    for a in x.astype(np.float64):
        shares = [np.sqrt(((a - b) ** 2).sum()) / longest / bandwidth for b in x]
        counts.append(sum(1 - s**2 for s in shares if s < 1))
    return np.array(counts)


def transported(d, rho, method):
    """TSDS's objective as a linear programme: P by column, and t = M max rho_i P_ij."""
    n, m = d.shape
    costs = np.append(method.alpha / method.scale * d.T.ravel(), 1 - method.alpha)
    capped = np.hstack([np.diag(m * np.tile(rho, m)), -np.ones((n * m, 1))])
    solved = linprog(
        costs,
        A_ub=capped,
        b_ub=np.zeros(n * m),
        A_eq=np.hstack([np.kron(np.eye(m), np.ones(n)), np.zeros((m, 1))]),
        b_eq=np.full(m, 1 / m),
    )
    return solved.x[:-1].reshape(m, n).sum(0)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("length", [1, 3, 32])
def test_masses_of_tsds_are_those_of_its_programme(alpha, length):
    """Whatever number of neighbours is listed at first."""
    x, y = near_duplicates(12, 4)
    problem, method = problem_of(x, y), Tsds(alpha=alpha, scale=0.4)
    rho = kernel_counts(x, method.bandwidth, float(problem.cost.distance_scale))
    assert rho[0] > 3  # near duplicates
    found = tsds.masses(problem.cost, method, length)
    # float32 of distances and densities; HiGHS stops at 1e-7.
    np.testing.assert_allclose(
        found, transported(distances(problem), rho, method), atol=1e-5
    )


@pytest.mark.parametrize("bandwidth", [0.05, 0.375, 3.0])
def test_density_of_tsds(bandwidth, small_blocks):
    x, y = near_duplicates(30, 7)
    problem = problem_of(x, y, small_blocks)
    rows = np.array([0, 2, 29])
    counts = kernel_counts(x, bandwidth, float(problem.cost.distance_scale))
    # 1 - d^2 of up to 30 rows in float32, whose products cancel: 1e-6 of (3 / 0.05)^2.
    np.testing.assert_allclose(
        tsds.densities(problem.cost, rows, bandwidth), counts[rows], atol=4e-3
    )


def test_tsds_draws_by_mass():
    x, y = near_duplicates(12, 4)
    problem, method = problem_of(x, y), Tsds(scale=0.4)
    mass = tsds.masses(problem.cost, method)
    draws = [
        method.choose(problem, 1, key=key).indices[0]
        for key in jax.random.split(KEY, 400)
    ]
    shares = np.bincount(draws, minlength=12) / 400
    # Four standard deviations of a share of 400 draws.
    np.testing.assert_allclose(shares, mass, atol=4 * np.sqrt(0.25 / 400))
    assert not shares[mass == 0].any()


def test_tsds_goes_on_with_the_nearest():
    case = instance(30, 4, seed=4)
    problem, method = problem_of(case.x, case.y), Tsds(alpha=1.0)
    mass = tsds.masses(problem.cost, method)
    assert 0 < (mass > 0).sum() <= 4
    order = np.lexsort((distances(problem).min(1), mass == 0))
    found = method.choose(problem, 12, key=KEY)
    assert set(found.indices) == set(order[:12])


@pytest.mark.parametrize(("reg", "relax"), [(0.01, 1e-4), (0.05, 0.02), (0.1, 1.0)])
def test_masses_of_unbalanced_transport_are_pots(reg, relax, small_blocks):
    case = instance(30, 7, seed=5)
    problem = problem_of(case.x, case.y, small_blocks)
    u, v = np.full(30, 1 / 30), np.full(7, 1 / 7)
    plan = ot.unbalanced.sinkhorn_unbalanced(
        u, v, distances(problem) ** 2, reg, (relax, np.inf), numItermax=10**5,
        stopThr=1e-12,
    )  # fmt: skip
    logs = unbalanced.log_masses(problem.cost, reg, relax / (relax + reg))
    # Exponents of up to 1 / reg in float32, and the tolerance of the iterations.
    np.testing.assert_allclose(np.exp(logs), plan.sum(1), rtol=1e-3, atol=1e-12)
    method = UnbalancedOT(regularisation=reg, relaxation=relax)
    found = method.choose(problem, 6, key=KEY)
    assert set(found.indices) == set(np.argsort(-plan.sum(1))[:6])


def taken_in_layers(d, budget):
    """The released loop: whole layers, then the largest potentials of the next."""
    ranks, taken = d.argsort(axis=0, kind="stable"), set()
    for layer in ranks:
        if len(taken) == budget:
            break
        new = sorted(set(layer.tolist()) - taken)
        if len(taken) + len(new) > budget:
            costs = d[new]
            a, b = (np.full(size, 1 / size) for size in costs.shape)
            with np.errstate(over="ignore"):  # of the scalings, which are not read
                _, log = ot.sinkhorn(
                    a, b, costs, 1e-3 * np.ptp(costs), method="sinkhorn_log",
                    numItermax=10**5, stopThr=1e-9, log=True,
                )  # fmt: skip
            order = np.argsort(-np.asarray(log["log_u"]))
            return taken | {new[place] for place in order[: budget - len(taken)]}
        taken |= set(new)
    return taken


@pytest.mark.parametrize(
    ("n_valid", "budget"), [(5, 1), (5, 3), (5, 12), (5, 30), (40, 4), (1, 7)]
)
def test_tarot_takes_layers(n_valid, budget, small_blocks):
    case = instance(30, n_valid, seed=6)
    problem = problem_of(case.x, case.y, small_blocks)
    found = METHODS["tarot"].choose(problem, budget, key=KEY)
    assert set(found.indices) == taken_in_layers(distances(problem), budget)


def test_layers_of_tarot(small_blocks):
    case = instance(30, 7, seed=7)
    problem = problem_of(case.x, case.y, small_blocks)
    ranks = distances(problem).argsort(axis=0).argsort(axis=0)
    layer = np.minimum(ranks.min(1), 4) + 1
    assert tarot.layers(problem.cost, 4).tolist() == layer.tolist()
    assert tarot.layers(problem.cost, 30).tolist() == (ranks.min(1) + 1).tolist()


@pytest.mark.parametrize(("n_train", "n_valid", "folds"), [(60, 30, 3), (9, 12, 12)])
def test_tarot_chooses_n(n_train, n_valid, folds):
    case = instance(n_train, n_valid, seed=8)
    x, y = case.x.astype(np.float64), case.y.astype(np.float64)
    d = np.sqrt(((x[:, None] - y) ** 2).sum(-1))
    order, taken = np.asarray(jax.random.permutation(KEY, n_valid)), set()
    for fold in np.array_split(order, folds):
        others = [j for j in range(n_valid) if j not in fold]
        best, kept = np.inf, set()
        for k in range(1, n_train + 1):
            nearest = {(i, j) for j in fold for i in d[:, j].argsort()[:k]}
            rows = sorted({i for i, j in nearest if x[i] @ y[j] > 0})
            value = oracles.poo(d[:, others], rows) if rows else np.inf
            if value >= best:
                break
            best, kept = value, set(rows)
        taken |= kept
    assert 1 < len(taken) < n_train
    assert tarot_budget(case.x, case.y, folds=folds, key=KEY) == len(taken)


@pytest.mark.parametrize("folds", [1, 31])
def test_folds_out_of_range(folds):
    case = instance(60, 30, seed=8)
    with pytest.raises(InputError, match=rf"folds .* in \[2, 30\].* got {folds}"):
        tarot_budget(case.x, case.y, folds=folds, key=KEY)


def test_tarot_stops_where_nothing_is_similar():
    x, y = np.array([[-1.0, 0.0], [-1.0, 0.1]]), np.array([[1.0, 0.0], [0.9, 0.1]])
    assert tarot_budget(x, y, folds=2, key=KEY) == 1


def gist_scores(x, y, energy):
    """By the Gram matrix of the validation rows, as the released code."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    gram = np.array([[(a * b).sum() for b in y] for a in y])
    values, u = (part[..., ::-1] for part in eigh(gram))
    k = 1
    while values[:k].sum() < energy * values.sum():
        k += 1
    k = max(k, 2)
    project = (y.T @ u[:, :k]) / np.sqrt(values[:k])
    return cosines(x @ project, [np.mean(y @ project, axis=0)])[:, 0]


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gist_is_the_cosine_in_the_leading_directions(energy, dtype, small_blocks):
    case = instance(40, 9, seed=9, dim=6)
    x, y = case.x.astype(dtype), (case.y + 1).astype(dtype)
    ranked = np.argsort(-gist_scores(x, y, energy))
    found = Gist(energy=energy).choose(problem_of(x, y, small_blocks), 6, key=KEY)
    assert set(found.indices) == set(ranked[:6])


def test_inside_classes_gist_has_a_target_for_each():
    case = instance(40, 12, seed=10, dim=6)
    train, valid = np.arange(40) % 2, np.arange(12) % 2
    found = goracs(
        case.x, case.y, case.g, budget=8, key=KEY, method="gist",
        train_labels=train, valid_labels=valid,
    )  # fmt: skip
    expected = set()
    for c in (0, 1):
        mine = np.flatnonzero(train == c)
        scores = gist_scores(case.x[mine], case.y[valid == c], 0.99)
        expected |= set(mine[np.argsort(-scores)[:4]])
    assert set(found.indices) == expected


@pytest.mark.parametrize("method", PEERS)
def test_the_scale_of_the_reward_changes_nothing(method):
    """Lengths are those of max(D), also where C is in units of the median."""
    case = instance(40, 7, seed=14)
    found = [
        goracs(
            *case[:3], budget=6, lambda_=0.3, key=KEY, method=method, scale=scale
        ).indices
        for scale in ("max", "median")
    ]
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("method", PEERS)
@pytest.mark.parametrize(("n_train", "n_valid"), [(7, 3), (3, 7), (1, 1), (6, 1)])
@pytest.mark.parametrize("dim", [1, 4])
def test_small_and_odd_problems(method, n_train, n_valid, dim):
    """One row, all rows, more validation than training rows, one dimension."""
    case = instance(n_train, n_valid, seed=11, dim=dim)
    x = case.x.copy()
    x[-1] = x[0]  # a duplicate, where there are two rows
    for budget in {1, n_train}:
        found = METHODS[method].choose(problem_of(x, case.y), budget, key=KEY)
        assert len(set(found.indices) & set(range(n_train))) == budget


@pytest.mark.parametrize(
    "method",
    [Tsds(alpha=0.0), Tsds(scale=0.0), Tsds(bandwidth=-1.0), Gist(energy=1.1),
     UnbalancedOT(regularisation=1e-4), UnbalancedOT(relaxation=0.0)],
)  # fmt: skip
def test_settings_out_of_range(method):
    with pytest.raises(InputError, match=r"must be"):
        method.choose(instance(9, 4, seed=0).problem, 2, key=KEY)


def test_neighbours_that_do_not_fit_into_memory():
    case = instance(40, 4, seed=12)
    problem = problem_of(case.x, case.y, small=True)
    with pytest.raises(InputError, match=r"tsds spreads .* give a larger alpha"):
        Tsds(alpha=1e-6).choose(problem, 2, key=KEY)


def test_rewards_decide_whatever_lambda_is():
    case = instance(40, 7, seed=13)
    best = set(case.rewards.argsort()[-6:])
    for method in ("loss-drop", "alignment"):
        for lambda_ in (0.0, 0.3):
            found = goracs(
                case.x, case.y, rewards=case.rewards, budget=6, lambda_=lambda_,
                key=KEY, method=method,
            )  # fmt: skip
            assert set(found.indices) == best
