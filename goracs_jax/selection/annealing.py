r"""Stage 3: out of the local minimum, region by region.

Group exchange stops where no assignment of rows to the present groups is cheaper. To
go on, the slots are cut into regions of a few neighbours. A region keeps the validation
mass that its slots carry, so it is a small problem of its own, and what it gains is
gained by the whole: all regions can be searched at once.

Inside a region one move replaces a slot's row by a candidate, solves the small
transport exactly, and repairs by group exchange. It is accepted if it costs at most
T log(1 / u) more, u uniform in (0, 1) (simulated annealing: Kirkpatrick et al., 1983).
After every round one transport of n x M redistributes the mass between regions, and
new regions are drawn. T falls linearly to zero.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from goracs_jax.cost import Cost, cost_rows
from goracs_jax.selection.group_exchange import slot_candidates
from goracs_jax.selection.problem import Problem, Step, solve
from goracs_jax.transport import exact_plan

# Found by trial on 15,000 x 5,000, n = 1,000, mostly at lambda 0.1.
REGION = 16  # slots
MOVES = 40  # a region and round
ROUNDS = 28
COOL = 24  # T is zero from this round on
CANDIDATES = 12  # rows a slot and round
POOL_DEPTH = 64  # rows a slot that the pool is made of
POOL_ENTRIES = 1 << 28  # 1 GiB of float32
FAR = 1e6  # beyond every cost, and finite: 0 times infinity is no number
# The unit of costs is the gap between a slot's first and last candidate of a round.
HEAT = 0.2  # the first T
HOPELESS = 1.5  # a move that costs more is not repaired


def anneal(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    *,
    key: jax.Array,
    started: float,
) -> tuple[Int[np.ndarray, " budget"], tuple[Step, ...]]:
    """Search regions of slots, all with falling temperature, and keep the best subset.

    Args:
        problem: The cost and the transport solver.
        rows: The subset to start from, distinct, shape [n].
        key: Draws regions and moves.
        started: `time.perf_counter()` that the trace counts from.

    Returns:
        The best subset seen, and a step for every round that found a better one.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> problem, start = Problem(make_cost(x, x)), np.array([0, 5])
    >>> rows, _ = anneal(problem, start, key=jax.random.key(0), started=0.0)
    >>> sorted(rows.tolist())
    [1, 4]
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    valid = np.asarray(problem.cost.valid)
    _, held = solve(problem.cost, rows, problem.solver)
    best, trace = (held.value, rows), []
    pool = candidate_pool(problem.cost, held.plan, rows)
    if len(pool) == len(rows):  # every row is chosen
        return rows, ()
    columns_cost = np.ascontiguousarray(np.asarray(cost_rows(problem.cost, pool)).T)
    current = np.searchsorted(pool, rows)
    k = min(CANDIDATES, len(pool) - len(rows)) - 1
    for round_ in range(ROUNDS):
        plan = csr_array(held.plan, dtype=np.float32)
        value = plan @ columns_cost  # Q of the pool's rows, shape [n, pool]
        value[:, current] = np.inf  # candidates are free rows
        candidates = np.argpartition(value, k, 1)[:, : k + 1]
        value = np.take_along_axis(value, candidates, 1)
        gap = float(np.median(np.ptp(value, 1)))
        temperature = HEAT * gap * max(0.0, 1 - round_ / COOL)
        current = current.copy()
        taken = set(current.tolist())
        for slots in regions(plan @ valid, rng):
            mine = current[slots]
            # A region before this one may have taken some.
            free = set(candidates[slots].ravel().tolist()) - taken
            near = np.array([*mine, *sorted(free)])
            mass = held.plan[slots].sum(0)
            columns = np.flatnonzero(mass)
            local = columns_cost[np.ix_(columns, near)].T.astype(np.float64)
            found = search_region(
                local, len(slots), mass[columns], gap, temperature, rng
            )
            current[slots] = near[found]
            taken = (taken - set(mine.tolist())) | set(current[slots].tolist())
        rows = pool[current]
        _, held = solve(problem.cost, rows, problem.solver, g=held.g)
        if held.value < best[0]:
            replaced = len(np.setdiff1d(rows, best[1]))
            best = held.value, rows
            trace.append(Step(held.value, time.perf_counter() - started, replaced))
    return best[1], tuple(trace)


def candidate_pool(
    cost: Cost,
    plan: Float[np.ndarray, "budget valid"],
    rows: Int[np.ndarray, " budget"],
) -> Int[np.ndarray, " pool"]:
    """The rows to search among: the best few for every slot, by one pass over all.

    Args:
        cost: C as factors.
        plan: P, shape [n, M].
        rows: The present subset.

    Returns:
        Sorted row numbers, the present ones among them: as many as their part of C,
        POOL_ENTRIES numbers at most beside the subset's own, has room for.
    """
    n_train, n_valid = cost.shape
    k = max(1, POOL_ENTRIES // (len(rows) * n_valid))
    k = min(k, POOL_DEPTH, n_train - len(rows))
    if k == 0:
        return np.sort(rows)
    # The present rows would fill the lists of their neighbours.
    free = cost._replace(reward=jnp.asarray(cost.reward).at[rows].add(-FAR))
    _, candidates = slot_candidates(free, jnp.asarray(plan, jnp.float32), k)
    return np.union1d(np.asarray(candidates), rows)


def regions(
    centroids: Float[np.ndarray, "budget dim"], rng: np.random.Generator
) -> list[Int[np.ndarray, " slots"]]:
    """Cut the slots into regions of neighbours, around slots in random order.

    >>> points = np.arange(2.0 * REGION)[:, None]
    >>> [len(r) for r in regions(points, np.random.default_rng(0))] == [REGION, REGION]
    True
    """
    free = np.arange(len(centroids))
    cut = []
    for seed in rng.permutation(len(centroids)):
        if seed not in free:
            continue
        away = ((centroids[free] - centroids[seed]) ** 2).sum(1)
        order = np.argsort(away, kind="stable")
        cut.append(free[order[:REGION]])
        free = free[np.sort(order[REGION:])]
    return cut


def search_region(
    cost: Float[np.ndarray, "pool columns"],
    slots: int,
    mass: Float[np.ndarray, " columns"],
    gap: float,
    temperature: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, " slots"]:
    """Anneal one region: its slots start with the first rows of the pool.

    Args:
        cost: C of the rows that may be chosen and the columns that the region carries.
        slots: How many rows to choose.
        mass: What it carries of each column.
        gap: The unit of costs: see HOPELESS.
        temperature: T, in the units of POO.
        rng: Draws moves.

    Returns:
        The rows chosen, numbers within the pool, one a slot.
    """
    pool = len(cost)
    rows_mass = np.full(slots, mass.sum() / slots)
    current = np.arange(slots)
    if pool == slots:
        return current
    _, held = exact_plan(cost[current], rows_mass, mass)
    for _ in range(MOVES):
        row = rng.integers(pool)
        slot, limit = rng.integers(slots), temperature * -np.log(1 - rng.random())
        if row in current:
            continue
        new = current.copy()
        new[slot] = row
        plan, value = exact_plan(cost[new], rows_mass, mass)
        while value < held + HOPELESS * gap:
            _, assigned = linear_sum_assignment(plan @ cost.T)
            repaired, lower = exact_plan(cost[assigned], rows_mass, mass)
            if lower >= value - 1e-12:
                break
            new, plan, value = assigned, repaired, lower
        if value < held + limit and set(new) != set(current):
            current, held = new, value
    return current
