"""Passes over the cost matrix C, a block of training rows at a time.

One pass takes at least 2 N M dim FLOPs and reads the factors once. A small matrix may
be kept in memory (`materialize`), and a pass then reads its 4 N M bytes. Every device
passes over its own training rows, and only results are communicated.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from goracs_jax.cost.factors import (
    Cost,
    centred,
    collect,
    cost_of,
    on_every_device,
    without_reward,
)
from goracs_jax.mesh import AXIS, BY_ROWS, EVERYWHERE
from goracs_jax.shapes import AnyArray

Carry = TypeVar("Carry")
# Products of a CPU are fast in blocks of few rows or of many. On 2 cores, with 384
# dimensions: 340 to 360 GFLOP/s for 128 rows, 96 to 340 for 160 to 768.
FEW_ROWS, MANY_ROWS = 128, 1024


class Block(NamedTuple):
    """Some consecutive rows of C."""

    rows: Int[jax.Array, " block"]
    # All blocks have one shape, so the last one repeats rows: those are not fresh.
    fresh: Bool[jax.Array, " block"]
    points: Float[jax.Array, "block dim"]  # x_i less the centre
    cost: Float[jax.Array, "block valid"]


def block_rows(cost: Cost, width: int = 1) -> int:
    """Return the number of rows of C in one block, by shapes and the kind of device.

    Args:
        cost: C as factors.
        width: Numbers that a step keeps per row beside its M costs, if more than M.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3), np.eye(3), block_entries=6)
    >>> block_rows(cost), block_rows(cost, width=6)
    (2, 1)
    """
    _, n_valid = cost.shape
    fitting = cost.tiling.most_entries // max(n_valid, width)
    if _multiplies_on_cpu(cost) and fitting < MANY_ROWS:
        fitting = min(fitting, FEW_ROWS)
    return max(1, min(len(cost.train), fitting))


def _multiplies_on_cpu(cost: Cost) -> bool:
    """Tell whether a block of C is a product on a CPU."""
    return cost.matrix is None and cost.tiling.on_cpu


def fold_rows(
    cost: Cost, init: Carry, step: Callable[[Carry, Block], Carry], width: int = 1
) -> Carry:
    """Fold `step` over all blocks of C: every device runs one `lax.scan`.

    Args:
        cost: C as factors.
        init: The carry before the first block of each device.
        step: Pure function of the carry and a `Block`.
        width: As for `block_rows`.

    Returns:
        The carries of all devices added up, on every device.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> fold_rows(cost, jnp.int32(0), lambda n, block: n + block.fresh.sum()).item()
    3
    """

    def on_device(cost: Cost) -> Carry:
        firsts, block_at = _blocks(cost, width)
        step_at = lambda carry, first: (step(carry, block_at(first)), None)
        carry, _ = jax.lax.scan(step_at, init, firsts)
        return jax.lax.psum(carry, AXIS)

    return on_every_device(cost, on_device, EVERYWHERE)


def least_rows(
    cost: Cost,
    of: Callable[[Block], jax.Array],
    items: int,
    length: int,
    width: int = 1,
) -> tuple[Float[jax.Array, "items length"], Int[jax.Array, "items length"]]:
    """Find the training rows that have the least values, for each of some items.

    Of equal values, the lower row number comes first.

    Args:
        cost: C as factors.
        of: From a `Block` to the values of its rows, shape [items, block]. Infinity
            leaves a row out; rows that are not fresh are left out in any case.
        items: Such as validation points, or slots.
        length: Rows kept per item. Where fewer are left, a list ends in rows that are
            left out or that it has already.
        width: As for `block_rows`.

    Returns:
        Values and row numbers, the least value first, on every device. No more than
        these numbers leave a device.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> least_rows(cost, lambda block: block.cost.T, items=3, length=1)[1].tolist()
    [[0], [1], [2]]
    """
    devices = cost.tiling.mesh.size
    # Every device merges the lists of its share of the items.
    share = -(-items // devices)

    def on_device(cost: Cost) -> tuple[jax.Array, jax.Array]:
        firsts, block_at = _blocks(cost, width)

        def add(best: tuple[jax.Array, jax.Array], first: jax.Array) -> tuple:
            block = block_at(first)
            value = jnp.where(block.fresh, of(block), jnp.inf)
            # top_k keeps the first of equal entries, and lower rows come earlier.
            least, place = jax.lax.top_k(-jnp.concatenate([best[0], value], 1), length)
            kept = jnp.take_along_axis(best[1], jnp.minimum(place, length - 1), 1)
            rows = jnp.where(place < length, kept, block.rows[place - length])
            return (-least, rows), None

        shape = items, length
        none = jnp.full(shape, jnp.inf), jnp.zeros(shape, jnp.int32)
        best, _ = jax.lax.scan(add, none, firsts)
        # Values and rows go as one array: the TPU compiler needs long for each exchange
        # among 256 devices, whatever its size (14 s of CPU time with libtpu 0.0.42.1).
        both = jnp.stack([best[0].view(jnp.int32), best[1]])
        both = jnp.pad(both, ((0, 0), (0, share * devices - items), (0, 0)))
        value, rows = jax.lax.all_to_all(both, AXIS, 1, 2, tiled=True)
        least, place = jax.lax.top_k(-value.view(jnp.float32), length)
        merged = (-least, jnp.take_along_axis(rows, place, 1))
        return jax.lax.all_gather(merged, AXIS, tiled=True)

    value, rows = on_every_device(cost, on_device, EVERYWHERE)
    return value[:items], rows[:items]


def map_rows(cost: Cost, of: Callable[[Block], jax.Array]) -> jax.Array:
    """Compute a number for every row of C, on the device where the row lies.

    Args:
        cost: C as factors.
        of: From a `Block` to a number for each of its rows.

    Returns:
        The numbers, shape [N], spread over the devices like the training rows.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> map_rows(cost, lambda block: block.cost.sum(1)).tolist()
    [2.0, 2.0, 2.0]
    """
    n_train, _ = cost.shape
    return _map(cost, of)[:n_train]


def map_some(
    cost: Cost, rows: Int[AnyArray, " rows"], of: Callable[[Block], jax.Array]
) -> jax.Array:
    """Compute a value for some rows of C where they lie, and bring it to every device.

    A CPU that computes many of them does so a block at a time.

    Args:
        cost: C as factors.
        rows: Row numbers.
        of: From a `Block` to a value, of any shape, for each of its rows.

    Returns:
        The values, shape [rows, ...].

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> map_some(cost, jnp.array([1]), lambda block: block.cost.sum(1)).tolist()
    [2.0]
    """
    rows, fresh, size = jnp.asarray(rows), jnp.array(True), block_rows(cost)

    def some(rows: jax.Array) -> jax.Array:
        of_block = lambda cost, take: of(_block(cost, rows, fresh, take))
        return collect(cost, rows, of_block)

    if not _multiplies_on_cpu(cost) or len(rows) <= size:
        return some(rows)
    blocks = jnp.pad(rows, (0, -len(rows) % size), mode="edge").reshape(-1, size)
    values = jax.lax.map(some, blocks)
    return values.reshape(-1, *values.shape[2:])[: len(rows)]


def materialize(cost: Cost) -> Cost:
    """Keep the matrix of a cost in memory, if it is small.

    It pays from the second pass on: a pass then reads 4 N M bytes instead of computing
    2 N M dim FLOPs.

    Args:
        cost: C as factors.

    Returns:
        The cost with its matrix; the same cost if it has one already or if C has more
        than `cost.tiling.matrix_entries` entries.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> materialize(make_cost(x, x)).matrix.tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    n_train, n_valid = cost.shape
    if cost.matrix is not None or n_train * n_valid > cost.tiling.matrix_entries:
        return cost
    return cost._replace(matrix=_matrix(without_reward(cost)))


@jax.jit
def _matrix(cost: Cost) -> Float[jax.Array, "train valid"]:
    return _map(cost, lambda block: block.cost)


def _map(cost: Cost, of: Callable[[Block], jax.Array]) -> jax.Array:
    """Apply `of` to every row, with the repeated rows of the last device."""

    def on_device(cost: Cost) -> jax.Array:
        firsts, block_at = _blocks(cost)
        one = jax.eval_shape(lambda: of(block_at(firsts[0])))

        def put(values: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
            start = jnp.minimum(first, len(values) - len(one))
            update = jax.lax.dynamic_update_slice_in_dim
            return update(values, of(block_at(first)), start, 0), None

        values = jnp.zeros((len(cost.train), *one.shape[1:]), one.dtype)
        # The last block comes first: the rows that it repeats are written again.
        return jax.lax.scan(put, values, firsts, reverse=True)[0]

    return on_every_device(cost, on_device, BY_ROWS)


def _blocks(
    cost: Cost, width: int = 1
) -> tuple[Int[jax.Array, " blocks"], Callable[[jax.Array], Block]]:
    """Return the first places of all blocks of a device, and how a block is made.

    Of the cost, `train` and `matrix` have the rows of this device alone.
    """
    local, size = len(cost.train), block_rows(cost, width)
    n_train, _ = cost.shape
    offset = jax.lax.axis_index(AXIS) * local

    def block_at(first: jax.Array) -> Block:
        # The last block starts early to keep its shape.
        start = jnp.minimum(first, local - size)
        place = start + jnp.arange(size)
        rows = jnp.minimum(offset + place, n_train - 1)
        fresh = (place >= first) & (offset + place < n_train)
        take = lambda x: jax.lax.dynamic_slice_in_dim(jnp.asarray(x), start, size)
        return _block(cost, rows, fresh, take)

    return jnp.arange(0, local, size), block_at


def _block(
    cost: Cost,
    rows: Int[jax.Array, " block"],
    fresh: Bool[jax.Array, "..."],
    take: Callable[[AnyArray], jax.Array],
) -> Block:
    """Make the block of the rows that `take` takes from this device's arrays."""
    points = centred(cost, take(cost.train))
    if cost.matrix is None:
        return Block(rows, fresh, points, cost_of(cost, points, rows))
    reward = jnp.asarray(cost.reward)[rows]
    return Block(rows, fresh, points, take(cost.matrix) - reward[:, None])
