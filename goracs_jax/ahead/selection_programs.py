"""The programs of a selection by `goracs`, traced for shapes alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.stages import Traced

from goracs_jax.cost import (
    Cost,
    Tiling,
    build,
    centred_rows,
    cost_rows,
    distinct,
    nearest_distances,
    nearest_rows,
    passes,
    train_rows,
)
from goracs_jax.mesh import BY_ROWS, EVERYWHERE, row_mesh
from goracs_jax.selection.core import core_shape
from goracs_jax.selection.method import Goracs
from goracs_jax.selection.relaxation import Arcs, _ascend, core_arcs
from goracs_jax.selection.search import candidates
from goracs_jax.selection.search.greedy import picks
from goracs_jax.selection.search.pair_exchange import Field, Slots, sweeps
from goracs_jax.selection.search.schedule import padded, plan_search
from goracs_jax.selection.search.units import units_per_slot
from goracs_jax.selection.serving import most_served, served_by
from goracs_jax.selection.values import _values_below
from goracs_jax.shapes import sizes_alike
from goracs_jax.transport.sinkhorn import COLD, _iterate


def abstract_cost(n_train: int, n_valid: int, dim: int, mesh: Mesh) -> Cost:
    """Return the shapes of a cost on the devices of a mesh: there are no numbers in it.

    The devices need not be at hand.

    Args:
        n_train: N.
        n_valid: M.
        dim: Width of the embeddings, in float32.
        mesh: Devices in a row.

    >>> cost = abstract_cost(5, 3, 2, row_mesh(jax.devices()[:1]))
    >>> cost.shape, nearest_distances.trace(cost).out_info.shape
    ((5, 3), (5,))
    """
    spread = -(-n_train // mesh.size) * mesh.size
    everywhere = partial(_shaped, mesh)
    return Cost(
        train=everywhere(spread, dim, spec=BY_ROWS),
        valid=everywhere(n_valid, dim),
        centre=everywhere(dim),
        reward=everywhere(n_train),
        distance_scale=everywhere(),
        tiling=Tiling(mesh=mesh),
        row_means=everywhere(n_train),
    )


def selection_programs(
    n_train: int, n_valid: int, dim: int, budget: int, mesh: Mesh
) -> dict[str, Callable[[], Traced]]:
    """List the programs that a selection by `goracs` runs on the devices of a mesh.

    A program of the same function for fewer rows is left out: the ones that are listed
    are the largest.

    Args:
        n_train: N.
        n_valid: M.
        dim: Width of the embeddings.
        budget: n.
        mesh: Devices in a row, which need not be at hand.

    Returns:
        Functions that trace a program, by its name, in the order of their first run.

    >>> programs = selection_programs(6, 6, 2, 2, row_mesh(jax.devices()[:1]))
    >>> programs["ascend"]().out_info.chosen.shape
    (6,)
    """
    settings = Goracs()
    assert settings.bound is not None
    listing = settings.bound.listing
    annealed = settings.annealing
    everywhere = partial(_shaped, mesh)
    integers = partial(everywhere, dtype=jnp.int32)
    plain = abstract_cost(n_train, n_valid, dim, mesh)
    cost = plain
    if n_train * n_valid <= plain.tiling.matrix_entries:
        local, *_ = plain.train.shape
        cost = plain._replace(matrix=everywhere(local, n_valid, spec=BY_ROWS))
    g = everywhere(n_valid)

    # As in `candidate_field`, where no row is in two lists and none is repeated.
    step = -(-n_train // annealed.pool_sizes)
    pool = min(n_train, -(-(annealed.listed * n_valid + budget) // step) * step)
    kept = pool * n_valid <= annealed.dense_entries
    field = Field(
        points=everywhere(pool, dim),
        valid=everywhere(n_valid, dim),
        reward=everywhere(pool),
        near=integers(n_valid, min(annealed.listed, n_train)),
        dense=everywhere(pool, n_valid) if kept else None,
    )
    units = units_per_slot(budget, n_valid, annealed.uneven)
    alike = sizes_alike(budget)
    room = alike[-1]
    slots = Slots(integers(room), integers(room, units))
    _, length = plan_search(budget, n_valid, annealed)
    schedule = len(padded(np.zeros(length)))
    key = everywhere(dtype=jax.eval_shape(lambda: jax.random.key(0)).dtype)

    k = min(settings.exchange.candidates, n_train, room)
    entries = room + n_valid
    groups = (
        integers(n_valid),
        everywhere(entries),
        integers(entries),
        integers(room + 1),
    )

    # As in `relax`, where no row is a copy.
    size, _ = core_shape((n_train, n_valid), room, n_train)
    _, width = core_shape((n_train, n_valid), alike[0], n_train)
    spread = -(-size // mesh.size) * mesh.size
    core = plain._replace(
        train=everywhere(spread, dim, spec=BY_ROWS),
        reward=everywhere(size),
        row_means=None,
    )
    if size * n_valid <= plain.tiling.matrix_entries:
        core = core._replace(matrix=everywhere(spread, n_valid, spec=BY_ROWS))
    arcs = Arcs(integers(size, width), everywhere(size, width))
    number = everywhere()
    served, most = served_by(budget, n_valid), most_served(budget, n_valid)

    # Transport by Sinkhorn is a program of one device.
    single = partial(_shaped, row_mesh([mesh.devices.flat[0]]))
    transport = (
        *(single(budget, n_valid), single(budget), single(n_valid), single(budget)),
        *(1e-3, 1e-3, COLD, 20_000),
    )
    programs = {
        "largest_distance": lambda: build._largest_and_means.trace(plain),
        "nearest_distances": lambda: nearest_distances.trace(plain),
        "materialize": lambda: passes._matrix.trace(plain),
        "greedy": lambda: picks.trace(cost, budget, n_train),
        "train_rows": lambda: train_rows.trace(plain, integers(size)),
        "count_distinct": lambda: distinct._sums.trace(cost),
        "nearest_rows": lambda: nearest_rows.trace(cost, field.near.shape[1]),
        "centred_rows": lambda: centred_rows.trace(cost, integers(pool)),
        "cost_rows": lambda: cost_rows.trace(cost, integers(pool)),
        "sweeps": lambda: sweeps.trace(
            field, slots, everywhere(schedule), key, annealed.moves, length
        ),
        "sinkhorn": lambda: _iterate.trace(*transport),
        "slot_candidates": lambda: candidates._least.trace(cost, *groups, k),
        "values_below": lambda: _values_below.trace(cost, g, served, most),
        "core_arcs": lambda: core_arcs.trace(
            core, g, size, width, width, min(listing, size)
        ),
        "ascend": lambda: _ascend.trace(
            *(arcs, g, everywhere(size), number, number, integers(), served),
            *(None, None),
            room=min(size, room),
            most=most,
        ),
    }
    if cost is plain:
        del programs["materialize"]
    if not kept:
        del programs["cost_rows"]
    if budget < 2:  # there is no pair to exchange
        del programs["sweeps"]
    return programs


def _shaped(mesh, *shape, dtype=jnp.float32, spec=EVERYWHERE) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
