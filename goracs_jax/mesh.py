"""One axis over all devices, and the training rows spread over it.

One device is a mesh of one: nothing else in the package asks how many there are.
"""

from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from goracs_jax.shapes import AnyArray

AXIS = "train"
BY_ROWS = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()


@cache
def train_mesh() -> Mesh:
    """All devices in a row.

    >>> train_mesh().axis_names
    ('train',)
    """
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def shard_rows(x: np.ndarray) -> jax.Array:
    """Spread rows over the devices, as many on each: the last one is repeated.

    A CPU takes aligned rows (a .npy file that is memory-mapped has such) where they
    lie, without a copy: nobody may write to them afterwards.

    Args:
        x: Shape [N, ...].

    Returns:
        Shape [N rounded up to a multiple of the devices, ...].

    >>> shard_rows(np.ones((3, 2), np.float32)).sharding.spec
    P('train',)
    """
    devices = jax.device_count()
    here = -(-len(x) // devices)

    def part(index: Any) -> np.ndarray:
        first, last, _ = index[0].indices(here * devices)
        if last <= len(x):
            return x[first:last]
        return x[np.minimum(np.arange(first, last), len(x) - 1)]

    shape = (here * devices, *x.shape[1:])
    return jax.make_array_from_callback(
        shape, NamedSharding(train_mesh(), BY_ROWS), part
    )


def copy_everywhere(x: AnyArray) -> jax.Array:
    """The whole array on every device.

    >>> copy_everywhere(np.ones(2, np.float32)).tolist()
    [1.0, 1.0]
    """
    return jax.device_put(x, NamedSharding(train_mesh(), EVERYWHERE))
