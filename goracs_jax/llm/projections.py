"""Random projections of LoRA gradients, plain or as steps of Adam, and their subspaces.

A gradient has as many numbers as there are adapter weights. What is kept of it is made
inside the pass, so that nothing wide is stored:

    gradient [params] -> direction of Adam's step -> projection [dim] -> subspace [k]

where the second and the last part are done on request.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from goracs_jax.errors import InputError
from goracs_jax.gradients.adam import Moments, adam_directions
from goracs_jax.gradients.projection import project
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.gradients import (
    ExampleScores,
    Which,
    check_theta,
    checked_scores,
    lora_rows,
    score_table,
)
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models.decoder import Decoder


class Projected(NamedTuple):
    """The results of one pass over examples, with their projected gradients."""

    scores: ExampleScores
    gradients: Float[np.ndarray, "examples dim"]


def projected_gradients(
    model: Decoder,
    tokens: Tokens,
    *,
    dim: int,
    key: jax.Array,
    dtype: Literal["float32", "float16"] = "float32",
    which: Which = "last_v_lora_b",
    moments: Moments | None = None,
    directions: Float[np.ndarray, "dim k"] | None = None,
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
) -> Projected:
    """Project the gradient of each example at random, as LESS and TRAK do.

    Inner products of projected gradients g', h' estimate those of the gradients, with
    an error of about ||g|| ||h|| / sqrt(dim); see
    `goracs_jax.gradients.projection.project`.
    The entries of a gradient are in the order of `jax.tree.leaves` of the adapters.

    Args:
        model: As for `gradient_norms`.
        tokens: As for `gradient_norms`.
        dim: Numbers kept per example.
        key: The random key of the projection.
        dtype: The type of the numbers that are kept; they are computed in float32.
        which: As for `gradient_norms`.
        moments: Those of Adam after a training of all adapters. With them the direction
            of Adam's next step is projected, as LESS does with training examples; see
            `goracs_jax.gradients.adam.adam_directions`. Norms remain those of the
            gradients.
        directions: An orthonormal basis of a subspace of the projections, as
            `goracs_jax.spaces.leading_directions` finds it. With it the k
            coordinates in this basis are kept in place of `dim` numbers.
        tokens_per_batch: As for `gradient_norms`.
        mapper: As for `gradient_norms`; the mapper of a stage keeps rows on disk.

    Raises:
        InputError: As `gradient_norms`; `dim` is not positive; or the moments or the
            directions are of another size.
        NumericalError: As `gradient_norms`.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> tokens = ragged([[1, 2, 3, 4]], [[1, 2, 3, 4]])
    >>> projected_gradients(model, tokens, dim=5, key=jax.random.key(1)).gradients.shape
    (1, 5)
    """
    if dim < 1:
        raise InputError(f"a projection has at least 1 dimension, got {dim}.")
    check_theta(model, tokens, which)
    _check_sizes(model, which, dim, moments, directions)
    most = int(tokens.scored.max())
    run = projection_pass(
        model,
        which,
        most=most,
        dim=dim,
        key=key,
        dtype=dtype,
        moments=moments,
        directions=directions,
    )
    size = tokens_per_batch or batch_tokens(model, which, tokens, projected=dim)
    found = mapper(run, run.batches(tokens, size))
    return Projected(checked_scores(found[0]), found[1])


def projection_pass(
    model: Decoder,
    which: Which,
    *,
    most: int,
    dim: int,
    key: jax.Array,
    dtype: Literal["float32", "float16"] = "float32",
    moments: Moments | None = None,
    directions: Float[np.ndarray, "dim k"] | None = None,
) -> Pass:
    """Make the pass that also projects gradients; see `projected_gradients`.

    Args:
        model: As for `gradient_norms`.
        which: As for `gradient_norms`.
        most: Largest number of scored tokens in an example.
        dim: Numbers kept per example.
        key: The random key of the projection.
        dtype: The type of the numbers that are kept.
        moments: As for `projected_gradients`.
        directions: As for `projected_gradients`.

    Returns:
        From a batch to arrays [batch, 3] and [batch, dim], or [batch, k].
    """
    parts = nnx.split(model, nnx.LoRAParam, ...)
    # The key is passed as words: as an array on one device, it could not enter a
    # program that runs on others.
    words = np.asarray(jax.random.key_data(key))
    kept = (dim, dtype, jax.random.key_impl(key), words)
    if moments is None and directions is None:
        return Pass(_projected, (which, most, *kept, *parts), model.execution)
    changes = (moments, directions)
    return Pass(_directed, (which, most, *kept, changes, *parts), model.execution)


def _check_sizes(
    model: Decoder,
    which: Which,
    dim: int,
    moments: Moments | None,
    directions: Float[np.ndarray, "dim k"] | None,
) -> None:
    if moments is not None:
        if which != "all_lora":
            raise InputError(
                f"moments are those of all adapters, and which={which!r}: give "
                "which='all_lora'."
            )
        params = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.LoRAParam)))
        if (found := len(moments.nu)) != params:
            raise InputError(
                f"there are moments of {found} adapter weights, and the model has "
                f"{params}: take both from the same training."
            )
    if directions is not None and len(directions) != dim:
        raise InputError(
            f"directions have {len(directions)} numbers, projections {dim}: find the "
            "directions among projections of the same dimension."
        )


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _projected(which, most, dim, dtype, kind, words, graph, lora, frozen, ids, labels):
    key = jax.random.wrap_key_data(words, impl=kind)
    to_dim = lambda gradients: project(gradients, key, dim).astype(dtype)
    rows = lora_rows(which, most, graph, lora, frozen, ids, labels, to_dim)
    return score_table(rows), rows.projected


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _directed(
    which, most, dim, dtype, kind, words, changes, graph, lora, frozen, ids, labels
):
    moments, directions = changes
    key = jax.random.wrap_key_data(words, impl=kind)

    def to_few(gradients: Float[Array, "batch params"]) -> Float[Array, "batch k"]:
        if moments is not None:
            gradients = adam_directions(gradients, moments)
        found = project(gradients, key, dim)
        if directions is not None:
            found = jnp.matmul(found, directions, precision="float32")
        return found.astype(dtype)

    rows = lora_rows(which, most, graph, lora, frozen, ids, labels, to_few)
    return score_table(rows), rows.projected
