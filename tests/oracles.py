"""The dumbest correct code for each number: loops, enumeration, generic solvers."""

from itertools import combinations

import numpy as np
import ot
from scipy.optimize import linprog


def cost_matrix(x, y, g=None, lambda_=0.0) -> np.ndarray:
    """C_ij = D_ij / max(D) - lambda g_i / max(g), entry by entry in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    d = np.array([[np.sqrt(((xi - yj) ** 2).sum()) for yj in y] for xi in x])
    reward = np.zeros(len(x)) if g is None else lambda_ * np.asarray(g) / np.max(g)
    return d / d.max() - reward[:, None]


def transport(cost) -> float:
    """OT between uniform measures as a linear programme, by a generic solver."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    result = linprog(
        cost.ravel(),
        A_eq=np.concatenate([rows, columns]),
        b_eq=np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)]),
    )
    return result.fun


def poo(cost, indices) -> float:
    """POO of a subset by POT."""
    rows = cost[np.asarray(indices)]
    n, m = rows.shape
    low = rows.min()  # POT refuses strongly negative costs
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    return ot.emd2(a, b, rows - low, numItermax=10**7) + low


def best_poo(cost, budget) -> float:
    """The least POO over all subsets, by enumeration."""
    return min(poo(cost, s) for s in combinations(range(len(cost)), budget))


def greedy(cost, budget) -> list[int]:
    """The textbook double loop: n times over all rows, the first of the best wins."""
    nearest, chosen = np.ones(cost.shape[1]), []
    for _ in range(budget):
        best, best_gain = None, -np.inf
        for row in range(len(cost)):
            gain = np.maximum(nearest - cost[row], 0).sum()
            if row not in chosen and gain > best_gain:
                best, best_gain = row, gain
        chosen.append(best)
        nearest = np.minimum(nearest, cost[best])
    return chosen


def relaxed_poo(cost, budget) -> float:
    """min <P, C> with row masses in [0, 1/n], by a generic solver."""
    n_train, n_valid = cost.shape
    return linprog(
        cost.ravel(),
        A_ub=np.kron(np.eye(n_train), np.ones(n_valid)),
        b_ub=np.full(n_train, 1 / budget),
        A_eq=np.kron(np.ones(n_train), np.eye(n_valid)),
        b_eq=np.full(n_valid, 1 / n_valid),
    ).fun


def strongly_relaxed_poo(cost, budget) -> float:
    """min <P, C> where row i is a share z_i in [0, 1] of a chosen one, sum z = n.

    Its mass is z_i / n, of which a column gets z_i min(1/n, 1/M) at most.
    """
    n_train, n_valid = cost.shape
    most = min(1 / budget, 1 / n_valid)
    shares = np.kron(np.eye(n_train), np.ones((n_valid, 1)))
    zeros = np.zeros((n_valid, n_train))
    return linprog(
        np.append(cost.ravel(), np.zeros(n_train)),
        A_ub=np.hstack([np.eye(cost.size), -most * shares]),
        b_ub=np.zeros(cost.size),
        A_eq=np.vstack([
            np.hstack([np.kron(np.ones(n_train), np.eye(n_valid)), zeros]),
            np.hstack([
                np.kron(np.eye(n_train), np.ones(n_valid)), -np.eye(n_train) / budget
            ]),
            np.append(np.zeros(cost.size), np.ones(n_train))[None],
        ]),
        b_eq=np.concatenate(
            [np.full(n_valid, 1 / n_valid), np.zeros(n_train), [budget]]
        ),
        bounds=[(0, None)] * cost.size + [(0, 1)] * n_train,
    ).fun  # fmt: skip


def rank(distances, titles, target) -> int:
    """Candidates strictly closer than the best occurrence of a title."""
    best = np.inf
    for distance, title in zip(distances, titles, strict=True):
        if title == target and distance < best:
            best = distance
    closer = 0
    for distance in distances:
        if distance < best:
            closer += 1
    return closer


def weighted_poo(cost, indices, weights) -> float:
    """POO of a subset by POT, where validation points have weights."""
    rows = cost[np.asarray(indices)]
    low = rows.min()
    a, b = np.full(len(rows), 1 / len(rows)), np.asarray(weights, float)
    return ot.emd2(a, b / b.sum(), rows - low, numItermax=10**7) + low


def meets_wishes(
    x,
    subset,
    *,
    include=(),
    exclude=(),
    trained=(),
    row_costs=None,
    cost_limit=None,
    groups=None,
    group_min=None,
    group_max=None,
    apart=0.0,
) -> bool:
    """Whether a subset meets all wishes, one after the other."""
    count = lambda group: sum(groups[i] == group for i in subset)
    others = lambda i: [j for j in (*subset, *trained) if j != i]
    return (
        all(i in subset for i in include)
        and not any(i in subset for i in (*exclude, *trained))
        and (row_costs is None or sum(row_costs[i] for i in subset) <= cost_limit)
        and all(count(group) >= least for group, least in (group_min or {}).items())
        and all(count(group) <= most for group, most in (group_max or {}).items())
        and all(np.linalg.norm(x[i] - x[j]) >= apart for i in subset for j in others(i))
    )
