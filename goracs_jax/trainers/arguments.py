"""Arguments that every function for other trainers takes, and what is refused."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh

from goracs_jax.errors import InputError
from goracs_jax.mesh import DATA


def checked_count(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises:
        InputError: It is something else, such as a float or a bool.

    >>> checked_count("batch_size", 2.5)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: batch_size must be a whole number of at least 1, ...
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return int(value)


def checked_mesh(mesh: Mesh | None) -> Mesh | None:
    """Return a mesh whose axes leave shardings to the compiler.

    `jax.make_mesh` makes axes that a program's types must name, and a loss that was
    written for one device does not.

    Raises:
        InputError: It is no mesh of devices, or has no axis `data`.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise InputError(
            f"mesh must be a mesh of devices, as jax.make_mesh((8,), ({DATA!r},)), got "
            f"{type(mesh).__name__}."
        )
    if DATA not in mesh.axis_names:
        raise InputError(
            f"the mesh has the axes {mesh.axis_names}: examples go over one that is "
            f"called {DATA!r}, as in jax.make_mesh((8,), ('data',))."
        )
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


def key_parts(key: Any) -> tuple[Any, tuple[int, ...]]:
    """Return the kind and the words of one random key: a key is an array on one device.

    As in `jax.random`, the words alone, as of `jax.random.PRNGKey`, are a key as well.

    Raises:
        InputError: It is no random key, or more than one.

    >>> key_parts(jax.random.key(3))[1], key_parts(jax.random.PRNGKey(3))[1]
    ((0, 3), (0, 3))
    """
    words = jax.eval_shape(jax.random.PRNGKey, 0)
    is_array = isinstance(key, jax.Array)
    if is_array and (key.shape, key.dtype) == (words.shape, words.dtype):
        key = jax.random.wrap_key_data(key)
    if not is_array or key.shape or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise InputError(
            "project_dim needs one random key, key=jax.random.key(0), got "
            f"{form_of(key)}."
        )
    return jax.random.key_impl(key), tuple(jax.random.key_data(key).tolist())


def check_source(source: Any, what: str) -> None:
    """Refuse a source that has no length, or that gives no rows by number.

    Raises:
        InputError: It is an iterator, or a mapping, or no source at all.
    """
    numbered = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if not numbered or isinstance(source, Mapping):
        raise InputError(
            f"{what} must be a source with a length and rows by number, got "
            f"{type(source).__name__}: read it into a list first."
        )


def form_of(value: Any) -> str:
    """Say in words what kind of value something is: an array, or a pytree of arrays.

    >>> form_of(jnp.ones(2)), form_of(None), form_of({"a": 1})
    ('float32 of shape (2,)', 'None', 'a dict of 1 arrays')
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} of shape {value.shape}"
    leaves = jax.tree.leaves(value)
    if leaves and leaves[0] is not value:
        return f"a {type(value).__name__} of {len(leaves)} arrays"
    return repr(value)
