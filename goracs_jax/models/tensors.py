"""Fill a module with the named tensors of a checkpoint; none may be left over."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import PyTree

from goracs_jax.errors import InputError

Slices = tuple[slice, ...]


class Tensors(NamedTuple):
    """The named tensors of a checkpoint: all shapes, and parts of them read one by one.

    `read` takes a name and the slices of a part; without slices it reads all. What is
    named in `float8` has numbers of 8 bits, which mean nothing without their scales.
    """

    where: str
    shapes: dict[str, tuple[int, ...]]
    read: "Read"
    float8: frozenset[str] = frozenset()


class Read(Protocol):
    """Reads a part of a tensor, as one slice for each of its axes."""

    def __call__(self, name: str, part: Slices = (), /) -> np.ndarray: ...  # noqa: D102


def renamed(tensors: Tensors, rename: Callable[[str], str]) -> Tensors:
    """Give the tensors of a checkpoint other names.

    Args:
        tensors: The checkpoint.
        rename: From a name in the checkpoint to a new one.

    Raises:
        InputError: Two tensors would have the same name.
    """
    stored: dict[str, str] = {}
    for name in tensors.shapes:
        if (new := rename(name)) in stored:
            raise InputError(
                f"{tensors.where}: {stored[new]} and {name} are the same tensor: "
                "remove one of them."
            )
        stored[new] = name
    shapes = {new: tensors.shapes[name] for new, name in stored.items()}
    read = lambda name, part=(): tensors.read(stored[name], part)
    return Tensors(tensors.where, shapes, read)


def fill(
    skeleton: PyTree,
    names: Mapping[str, str],
    tensors: Tensors,
    *,
    ignore: Callable[[str], bool],
) -> PyTree:
    """Read every weight of a module from a checkpoint.

    A device's part of a weight is read from the disk for this device alone. The host
    holds one part, and its layers while they are stacked, whatever the size of the
    model. (A tensor of a GGUF file is decoded as a whole for every part.)

    Args:
        skeleton: State of the module, of which only shapes, types and shardings over a
            grid are used. Weights under "layers" have a leading layer axis.
        names: From paths in the module to names in the checkpoint, "{}" for the layer.
        tensors: The checkpoint. Arrays at a path that ends in "kernel" or "lora_*"
            are stored transposed.
        ignore: Whether a name may be in the checkpoint without being read.

    Returns:
        The state with its values.

    Raises:
        InputError: Tensors are missing, unexpected or of the wrong shape (the message
            counts them and names the first ones), not floats, or not finite.
    """
    wanted = {
        ".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(skeleton)
    }
    expected = {}  # from names in the checkpoint to shapes there
    for path, leaf in wanted.items():
        stacked = path.startswith("layers.")
        shape = leaf.shape[1:] if stacked else leaf.shape
        shape = shape[::-1] if _transposed(path) else shape
        for name in _stored_names(names[path], leaf.shape[0] if stacked else None):
            expected[name] = shape
    account(expected, tensors, ignore)

    def value(path: str, leaf: Any) -> jax.Array:
        stacked, turned = path.startswith("layers."), _transposed(path)
        stored = _stored_names(names[path], leaf.shape[0] if stacked else None)

        def read(name: str, inner: Slices) -> np.ndarray:
            tensor = tensors.read(name, inner[::-1] if turned else inner)
            where = f"{tensors.where}: tensor {name}"
            return finite_floats(tensor.T if turned else tensor, leaf.dtype, where)

        def part(index: Any) -> np.ndarray:
            rows = [
                read(name, index[1:] if stacked else index)
                for name in (stored[index[0]] if stacked else stored)
            ]
            return np.stack(rows) if stacked else rows[0]

        sharding = leaf.get_value().sharding
        if not isinstance(sharding, NamedSharding):
            return jnp.asarray(part((slice(None),) * len(leaf.shape)))
        parts = sharding.addressable_devices_indices_map(leaf.shape).items()
        put = [jax.device_put(part(index), device) for device, index in parts]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, put)

    return nnx.from_flat_state(
        [
            (path, leaf.replace(value(".".join(map(str, path)), leaf)))
            for path, leaf in nnx.to_flat_state(skeleton)
        ]
    )


def finite_floats(tensor: np.ndarray, dtype: Any, where: str) -> np.ndarray:
    """Return a tensor of floats in another type, after a look at every number.

    Args:
        tensor: What was read.
        dtype: The type that is wanted.
        where: The tensor's file and name, for messages.

    Raises:
        InputError: The numbers are integers or booleans, one is NaN or infinite, or one
            is too large for the type.

    >>> finite_floats(np.array([1.5, np.inf]), np.float32, "m: tensor w")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: m: tensor w has NaN or infinity: ...
    """
    if not jnp.issubdtype(tensor.dtype, jnp.floating) or tensor.itemsize < 2:
        raise InputError(
            f"{where} has numbers of type {tensor.dtype}, not floats of 16 bits or "
            "more: give them as they were before any quantisation, as float32."
        )
    with np.errstate(over="ignore"):
        found = tensor.astype(dtype)
    if not _all_finite(found):
        if _all_finite(tensor):
            narrow = np.dtype(dtype).itemsize < 4
            wider = "give a wider --dtype" if narrow else "take an earlier checkpoint"
            raise InputError(
                f"{where} has numbers that {np.dtype(dtype)} cannot hold: {wider}."
            )
        raise InputError(
            f"{where} has NaN or infinity: fetch it again, or take an earlier "
            "checkpoint."
        )
    return found


def _all_finite(x: np.ndarray) -> bool:
    """Tell whether all floats are finite, in one pass over their bits.

    Without the sign, the bits of a float are an integer that grows with it; infinity
    comes after all finite numbers, and NaN after infinity. NumPy has no fast `isfinite`
    for bfloat16.
    """
    bits = np.dtype(f"u{x.itemsize}")
    infinity = np.array(np.inf, x.dtype).view(bits)
    sign = bits.type(1) << bits.type(8 * x.itemsize - 1)
    return bool(np.max(x.view(bits) & ~sign, initial=0) < infinity)


def spread(state: PyTree, names: Mapping[str, str]) -> dict[str, Callable[[], Any]]:
    """Turn the state of a module into the tensors of a checkpoint; inverse of `fill`.

    Args:
        state: State of a module; weights under "layers" have a leading layer axis.
        names: From paths in the module to names in the checkpoint, "{}" for the layer.

    Returns:
        From names in the checkpoint to functions that make the arrays as stored there.
    """
    host = lambda tensor: np.ascontiguousarray(np.asarray(tensor()))
    arrays = unstacked(state, names).items()
    return {name: partial(host, tensor) for name, tensor in arrays}


def unstacked(
    state: PyTree, names: Mapping[str, str]
) -> dict[str, Callable[[], jax.Array]]:
    """Return what `spread` does, with arrays that stay on their devices."""

    def tensor(path: str, leaf: Any, layer: int | None) -> jax.Array:
        value = leaf[...] if layer is None else leaf[layer]
        return value.T if _transposed(path) else value

    made = {}
    for keys, leaf in nnx.to_flat_state(state):
        path = ".".join(map(str, keys))
        layers = range(leaf.shape[0]) if path.startswith("layers.") else [None]
        for layer in layers:
            name = names[path].format(layer)
            made[name] = partial(tensor, path, leaf, layer)
    return made


def _transposed(path: str) -> bool:
    return path.rsplit(".", 1)[-1] in ("kernel", "lora_a", "lora_b")


def _stored_names(pattern: str, num_layers: int | None) -> list[str]:
    if num_layers is None:
        return [pattern]
    return [pattern.format(layer) for layer in range(num_layers)]


def account(
    expected: Mapping[str, tuple[int, ...]],
    tensors: Tensors,
    ignore: Callable[[str], bool],
    *,
    cure: str = "use weights and config of the same model",
) -> None:
    """Check that a checkpoint has the tensors that are expected, and no others.

    Args:
        expected: Their names and shapes.
        tensors: The checkpoint.
        ignore: Whether a name may be in the checkpoint without being expected.
        cure: What to do about a difference.

    Raises:
        InputError: Tensors are missing, unexpected or of the wrong shape; the message
            counts them and names the first ones.
    """
    found = tensors.shapes
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected and not ignore(name)]
    wrong = [
        f"{name} {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != tuple(shape)
    ]
    problems = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in [
            ("missing", missing),
            ("unexpected", unexpected),
            ("of the wrong shape", wrong),
        ]
        if names
    ]
    if problems:
        raise InputError(
            f"{tensors.where}: tensors do not fit the model: {'; '.join(problems)}: "
            f"{cure}."
        )


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
