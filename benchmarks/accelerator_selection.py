"""Parts of accelerator.py that see arrays alone: a selection, and its transports."""

import contextlib
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_given import Given
from common import timed
from selection import stages, synthetic
from transport import measure

from goracs_jax.cost import Cost, exact_cost, make_cost, nearest_rows
from goracs_jax.mesh import replicate
from goracs_jax.selection.method import GroupExchange, PairMoves, SimulatedAnnealing
from goracs_jax.selection.search.annealing import candidate_field
from goracs_jax.selection.search.candidates import slot_candidates
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.search.pair_exchange import Slots, pairs_per_sweep, sweeps
from goracs_jax.selection.search.schedule import plan_search
from goracs_jax.selection.search.units import units_per_slot
from goracs_jax.transport import Transport, exact, sinkhorn

Figures = Iterator[tuple[str, dict[str, Any]]]
GOAL = 5.0  # seconds of a whole selection, once compiled
LAMBDA = 0.1


def selection(given: Given) -> Figures:
    """Time each program of a selection, and the exact transport on the host.

    C is not kept in memory, whatever its size: at full size it is too large.
    """
    x, y, g, budget, source = instance(given)
    (n_train, dim), n_valid = x.shape, len(y)
    sizes = {"train": n_train, "valid": n_valid, "dim": dim, "budget": budget}
    yield "data", {"source": source, **sizes}

    once, read = 2.0 * n_train * n_valid * dim, x.nbytes + y.nbytes
    make = partial(make_cost, x, y, g, LAMBDA, matrix_entries=0)
    made = given.beside_floor(make, flops=once, read=read)
    yield "cost", made
    cost = make()

    listed = min(SimulatedAnnealing().listed, n_train)
    near = lambda: nearest_rows(cost, listed)
    nearest = given.beside_floor(near, flops=once, read=read + 8 * n_valid * listed)
    yield "nearest distances", nearest

    # Two passes over C, and a row of it for every pick.
    flops = 2 * once + 2.0 * budget * n_valid * dim
    started = given.beside_floor(
        lambda: greedy(cost, budget), flops=flops, read=2 * read
    )
    yield "greedy", started
    rows = np.asarray(greedy(cost, budget))

    swept = one_epoch(given, cost, rows)
    yield "sweeps of an epoch", swept

    matrix = exact_cost(cost, rows)
    begun = time.perf_counter()
    solved = exact(matrix)
    transport = {"seconds": time.perf_counter() - begun, "value": solved.value}
    yield "exact transport on the host", transport

    # The distances, and Q for all slots.
    flops = once + 2.0 * n_train * (budget + n_valid)
    k = GroupExchange().candidates
    passed = given.beside_floor(
        lambda: slot_candidates(cost, solved.plan, k), flops=flops, read=read
    )
    yield "exchange pass", passed

    yield "Sinkhorn at this size", entropic(matrix, solved, given.sizes.repeats)

    yield "programs of a selection", sum_up(swept, made, nearest, started, passed)


def whole_selection(given: Given) -> Figures:
    """Time a selection from its start to its end, with every transport on the host."""
    x, y, g, budget, _ = instance(given)
    make = partial(make_cost, x, y, g, LAMBDA, matrix_entries=0)
    with contextlib.redirect_stdout(sys.stderr):
        parts, trace, bound = stages(make, budget, jax.random.key(0))
    figures = {
        "seconds": sum(part["seconds"] for part in parts),
        "goal_seconds": GOAL,
        "stages": parts,
        "poo": trace[-1].objective,
        "poo_greedy": trace[0].objective,
        "lower_bound": bound,
    }
    yield "from start to end", figures


def instance(given: Given) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, str]:
    """Return embeddings, gradient norms, the budget, and where they come from."""
    n_train, n_valid, budget = given.sizes.games
    if given.instance:
        data, source = dict(np.load(given.instance)), given.instance.name
    else:
        data, source = synthetic(n_train, n_valid), "synthetic clusters"
    return data["train"], data["valid"], data["grad_norm"], budget, source


def one_epoch(given: Given, cost: Cost, rows: np.ndarray) -> dict[str, Any]:
    """Time the sweeps of one epoch of the annealing; their shapes alone matter.

    The slots carry random columns, since those of a plan would take a transport first.
    """
    (_, n_valid), budget = cost.shape, len(rows)
    pool, field = candidate_field(cost, rows)
    s = units_per_slot(budget, n_valid)
    drawn = np.random.default_rng(0).permutation(np.arange(budget * s) % n_valid)
    # On the devices like those of `anneal`, so that this is its program.
    here = partial(replicate, mesh=cost.tiling.mesh)
    slots = Slots(here(np.searchsorted(pool, rows)), here(drawn.reshape(budget, s)))
    epochs, length = plan_search(budget, n_valid)
    moves, cold = PairMoves(), jnp.zeros(length)
    looked_at = length * pairs_per_sweep(budget) * (2 + moves.drawn) * 2.0 * s
    apart = 0 if field.dense is not None else 2 * cost.valid.shape[1]
    found = given.beside_floor(
        lambda: sweeps(field, slots, cold, jax.random.key(0), moves),
        flops=looked_at * (3 * 2 * s + apart),  # sums over pairs, and distances
        read=4 * looked_at,
    )
    return found | {"sweeps": length, "epochs": epochs, "pool": len(pool)}


def entropic(matrix: np.ndarray, solved: Transport, repeats: int) -> dict[str, Any]:
    """Time Sinkhorn on the problem that was solved exactly."""
    found, first, seconds = timed(lambda: sinkhorn(matrix), repeats)
    return {
        "seconds": seconds,
        "first_seconds": first,
        "excess": found.value / solved.value - 1,
        "converged": found.converged,
    }


def sum_up(swept: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """Add up the programs of one selection, without transports and the host's work."""
    if any("not_done" in part for part in (swept, *others)):
        return {"not_done": "one of them has no figures"}
    total = lambda name: (
        (1 + swept["epochs"]) * swept[name] + sum(part[name] for part in others)
    )
    summed = {name: total(name) for name in ("seconds", "floor_seconds")}
    return summed | {"goal_seconds": GOAL}


def transports(given: Given) -> Figures:
    """Time Sinkhorn (ott-jax) and POT, cold and warm; see transport.py."""
    for n, m in given.sizes.transports:
        yield f"{n} x {m}", measure(n, m)
