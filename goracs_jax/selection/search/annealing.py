r"""Stage 3, the schedule: out of the local minimum by annealing pairs of slots.

Group exchange stops where no assignment of rows to the present groups is cheaper. Here
rows and groups change together, pair by pair (`pair_exchange`), while a temperature T
falls (simulated annealing: Kirkpatrick et al., 1983). T is in units of the least that
another choice of rows costs a pair after a quench at T = 0: so one schedule serves
every lambda and every scale of the embeddings.

The pairs see the validation mass in equal units. After every epoch the transport is
solved on the true masses, and its plan deals the units anew.
"""

import math
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import (
    Cost,
    centred_rows,
    cost_rows,
    exact_cost,
    map_rows,
    nearest_rows,
)
from goracs_jax.mesh import replicate
from goracs_jax.selection.problem import Problem, Step, solve
from goracs_jax.selection.search.pair_exchange import (
    DRAWN,
    Field,
    Slots,
    pairs_a_sweep,
    sweeps,
)
from goracs_jax.transport import Transport, exact

# Found by trial on 15,000 x 5,000, n = 1,000, lambda 0, 0.1 and 0.5.
LISTED = 16  # rows of least cost known of every validation point
EPOCHS = 15
SWEEPS = 2400  # an epoch, and at most 4 n
# Few slots freeze into different subsets: they are annealed so many times anew, and no
# more often than makes STARTED slots.
STARTS = 16
STARTED = 512
HOTTER = 16.0  # how much hotter every second start is: a gap may be a low step
# Larger problems get fewer sweeps and epochs, so that the time stays near theirs: so
# many entries of C are looked at in an epoch, and in the transports of all epochs.
LOOKED_AT = 40_000_000
TRANSPORTED = 75_000_000
FEWEST_EPOCHS = 5
HEAT = 0.27  # the first T, in units of the gap
COLD = 0.06  # T before the last epoch, at T = 0
DENSE_ENTRIES = 1 << 28  # C of the candidates is kept up to 1 GiB of float32
POOL_SIZES = 16  # to which the number of candidates is rounded up
UNEVEN = 0.05  # share of the validation mass that units may misplace


def anneal(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    *,
    key: jax.Array,
    started: float,
    effort: float = 1.0,
) -> tuple[Int[np.ndarray, " budget"], tuple[Step, ...]]:
    """Anneal pairs of slots and keep the best subset.

    Args:
        problem: The cost and the transport solver.
        rows: The subset to start from, distinct, shape [n].
        key: Draws units, pairs and moves.
        started: `time.perf_counter()` that the trace counts from.
        effort: Makes an epoch so many times as long.

    Returns:
        The best subset seen, and a step for the start and for every epoch that found a
        better one.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> problem, start = Problem(make_cost(x, x)), np.array([0, 5])
    >>> rows, _ = anneal(problem, start, key=jax.random.key(0), started=0.0)
    >>> sorted(rows.tolist())
    [1, 4]
    """
    n_train, _ = problem.cost.shape
    _, held = solve(problem.cost, rows, problem.solver)
    best = (held.value, rows)
    step = lambda value, new: Step(value, time.perf_counter() - started, new)
    trace = [step(held.value, 0)]
    if len(rows) == 1 or len(rows) == n_train:  # no pairs, or nothing to choose
        return rows, tuple(trace)
    pool, field = candidate_field(problem.cost, rows)
    starts = max(1, min(STARTS, STARTED // len(rows)))
    heats = HEAT * np.where(np.arange(starts) % 2, HOTTER, 1)
    for heat, start_key in zip(heats, jax.random.split(key, starts), strict=True):
        cooled = _cool(problem, rows, held, pool, field, heat, start_key, effort)
        for value, found in cooled:
            if value < best[0]:
                trace.append(step(value, len(np.setdiff1d(found, best[1]))))
                best = value, found
    return best[1], tuple(trace)


def _cool(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    held: Transport,
    pool: Int[np.ndarray, " pool"],
    field: Field,
    hottest: float,
    key: jax.Array,
    effort: float,
) -> Iterator[tuple[float, Int[np.ndarray, " budget"]]]:
    """POO and rows after every epoch of one cooling."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    mesh = problem.cost.tiling.mesh
    dealt = lambda: replicate(deal(problem, rows, held, rng), mesh)
    slots = Slots(replicate(np.searchsorted(pool, rows), mesh), dealt())
    epochs, length = plan_search(len(rows), problem.cost.shape[1])
    length = math.ceil(effort * length)
    quench_key, *epoch_keys = jax.random.split(key, 1 + epochs)
    slots, _, gap = sweeps(field, slots, jnp.zeros(length), quench_key)
    falling = np.linspace(hottest, COLD, (epochs - 1) * length)
    heat = np.nan_to_num(float(gap)) * falling
    schedule = jnp.float32(np.append(heat, np.zeros(length)).reshape(epochs, length))
    for epoch, (temperatures, epoch_key) in enumerate(
        zip(schedule, epoch_keys, strict=True)
    ):
        slots = slots._replace(units=dealt()) if epoch else slots
        slots, _, _ = sweeps(field, slots, temperatures, epoch_key)
        rows = pool[np.asarray(slots.rows)]
        _, held = solve(problem.cost, rows, problem.solver, held.g)
        yield held.value, rows


def plan_search(n: int, n_valid: int) -> tuple[int, int]:
    """How many epochs, and sweeps in each.

    >>> plan_search(1000, 5000), plan_search(1024, 22_000), plan_search(8, 100)
    ((15, 769), (5, 179), (15, 32))
    """
    epochs = min(EPOCHS, max(FEWEST_EPOCHS, TRANSPORTED // (n * n_valid)))
    a_sweep = pairs_a_sweep(n) * (2 + DRAWN) * 2 * units_a_slot(n, n_valid)
    return epochs, min(SWEEPS, 4 * n, max(1, LOOKED_AT // a_sweep))


def candidate_field(
    cost: Cost, rows: Int[np.ndarray, " budget"]
) -> tuple[Int[np.ndarray, " pool"], Field]:
    """The rows that are near some validation point, and all that moves look at.

    Args:
        cost: C as factors.
        rows: The present subset, which is among them.

    Returns:
        Sorted row numbers, and the field over these rows alone: C itself where it has
        at most DENSE_ENTRIES entries, else its factors.
    """
    n_train, n_valid = cost.shape
    # Copies of a row stand beside it: lists are longer where there are many.
    listed = LISTED * n_train // count_distinct(cost)
    near = np.asarray(nearest_rows(cost, min(listed, n_train)).rows)
    pool = np.union1d(near, rows)
    # Rows that no list has fill it up to one of few sizes, for few programs.
    step = -(-n_train // POOL_SIZES)
    others = np.setdiff1d(np.arange(n_train), pool)
    pool = np.union1d(pool, others[: -len(pool) % step])
    field = Field(
        points=centred_rows(cost, pool) / cost.distance_max,
        valid=jnp.asarray(cost.valid) / cost.distance_max,
        reward=jnp.asarray(cost.reward)[pool],
        near=jnp.asarray(np.searchsorted(pool, near)),
    )
    if len(pool) * n_valid <= DENSE_ENTRIES:
        field = field._replace(dense=cost_rows(cost, pool))
    return pool, field


def count_distinct(cost: Cost) -> int:
    """How many training rows differ in place or reward, by their sums with weights.

    >>> from goracs_jax.cost import make_cost
    >>> count_distinct(make_cost(np.array([[1.0], [0.0], [1.0]]), np.ones((1, 1))))
    2
    """
    return len(np.unique(np.asarray(_sums(cost)) + np.asarray(cost.reward)))


@jax.jit
def _sums(cost: Cost) -> Float[jax.Array, " train"]:
    weights = jax.random.normal(jax.random.key(0), cost.centre.shape)
    # A product of its own for each row: equal rows have equal sums.
    return map_rows(cost, lambda block: (block.points * weights).sum(1))


def units_a_slot(n: int, n_valid: int) -> int:
    """The least s for which n s units, dealt as evenly as can be, misplace few masses.

    A column gets floor(n s / M) units or one more; exact where n s is a multiple of M.

    >>> units_a_slot(1000, 5000), units_a_slot(3000, 5000), units_a_slot(64, 5000)
    (5, 5, 77)
    """

    def misplaced(s: int) -> float:
        mean = n * s / n_valid
        share = mean % 1
        return 2 * share * (1 - share) / mean

    choices = range(1, math.ceil(8 * max(n, n_valid) / n) + 1)
    even = (s for s in choices if misplaced(s) <= UNEVEN)
    return next(even, min(choices, key=misplaced))


def deal(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    held: Transport,
    rng: np.random.Generator,
) -> Int[np.ndarray, "budget units"]:
    """Units to slots by an optimal transport of the units, whose plan is integral.

    Args:
        problem: The cost and the solver of `held`.
        rows: The subset, shape [n].
        held: Its transport: where the units are even and it is exact, they are its own.
        rng: Draws the columns that get one unit more.

    Returns:
        Column numbers, shape [n, s].
    """
    n, n_valid = len(rows), problem.cost.shape[1]
    s = units_a_slot(n, n_valid)
    count, more = divmod(n * s, n_valid)
    units = np.full(n_valid, count)
    units[rng.permutation(n_valid)[:more]] += 1
    columns = np.flatnonzero(units)
    plan = held.plan
    if more or problem.solver is not exact:
        cost = exact_cost(problem.cost, rows)[:, columns]
        mass = units[columns] / units.sum()
        plan = exact(cost, b=mass, g=held.g[columns]).plan
    counts = np.rint(plan * n * s).astype(int)
    slot, column = np.nonzero(counts)
    return np.repeat(columns[column], counts[slot, column]).reshape(n, s)
