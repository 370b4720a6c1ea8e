"""Devices: in a row for selection, in a grid for language models.

One device is a row of one and a grid of one: nothing else in the package asks how many
there are.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray

AXIS = "train"
BY_ROWS = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()
#: Axes of the grid: examples of a batch go over the first, weights over both.
DATA, MODEL = "data", "model"


@cache
def train_mesh() -> Mesh:
    """All devices in a row.

    >>> train_mesh().axis_names
    ('train',)
    """
    return _mesh((jax.device_count(),), (AXIS,))


@cache
def model_mesh(model: int = 1) -> Mesh:
    """All devices in a grid.

    Args:
        model: Devices over which one copy of the activations' features goes.

    Returns:
        The mesh, of shape [devices / model, model].

    Raises:
        InputError: If `model` does not divide the devices.

    >>> dict(model_mesh().shape)["model"]
    1
    """
    devices = jax.device_count()
    if model < 1 or devices % model:
        raise InputError(
            f"a model cannot go over {model} of {devices} devices: give a number that "
            "divides them."
        )
    return _mesh((devices // model, model), (DATA, MODEL))


def _mesh(shape: tuple[int, ...], axes: tuple[str, ...]) -> Mesh:
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * len(axes))


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


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Make this process one of several, before JAX is used for anything.

    Args:
        coordinator: HOST:PORT of the first process, or "auto".
        processes: How many there are.
        process: Which of them this is, from 0.

    Raises:
        InputError: If numbers are missing or do not fit.

    >>> join("localhost:1", 2, None)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: process None of 2 cannot be: ...
    """
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if processes is None or process is None or not 0 <= process < processes:
        raise InputError(
            f"process {process} of {processes} cannot be: with a coordinator, give how "
            "many processes there are and which this is, from 0."
        )
    jax.distributed.initialize(coordinator, processes, process)


def leads() -> bool:
    """Whether this process is the one that writes files.

    >>> leads()
    True
    """
    return jax.process_index() == 0


def meet(place: str) -> None:
    """Wait until every process has come to this place.

    >>> meet("the end")
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def agree(number: int) -> int:
    """The number that the process that leads has.

    >>> agree(3)
    3
    """
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def spread(x: AnyArray, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """An array that every process holds, cut up over a grid.

    An axis goes over those of `spec` by whose size it can be divided, and else stays
    whole.

    >>> spread(np.ones((3, 4)), model_mesh(), PartitionSpec(DATA, MODEL)).shape
    (3, 4)
    """
    fits = (
        axis if axis and size % mesh.shape[axis] == 0 else None
        for size, axis in zip(x.shape, (*spec, *[None] * x.ndim), strict=False)
    )
    sharding = NamedSharding(mesh, PartitionSpec(*fits))
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    whole = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: whole[index])


def by_batch(
    fn: Callable[..., PyTree[jax.Array]], mesh: Mesh | None
) -> Callable[..., PyTree[jax.Array]]:
    """A function of arrays [batch, ...] whose rows go over a grid, its results back.

    Args:
        fn: The function.
        mesh: The grid, or nothing where there is one device.

    Returns:
        The function; every process gets all its results.
    """
    if mesh is None:
        return fn
    everywhere = NamedSharding(mesh, EVERYWHERE)
    collect = jax.jit(lambda tree: tree, out_shardings=everywhere)

    def run(*arrays: np.ndarray) -> PyTree[jax.Array]:
        return collect(fn(*(spread(x, mesh, PartitionSpec(DATA)) for x in arrays)))

    return run
