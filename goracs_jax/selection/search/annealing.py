r"""The last stage and its schedule: simulated annealing of pairs of slots.

A slot is the place of one selected row, and its group is the validation mass that it
carries. Rows and groups change together, pair by pair (`pair_exchange`), while a
temperature T falls (simulated annealing: Kirkpatrick et al., Science 1983). T is in
units of the gap, the least that another choice of rows costs a pair after a quench at
T = 0, so that one schedule serves every lambda and every scale of the embeddings.

The pairs see the validation mass in equal units. After every epoch the transport is
solved on the true masses, and its plan deals the units anew. Where the solver is not
the exact one, units stay with their slots: to deal them takes an exact transport, which
a search on an accelerator would wait for.
"""

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from goracs_jax.cost import (
    Cost,
    centred_rows,
    column_mass,
    cost_rows,
    count_distinct,
    nearest_rows,
)
from goracs_jax.mesh import replicate
from goracs_jax.selection.method import SimulatedAnnealing
from goracs_jax.selection.problem import Problem, Refined, Step, solve
from goracs_jax.selection.search.pair_exchange import (
    Field,
    Slots,
    padded_slots,
    sweeps,
)
from goracs_jax.selection.search.schedule import (
    Pace,
    Plan,
    padded,
    plan_search,
    plan_starts,
)
from goracs_jax.selection.search.units import deal
from goracs_jax.selection.wishes.moves import Limits, limits_of
from goracs_jax.selection.wishes.record import Wishes, meets
from goracs_jax.transport import Transport, exact

DEFAULTS = SimulatedAnnealing()
# Sweeps that a pace is measured by.
PROBED = 32
# Seconds of a sweep at least, where the machine was busier with one than with many.
SHORTEST = 1e-6


def anneal(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    *,
    key: jax.Array,
    settings: SimulatedAnnealing = DEFAULTS,
    started: float | None = None,
) -> Refined:
    """Anneal pairs of slots, from some starts, and keep the best subset.

    Args:
        problem: The cost, the transport solver, and wishes.
        rows: The subset to start from, distinct, shape [n]; it meets the wishes.
        key: Draws units, pairs and moves.
        settings: Temperatures and lengths.
        started: `time.perf_counter()` that the trace counts from; now when left out.

    Returns:
        The best subset seen, and a trace of the start and of every epoch that found a
        better one. Without a limit it always ends by itself.

    Raises:
        NumericalError: The transport solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> problem, start = Problem(make_cost(x, x)), np.array([0, 5])
    >>> sorted(anneal(problem, start, key=jax.random.key(0)).rows.tolist())
    [1, 4]
    """
    started = time.perf_counter() if started is None else started
    n_train, _ = problem.cost.shape
    _, solved = solve(problem.cost, rows, problem.solver)
    best = (solved.value, rows)
    step = lambda value, new: Step(value, time.perf_counter() - started, new)
    trace = [step(solved.value, 0)]
    if len(rows) == 1 or len(rows) == n_train:  # no pairs, or nothing to choose
        return Refined(rows, tuple(trace), True)
    wishes = problem.wishes
    pool, field = candidate_field(problem.cost, rows, settings, wishes)
    limits = None if wishes is None else limits_of(wishes, pool)
    start = _Start(rows, solved, pool, field, limits)
    patience, starts = plan_starts(len(rows), settings)
    heats = settings.heat * np.where(np.arange(starts) % 2, settings.hotter, 1)
    mass = column_mass(problem.cost)
    planned = plan_search(len(rows), problem.cost.shape[1], settings, mass)
    pace = _pace(problem, start, planned, settings)
    stopped, idle = False, 0
    # As many keys whatever the budget, of which the first ones are used.
    keys = jax.random.split(key, settings.starts)
    for heat, start_key in zip(heats, keys, strict=False):
        if idle == patience:
            break
        # A schedule that is cut off while it is hot is lost: a shorter one is not.
        plan = pace.fit(planned, problem.limit.left) if pace else planned
        epochs, idle = 0, idle + 1
        for value, found in _cool(problem, start, heat, plan, start_key, settings):
            epochs += 1
            if value < best[0] and meets(wishes, found):
                changed = len(np.setdiff1d(found, best[1]))
                trace.append(step(value, changed))
                best = value, found
                if changed:  # the value of the same rows is rounded in many ways
                    idle = 0
        if stopped := plan != planned or epochs < plan.epochs:
            break
    return Refined(best[1], tuple(trace), not stopped, stopped)


class _Start(NamedTuple):
    """What every annealing starts from."""

    rows: Int[np.ndarray, " budget"]
    solved: Transport  # of these rows
    pool: Int[np.ndarray, " pool"]
    field: Field
    limits: Limits | None


def _pace(
    problem: Problem, start: _Start, plan: Plan, settings: SimulatedAnnealing
) -> Pace | None:
    """Measure the pace where there is a deadline to meet; None without one."""
    if problem.limit.deadline == math.inf:
        return None
    rng, key = np.random.default_rng(0), jax.random.key(0)
    before = time.perf_counter()
    units = deal(problem, start.rows, start.solved, rng, settings.uneven)
    solve(problem.cost, start.rows, problem.solver, start.solved.g)
    epoch = time.perf_counter() - before
    slots = _placed(problem, start, start.rows, units)
    cold, seconds = padded(np.zeros(plan.length)), []
    for count in (1, 1, 1 + PROBED):  # the first compiles
        before = time.perf_counter()
        after = sweeps(
            start.field, slots, cold, key, settings.moves, count, start.limits
        )
        jax.block_until_ready(after)
        seconds.append(time.perf_counter() - before)
    _, one, more = seconds
    return Pace(max((more - one) / PROBED, SHORTEST), epoch + one)


def _placed(
    problem: Problem,
    start: _Start,
    rows: Int[np.ndarray, " budget"],
    units: Int[np.ndarray, "budget units"],
) -> Slots:
    """Return the slots of some rows of the pool, on every device."""
    slots = padded_slots(np.searchsorted(start.pool, rows), units)
    mesh = problem.cost.tiling.mesh
    return Slots(*(replicate(part, mesh) for part in slots))


def _cool(
    problem: Problem,
    start: _Start,
    hottest: float,
    plan: Plan,
    key: jax.Array,
    settings: SimulatedAnnealing,
) -> Iterator[tuple[float, Int[np.ndarray, " budget"]]]:
    """Yield POO and rows after every epoch of one annealing, until its limit."""
    if problem.limit.up() or not plan.length:
        return
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows, solved, pool, field, limits = start
    dealt = lambda: deal(problem, rows, solved, rng, settings.uneven)
    slots = _placed(problem, start, rows, dealt())
    epochs, length = plan
    run = lambda slots, temperatures, key: sweeps(
        field,
        slots,
        jnp.asarray(padded(temperatures)),
        key,
        settings.moves,
        length,
        limits,
    )
    quench_key, *epoch_keys = jax.random.split(key, 1 + settings.epochs)
    slots, _, gap = run(slots, np.zeros(length), quench_key)
    falling = np.linspace(hottest, settings.cold, (epochs - 1) * length)
    heat = np.nan_to_num(float(gap)) * falling
    schedule = np.append(heat, np.zeros(length)).reshape(epochs, length)
    seconds = 0.0
    for epoch, (temperatures, epoch_key) in enumerate(
        zip(schedule, epoch_keys, strict=False)
    ):
        if problem.limit.up(soon=seconds):
            return
        began = time.perf_counter()
        if epoch and problem.solver is exact:
            slots = _placed(problem, start, rows, dealt())
        slots, _, _ = run(slots, temperatures, epoch_key)
        rows = pool[np.asarray(slots.rows)[: len(rows)]]
        _, solved = solve(problem.cost, rows, problem.solver, solved.g)
        seconds = time.perf_counter() - began
        yield solved.value, rows


def candidate_field(
    cost: Cost,
    rows: Int[np.ndarray, " budget"],
    settings: SimulatedAnnealing = DEFAULTS,
    wishes: Wishes | None = None,
) -> tuple[Int[np.ndarray, " pool"], Field]:
    """Pool the rows that are near some validation point, with all that moves read.

    Args:
        cost: C as factors.
        rows: The present subset, which is among them.
        settings: How many rows are listed, and how large C in memory may be.
        wishes: Rows that may not enter are not listed, and others at their price.

    Returns:
        Sorted row numbers, and the field over these rows alone: C itself where it has
        at most `dense_entries` entries, else its factors.
    """
    n_train, n_valid = cost.shape
    # Copies of a row take places in a list, so lists are longer where there are many.
    listed = settings.listed * n_train // count_distinct(cost)
    if wishes is None:
        near = np.asarray(nearest_rows(cost, min(listed, n_train)).rows)
    else:
        listing, shut = wishes.listing(cost, len(rows)), wishes.closed | wishes.fixed
        near = np.asarray(nearest_rows(listing, min(listed, n_train), shut).rows)
    pool = np.union1d(near, rows)
    # Rows that are in no list fill the pool up to one of a few sizes, so that few
    # programs are compiled.
    step = -(-n_train // settings.pool_sizes)
    others = np.setdiff1d(np.arange(n_train), pool)
    pool = np.union1d(pool, others[: -len(pool) % step])
    field = Field(
        points=centred_rows(cost, pool) / cost.distance_scale,
        valid=jnp.asarray(cost.valid) / cost.distance_scale,
        reward=jnp.asarray(cost.reward)[pool],
        near=jnp.asarray(np.searchsorted(pool, near)),
    )
    if len(pool) * n_valid <= settings.dense_entries:
        field = field._replace(dense=cost_rows(cost, pool))
    return pool, field
