"""What is asked of a loss and its arguments before any work."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from goracs_jax.errors import InputError
from goracs_jax.trainers.examples import ExampleBatch, leaves_of


def check_arrays(params: PyTree, frozen: PyTree) -> None:
    """Refuse params that are not floats, and what is no array among frozen.

    Raises:
        InputError: Params has no leaf or one that is not a float, or frozen has one
            that is no number.

    >>> check_arrays({"w": jnp.ones(2), "step": jnp.array(3)}, ())
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: params['step'] is int32: a gradient is taken of ...
    """
    floats = leaves_of(params)
    if not floats:
        raise InputError(
            "params has no arrays: give the floats whose gradient is to be taken."
        )
    for path, leaf in floats:
        if not _is_number(leaf) or not jnp.issubdtype(
            jnp.result_type(leaf), jnp.floating
        ):
            raise InputError(
                f"params{path} is {_kind(leaf)}: a gradient is taken of floats alone, "
                "so put it into frozen."
            )
    for path, leaf in leaves_of(frozen):
        if not _is_number(leaf):
            raise InputError(
                f"frozen{path} is {_kind(leaf)}, no array: let the loss close over it, "
                "and keep arrays in frozen."
            )


def check_loss(
    loss_fn: Callable, has_aux: bool, params: PyTree, frozen: PyTree, example: PyTree
) -> PyTree[jax.ShapeDtypeStruct]:
    """Trace a loss of one example, without running it, and return the form of its aux.

    Args:
        loss_fn: The loss.
        has_aux: Whether it is said to return aux.
        params: Its parameters.
        frozen: Its other arrays.
        example: Shapes and types of one example.

    Raises:
        InputError: It does not return a scalar float, or a pair if it has aux.
    """
    found = jax.eval_shape(loss_fn, params, frozen, example)
    aux = None
    if has_aux:
        if not isinstance(found, tuple) or len(found) != 2:
            raise InputError(
                f"with has_aux=True loss_fn returns (loss, aux), got {_form(found)}."
            )
        found, aux = found
    scalar = getattr(found, "shape", None) == ()
    if not scalar or not jnp.issubdtype(found.dtype, jnp.floating):
        cure = "" if has_aux else "; give has_aux=True if it is (loss, aux)"
        raise InputError(
            "loss_fn must return one float for one example, without a batch axis, got "
            f"{_form(found)}: take the mean over its tokens{cure}."
        )
    return aux


def described(tree: PyTree) -> list:
    """Return path, shape and type of each leaf, as a JSON value."""
    kind = lambda leaf: str(jnp.result_type(leaf)) if _is_number(leaf) else ""
    return [[path, list(np.shape(leaf)), kind(leaf)] for path, leaf in leaves_of(tree)]


def described_batches(batches: Sequence[ExampleBatch]) -> dict[str, int]:
    """Return how many examples there are of each shape; not in which batches."""
    counts: dict[str, int] = {}
    for batch in batches:
        of = str(batch.shape[1])
        counts[of] = counts.get(of, 0) + batch.num_examples
    return counts


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float)


def _kind(leaf: Any) -> str:
    return str(getattr(leaf, "dtype", type(leaf).__name__))


def _form(found: PyTree) -> str:
    if hasattr(found, "shape"):
        return f"{found.dtype} of shape {found.shape}"
    return f"a {type(found).__name__} of {len(jax.tree.leaves(found))} arrays"
