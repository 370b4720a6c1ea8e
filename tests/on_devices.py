"""A selection on given devices; as a script, on eight and on the last four of them."""

import sys
from functools import partial

import jax
import numpy as np
from instances import instance

from goracs_jax.ahead.selection_programs import abstract_cost, selection_programs
from goracs_jax.cost import (
    cost_rows,
    make_cost,
    nearest_distances,
    nearest_rows,
    row_means,
    rows_in_place,
)
from goracs_jax.mesh import row_mesh, shard_rows
from goracs_jax.selection.search import candidates
from goracs_jax.selection.search.greedy import picks
from goracs_jax.selection.select import select_from_cost
from goracs_jax.selection.values import Seen, values_at, values_below

# 8 does not divide 403: the last device holds repeated rows. Its 51 rows of C or of the
# embeddings are more numbers than all candidates.
N_TRAIN, N_VALID, DIM, BUDGET, K = 403, 24, 16, 6, 4
SIZES = N_TRAIN, N_VALID, DIM
CASE = instance(N_TRAIN, N_VALID, seed=3, dim=DIM)
ROWS = np.array([402, 0, 200])


#: Methods with passes of their own.
OTHERS = ("tsds", "unbalanced-ot", "gist")


def cost_on(devices, x=CASE.x):
    return make_cost(x, CASE.y, CASE.g, 0.3, mesh=row_mesh(devices))


def by_others(devices):
    """From rows in float64, whose mean is kept apart."""
    cost, key = cost_on(devices, CASE.x.astype(np.float64)), jax.random.key(0)
    found = [select_from_cost(cost, BUDGET, key=key, method=name) for name in OTHERS]
    return np.stack([selection.indices for selection in found])


def some_plan():
    plan = np.zeros((BUDGET, N_VALID))
    plan[np.arange(N_VALID) % BUDGET, np.arange(N_VALID)] = 1 / N_VALID
    return plan


def values_again(cost):
    """Some rows of each device, by what was seen of all."""
    g = np.linspace(0, 0.1, N_VALID, dtype="f4")
    seen = [Seen(g / 2, values_at(cost, g / 2, BUDGET))]
    return np.sort(values_at(cost, g, BUDGET, seen, least=40))[:40]


def cheap_candidates(cost):
    """The candidates of all slots, among the rows that prices leave."""
    g = np.linspace(0, 0.1, N_VALID, dtype="f4")
    seen = Seen(g, values_at(cost, g, BUDGET))
    groups = candidates.largest_entries(some_plan())
    return candidates.update_candidates(cost, groups, K, seen=seen)


def arrays(devices):
    """What a selection finds on these devices, and the passes that it is made of."""
    cost = cost_on(devices)
    chosen = select_from_cost(cost, BUDGET, key=jax.random.key(0))
    value, rows = candidates.slot_candidates(cost, some_plan(), K)
    cheap = cheap_candidates(cost)
    assert cost.train.sharding.device_set == set(devices)
    return {
        "indices": chosen.indices,
        "others": by_others(devices),
        "rows": rows,
        "cheap rows": cheap.rows,
        "cheap values": cheap.value,
        "bound": chosen.lower_bound,
        "value": value,
        "largest": cost.distance_scale,
        "nearest": nearest_distances(cost),
        "values": values_below(cost, np.zeros(N_VALID, "f4"), BUDGET),
        "values near": values_again(cost),
        "means": row_means(cost),
    }


#: Functions of a cost that are compiled ahead of it.
PROGRAMS = {
    "map": nearest_distances,
    "fold": jax.jit(partial(nearest_rows, length=3)),
    "rows": jax.jit(lambda cost: cost_rows(cost, ROWS)),
    "greedy": jax.jit(partial(picks, budget=BUDGET, room=BUDGET)),
}

#: Programs of a selection in which rows and blocks of C stay where they are. Others
#: bring some rows to all devices on purpose, or are programs of one device.
STAYING = (
    "largest_distance",
    "nearest_distances",
    "materialize",
    "greedy",
    "count_distinct",
    "nearest_rows",
    "sweeps",
    "slot_candidates",
    "values_below",
    "core_arcs",
)


def main(out):
    eight = jax.devices()
    found = {"devices": len(eight)}
    for name, devices in {"eight": eight, "four": eight[4:]}.items():
        found |= {f"{name} {k}": v for k, v in arrays(devices).items()}
    cost = cost_on(eight[4:])
    for name, fn in PROGRAMS.items():
        ahead = fn.lower(abstract_cost(*SIZES, row_mesh(eight[4:]))).compile()
        found[f"{name} text"] = ahead.as_text()
        leaves = zip(*map(jax.tree.leaves, (ahead(cost), fn(cost))), strict=True)
        for i, (one, two) in enumerate(leaves):
            assert one.sharding.device_set <= set(eight[4:])
            found |= {f"{name} ahead {i}": one, f"{name} now {i}": two}
    programs = selection_programs(*SIZES, BUDGET, row_mesh(eight))
    for name in STAYING:
        found[f"exchanges of {name}"] = programs[name]().lower().compile().as_text()
    places = shard_rows(np.zeros(16, np.int32), row_mesh(eight))
    text = rows_in_place.lower(cost_on(eight), places).compile().as_text()
    found["exchanges of rows_in_place"] = text
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1])
