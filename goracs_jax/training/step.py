"""One training step: the exact gradient of a batch, from micro-batches of any size.

The loss of a batch is the mean over all of its scored tokens. Micro-batches add up the
sums of the loss and of the gradient, and the end of the step divides them by the number
of scored tokens. The dropout of an example depends on its content, the seed and the
epoch, not on its step or micro-batch. The split into micro-batches therefore changes
only rounding.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32, Int, PyTree

from goracs_jax.llm.batches import Batch
from goracs_jax.llm.loss import example_loss, predicting
from goracs_jax.mesh import DATA
from goracs_jax.models import Decoder, with_dropout
from goracs_jax.models.attention import rows_at
from goracs_jax.models.lower import LowerStates

#: Places of scored tokens; None means all.
Places: TypeAlias = Int[Array, "batch places"] | None


class ModelParts(NamedTuple):
    """A model that is split into its structure, its adapters and its frozen weights."""

    graph: nnx.GraphDef
    lora: PyTree
    frozen: PyTree


class Sums(NamedTuple):
    """The loss and its gradient, summed over scored tokens."""

    loss: Float32[Array, ""]
    gradient: PyTree


class Update(NamedTuple):
    """The state after a step, its loss, and its gradient norm before clipping."""

    lora: PyTree
    opt_state: PyTree
    loss: Float32[Array, ""]
    grad_norm: Float32[Array, ""]


def split(model: Decoder) -> ModelParts:
    """Split a model into its structure, its adapters and its frozen weights."""
    return ModelParts(*nnx.split(model, nnx.LoRAParam, ...))


def num_scored(batches: list[Batch]) -> int:
    """Count the tokens that are predicted, which excludes the first of each sequence.

    >>> import numpy as np
    >>> from goracs_jax.llm.tokens import NOT_SCORED
    >>> row = np.array([[3, 4, NOT_SCORED]], np.int32)
    >>> num_scored([Batch(np.array([0]), row, row)])
    1
    """
    return sum(int((batch.labels[:, 1:] >= 0).sum()) for batch in batches)


@jax.jit
def zero_sums(parts: ModelParts) -> Sums:
    """Return sums of zero, with which a step starts."""
    execution = nnx.merge(*parts).execution
    zeros = jax.tree.map(jnp.zeros_like, parts.lora)
    return execution.everywhere(Sums(jnp.zeros(()), zeros))


@partial(jax.jit, donate_argnames="sums", static_argnames="most")
def accumulate(
    parts: ModelParts,
    sums: Sums,
    batch: Batch,
    key: jax.Array,
    lower: LowerStates | None = None,
    *,
    most: int,
) -> Sums:
    """Add the loss and the gradient of a micro-batch to the sums of its step.

    Args:
        parts: The model.
        sums: The sums so far, which are overwritten.
        batch: The micro-batch; its `rows` tell apart the dropout of examples.
        key: Random key of the epoch's dropout.
        lower: What `Decoder.lower` returns for the batch, if it was kept.
        most: Largest number of scored tokens in an example.

    Returns:
        The new sums.
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(batch.rows)
    # Outside of what is differentiated: no gradient goes through these layers.
    text = nnx.merge(*parts).lower(batch.ids if lower is None else lower)

    def total(lora: PyTree) -> Float32[Array, ""]:
        model = nnx.merge(parts.graph, lora, parts.frozen)
        at = _places(batch.labels, most)
        # With dropout the last layer runs at all tokens, so that the masks do not
        # depend on which tokens are scored.
        if model.lora.dropout > 0:
            one = lambda text, key: with_dropout(model, key).hidden(text)
            hidden = jax.vmap(one, spmd_axis_name=DATA)(text, keys)
            hidden = hidden if at is None else rows_at(hidden, at)
        else:
            hidden = model.hidden_at(text, at)
        return _loss_sum(model, hidden, batch.labels, at)

    loss, gradient = jax.value_and_grad(total)(parts.lora)
    added = jax.tree.map(jnp.add, sums, Sums(loss, gradient))
    return nnx.merge(*parts).execution.everywhere(added)


@partial(jax.jit, static_argnames="most")
def loss_sum(
    parts: ModelParts, batch: Batch, lower: LowerStates | None = None, *, most: int
) -> Float32[Array, ""]:
    """Return the loss of a batch, summed over its scored tokens, without dropout.

    Args:
        parts: The model.
        batch: The batch.
        lower: As for `accumulate`.
        most: Largest number of scored tokens in an example.
    """
    model, text = nnx.merge(*parts), batch.ids if lower is None else lower
    at = _places(batch.labels, most)
    return _loss_sum(model, model.hidden_at(text, at), batch.labels, at)


@partial(jax.jit, static_argnums=0)
def update(
    optimizer: optax.GradientTransformation,
    lora: PyTree,
    opt_state: PyTree,
    sums: Sums,
    count: Float32[Array, ""],
) -> Update:
    """Update the adapters with the mean gradient.

    Args:
        optimizer: The optimiser.
        lora: The adapters.
        opt_state: The optimiser's state.
        sums: The sums over the micro-batches of the step.
        count: Number of scored tokens in the step.

    Returns:
        The new adapters and optimiser state, the mean loss and the gradient norm.
    """
    gradient = jax.tree.map(lambda g: g / count, sums.gradient)
    changes, opt_state = optimizer.update(gradient, opt_state, lora)
    norm = optax.tree.norm(gradient)
    return Update(
        optax.apply_updates(lora, changes), opt_state, sums.loss / count, norm
    )


@jax.jit
def running_mean(mean: PyTree, new: PyTree, count: Float32[Array, ""]) -> PyTree:
    r"""Add adapters to the mean of some others.

        mean_k = mean_{k-1} + (new - mean_{k-1}) / k

    Args:
        mean: The mean of k - 1 adapters, in float32 as all of them are.
        new: The adapters to add.
        count: The number k, this one included.

    >>> running_mean(jnp.array([2.0]), jnp.array([5.0]), jnp.float32(3)).tolist()
    [3.0]
    """
    return jax.tree.map(lambda m, x: m + (x - m) / count, mean, new)


def _places(labels: Int[ArrayLike, "batch time"], most: int) -> Places:
    places = partial(predicting, most=most)
    return jax.vmap(places, spmd_axis_name=DATA)(jnp.asarray(labels))


def _loss_sum(
    model: Decoder,
    hidden: Float[Array, "batch places dim"],
    labels: Int[ArrayLike, "batch time"],
    at: Places,
) -> Float32[Array, ""]:
    loss_of = example_loss(model)

    def one(hidden: Array, labels: Array, at: Array | None) -> Float32[Array, ""]:
        return loss_of(hidden, labels, at).loss * jnp.sum(labels[1:] >= 0)

    by_example = jax.vmap(one, spmd_axis_name=DATA)
    return jnp.sum(by_example(hidden, jnp.asarray(labels), at))
