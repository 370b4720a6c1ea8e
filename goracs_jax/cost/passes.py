"""Passes over the cost matrix C, a block of training rows at a time.

One pass takes at least 2 N M dim FLOPs and reads the factors once. A small matrix may
be kept in memory (`materialize`), and a pass then reads its 4 N M bytes. Every device
passes over its own training rows, and only results are communicated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

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


class Block(NamedTuple):
    """Some consecutive rows of C."""

    rows: Int[jax.Array, " block"]
    # All blocks have one shape, so the last one repeats rows: those are not fresh.
    fresh: Bool[jax.Array, " block"]
    points: Float[jax.Array, "block dim"]  # x_i less the centre
    cost: Float[jax.Array, "block valid"]


def block_rows(cost: Cost, width: int = 1) -> int:
    """Return the number of rows of C in one block, which depends on shapes alone.

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
    fitting = cost.tiling.block_entries // max(n_valid, width)
    return max(1, min(len(cost.train), fitting))


def fold_rows(
    cost: Cost,
    init: Carry,
    step: Callable[[Carry, Block], Carry],
    merge: Callable[[Any], Carry],
    width: int = 1,
) -> Carry:
    """Fold `step` over all blocks of C: every device runs one `lax.scan`.

    Args:
        cost: C as factors.
        init: The carry before the first block of each device.
        step: Pure function of the carry and a `Block`.
        merge: From the carries of all devices, stacked along a first axis, to one.
        width: As for `block_rows`.

    Returns:
        The merged carry, on every device.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> count = lambda seen, block: seen + block.fresh.sum()
    >>> fold_rows(cost, jnp.int32(0), count, lambda parts: parts.sum(0)).item()
    3
    """

    def on_device(cost: Cost) -> Carry:
        carry, _ = _scan_blocks(cost, init, lambda c, b: (step(c, b), None), width)
        return merge(jax.lax.all_gather(carry, AXIS))

    return on_every_device(cost, on_device, EVERYWHERE)


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
    rows, fresh = jnp.asarray(rows), jnp.array(True)
    return collect(cost, rows, lambda cost, take: of(_block(cost, rows, fresh, take)))


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
        _, values = _scan_blocks(cost, None, lambda _, block: (None, of(block)), 1)
        blocks, size, *shape = values.shape
        # The last block begins with rows of the one before.
        repeated = blocks * size - len(cost.train)
        whole = values[:-1].reshape(-1, *shape)
        return jnp.concatenate([whole, values[-1, repeated:]])

    return on_every_device(cost, on_device, BY_ROWS)


def _scan_blocks(
    cost: Cost, init: Any, step: Callable[[Any, Block], tuple[Any, Any]], width: int
) -> tuple[Any, Any]:
    """Run `lax.scan` over the blocks of one device, whose rows alone `cost` has."""
    local, size = len(cost.train), block_rows(cost, width)
    n_train, _ = cost.shape
    offset = jax.lax.axis_index(AXIS) * local

    def body(carry: Any, first: jax.Array) -> tuple[Any, Any]:
        # The last block starts early to keep its shape.
        start = jnp.minimum(first, local - size)
        place = start + jnp.arange(size)
        rows = jnp.minimum(offset + place, n_train - 1)
        fresh = (place >= first) & (offset + place < n_train)
        take = lambda x: jax.lax.dynamic_slice_in_dim(jnp.asarray(x), start, size)
        return step(carry, _block(cost, rows, fresh, take))

    return jax.lax.scan(body, init, jnp.arange(0, local, size))


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
