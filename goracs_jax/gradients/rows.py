"""Gradients of single examples, of any pure loss: one example, vmapped over a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, PyTree

from goracs_jax.errors import NumericalError

LossAndAux = tuple[Float[Array, ""], PyTree]
Projector = Callable[[Float[Array, "batch params"]], Float[Array, "batch dim"]]


class GradientRows(NamedTuple):
    """What is known of the gradient of each example of a batch."""

    norms: Float32[Array, " batch"]
    losses: Float32[Array, " batch"]
    aux: PyTree
    projected: Float[Array, "batch dim"] | None


def gradient_rows(
    loss_fn: Callable[[PyTree, PyTree, Any], LossAndAux],
    params: PyTree,
    frozen: PyTree,
    examples: PyTree,
    *,
    project: Projector | None = None,
    spmd_axis_name: str | None = None,
) -> GradientRows:
    r"""Return ||dL_i / dparams||_2, L_i and more for each example i of a batch.

    Norms and projections are computed in float32, whatever the parameters' type. The
    entries of a gradient are in the order of `jax.tree.leaves(params)`. Call it under
    `jax.jit`, with `frozen` among the program's arguments: weights that a program
    closes over become its constants.

    Args:
        loss_fn: From params, frozen and one example to its loss, a scalar, and aux.
        params: The parameters theta, floats.
        frozen: The other arrays that the loss reads.
        examples: A pytree of arrays [batch, ...].
        project: Maps gradients [batch, params] to [batch, dim].
        spmd_axis_name: As in `jax.vmap`: the mesh axis of the batch, for a loss that
            constrains shardings itself.

    >>> loss = lambda w, x, y: (jnp.sum(w * x * y), None)
    >>> examples = jnp.array([[3.0, 4.0], [0.0, 1.0]])
    >>> gradient_rows(loss, jnp.ones(2), 2.0, examples).norms.tolist()
    [10.0, 2.0]
    """

    def one(example: PyTree) -> tuple[LossAndAux, PyTree]:
        def by_params(params: PyTree) -> LossAndAux:
            # New tracers: flax refuses to change a Variable of an outer trace, which a
            # rematerialised layer or dropout in the loss does.
            inner = jax.tree.map(lambda leaf: leaf, frozen)
            return loss_fn(params, inner, example)

        return jax.value_and_grad(by_params, has_aux=True)(params)

    (losses, aux), gradients = jax.vmap(one, spmd_axis_name=spmd_axis_name)(examples)
    gradients = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(gradients)]
    norms = jax.vmap(optax.tree.norm)(gradients)
    projected = None
    if project is not None:
        flat = [leaf.reshape(len(leaf), -1) for leaf in gradients]
        projected = project(jnp.concatenate(flat, axis=1))
    return GradientRows(norms, losses.astype(jnp.float32), aux, projected)


def check_finite(
    rows: Float32[np.ndarray, "examples ..."], what: str, cure: str
) -> None:
    """Refuse numbers that are not finite; the first such example is named, from 1.

    >>> check_finite(np.array([1.0, np.nan], np.float32), "the loss", "lower it.")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.NumericalError: the loss of example 2 is nan (1 of 2 are not ...
    """
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    bad = np.flatnonzero(~finite)
    if len(bad):
        row = np.ravel(rows[bad[0]])
        raise NumericalError(
            f"{what} of example {bad[0] + 1} {'has' if rows.ndim > 1 else 'is'} "
            f"{row[~np.isfinite(row)][0]} ({len(bad)} of {len(rows)} are not finite): "
            f"{cure}"
        )
