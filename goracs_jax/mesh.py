"""Meshes of devices: a row of them for selection, a grid for language models.

A mesh is a value. The code that first sees the devices makes it, and every program
takes it from its arguments. The same program therefore runs on one device or on many,
and can be compiled for devices that are not there. One device is a row of one and a
grid of one.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray

Devices = Sequence[Any]  # of jax.Device, which pyright takes for a variable
AXIS = "train"
BY_ROWS = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()
#: Axes of a grid: the examples of a batch go over the first, weights over both.
DATA, MODEL = "data", "model"


def row_mesh(devices: Devices) -> Mesh:
    """Put devices in a row, over which the training rows of a selection go.

    >>> row_mesh(jax.devices()).axis_names
    ('train',)
    """
    return _mesh(devices, (len(devices),), (AXIS,))


def model_mesh(devices: Devices, model: int = 1) -> Mesh:
    """Put devices in a grid for a language model.

    Args:
        devices: The devices.
        model: Over how many of them the features of one example go.

    Returns:
        The mesh, of shape [devices / model, model].

    Raises:
        InputError: If `model` does not divide the number of devices.

    >>> dict(model_mesh(jax.devices()).shape)["model"]
    1
    """
    if model < 1 or len(devices) % model:
        raise InputError(
            f"--model-devices must divide the {len(devices)} devices that JAX sees, "
            f"got {model}."
        )
    return _mesh(devices, (len(devices) // model, model), (DATA, MODEL))


def _mesh(devices: Devices, shape: tuple[int, ...], axes: tuple[str, ...]) -> Mesh:
    kinds = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(shape, axes, axis_types=kinds, devices=devices)


def shard_rows(x: np.ndarray, mesh: Mesh) -> jax.Array:
    """Spread rows evenly over the devices of a row; the last row is repeated.

    A CPU uses aligned rows (those of a memory-mapped .npy file are) where they lie,
    without a copy: nobody may write to them afterwards.

    Args:
        x: Shape [N, ...].
        mesh: Devices in a row.

    Returns:
        Shape [N rounded up to a multiple of the devices, ...].

    >>> mesh = row_mesh(jax.devices())
    >>> shard_rows(np.ones((3, 2), np.float32), mesh).sharding.spec
    P('train',)
    """
    local = -(-len(x) // mesh.size)

    def part(index: Any) -> np.ndarray:
        first, last, _ = index[0].indices(local * mesh.size)
        if last <= len(x):
            return x[first:last]
        return x[np.minimum(np.arange(first, last), len(x) - 1)]

    shape = (local * mesh.size, *x.shape[1:])
    return jax.make_array_from_callback(shape, NamedSharding(mesh, BY_ROWS), part)


def replicate(x: AnyArray, mesh: Mesh) -> jax.Array:
    """Copy the whole array to every device of a mesh.

    >>> replicate(np.ones(2, np.float32), row_mesh(jax.devices())).tolist()
    [1.0, 1.0]
    """
    return jax.device_put(x, NamedSharding(mesh, EVERYWHERE))


def replicated(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Have an array on every device, as `replicate`, inside a program.

    >>> mesh = row_mesh(jax.devices())
    >>> jax.jit(lambda x: replicated(x, mesh))(np.ones(2, np.float32)).tolist()
    [1.0, 1.0]
    """
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, EVERYWHERE))


def replicate_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """Copy a random key to every device of a mesh; other processes may have some.

    >>> replicate_key(jax.random.key(0), row_mesh(jax.devices())).shape
    ()
    """
    words = replicate(np.asarray(jax.random.key_data(key)), mesh)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Join a group of processes; call it before JAX is used for anything.

    Args:
        coordinator: HOST:PORT of the first process, or "auto" on clusters that JAX
            knows.
        processes: How many processes there are.
        process: The number of this one, from 0.

    Raises:
        InputError: If a number is missing or out of range.

    >>> join("localhost:1", 2, None)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: process None of 2 cannot be: ...
    """
    if coordinator == "auto":
        if processes is not None or process is not None:
            raise InputError(
                "--coordinator auto finds out --processes and --process: leave them "
                "out."
            )
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"--coordinator auto: JAX does not know this cluster ({error}): give "
                "HOST:PORT, --processes and --process."
            ) from None
        return
    _, _, port = coordinator.rpartition(":")
    if ":" not in coordinator or not port.isdigit():
        raise InputError(f"--coordinator must be HOST:PORT or auto, got {coordinator}.")
    if processes is None or process is None or not 0 <= process < processes:
        raise InputError(
            f"process {process} of {processes} cannot be: with a coordinator, give the "
            "number of processes, and the number of this one, from 0."
        )
    jax.distributed.initialize(coordinator, processes, process)


def leads() -> bool:
    """Tell whether this process is the first, the one that writes files.

    >>> leads()
    True
    """
    return jax.process_index() == 0


def meet(place: str) -> None:
    """Wait until every process has called this function with the same name.

    >>> meet("the end")
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def agree(number: int) -> int:
    """Return the first process's number, in every process.

    >>> agree(3)
    3
    """
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def fitted(
    shape: tuple[int, ...], mesh: Mesh | AbstractMesh, spec: PartitionSpec
) -> NamedSharding:
    """Return the sharding of an array, over the mesh axes that divide it evenly.

    An axis of the array that is no multiple of its mesh axis stays whole.

    >>> grid = AbstractMesh((2, 2), (DATA, MODEL))
    >>> fitted((3, 4), grid, PartitionSpec(DATA, MODEL)).spec
    P(None, 'model')
    """
    axes = (
        axis if axis and size % mesh.shape[axis] == 0 else None
        for size, axis in zip(shape, (*spec, *[None] * len(shape)), strict=False)
    )
    return NamedSharding(mesh, PartitionSpec(*axes))


def spread(x: AnyArray, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """Cut up an array, which every process has whole, over the devices of a grid.

    Args:
        x: The array.
        mesh: The grid.
        spec: The mesh axis that each axis of the array goes over; see `fitted`.

    >>> mesh = model_mesh(jax.devices())
    >>> spread(np.ones((3, 4)), mesh, PartitionSpec(DATA, MODEL)).shape
    (3, 4)
    """
    sharding = fitted(x.shape, mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    whole = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: whole[index])


def spread_batch(arrays: PyTree, mesh: Mesh | None) -> PyTree:
    """Cut up arrays [batch, ...] over the axis `data` of a grid.

    Args:
        arrays: Arrays that every process has whole.
        mesh: The grid; None leaves the arrays as they are.

    >>> spread_batch(np.ones((2, 3)), model_mesh(jax.devices()[:1])).sharding.spec
    P('data', None)
    """
    if mesh is None:
        return arrays
    return jax.tree.map(lambda x: spread(x, mesh, PartitionSpec(DATA)), arrays)
