"""The loss of each example under some adapters of a model, by forward passes alone."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float32, Int

from goracs_jax.errors import InputError
from goracs_jax.gradients.rows import check_finite
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.loss import example_loss, predicting
from goracs_jax.llm.lower import LowerTable, reading
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokens import Tokens, check_ids
from goracs_jax.mesh import DATA
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lower import LowerStates


def example_losses(
    models: Sequence[Decoder],
    tokens: Tokens,
    *,
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
    lower: LowerTable | None = None,
) -> Float32[np.ndarray, "examples models"]:
    """Compute the mean cross-entropy of each example over its scored tokens.

    Args:
        models: Decoders that differ in the weights of their adapters alone; they share
            the frozen weights of the first.
        tokens: Examples with labels that are not shifted.
        tokens_per_batch: Padded tokens of a batch on each device; by default those of
            `goracs_jax.llm.profile.batch_tokens`.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.
        lower: What the layers below all adapters make of the texts, if it was kept.

    Returns:
        One row per example, in input order, with one loss (in nats) per model.

    Raises:
        InputError: An example has an id outside the vocabulary, or the adapters have
            different shapes.
        NumericalError: A loss is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> examples = [[1, 2, 3, 4], [5, 6, 7]]
    >>> example_losses([model], ragged(examples, examples)).shape
    (2, 1)
    """
    first, *others = models
    if any(m.config != first.config or m.lora != first.lora for m in others):
        raise InputError(
            "losses are taken of models that differ in the weights of their adapters "
            "alone: give adapters of one shape."
        )
    check_ids(tokens, first.config.vocab_size)
    run = loss_pass(models, most=int(tokens.scored.max()))
    size = tokens_per_batch or batch_tokens(first, "validation", tokens)
    found = mapper(reading(run, lower, tokens), run.batches(tokens, size))
    check_finite(found, "the loss", "check the model's weights, or load it in float32.")
    return found


def loss_drop(
    losses: Float32[np.ndarray, "examples two"],
) -> Float32[np.ndarray, " examples"]:
    r"""Return by what share the loss of each example falls along a path.

        r_i = (L_i - L'_i) / max(L_i, L'_i),   between -1 and 1,

    with the losses L_i at the start and L'_i at the end of a short training on the
    target examples. Where the loss falls this is the score (L_i - L'_i) / L_i of Yang,
    He and Cheng (arXiv 2605.09404). Where it rises theirs has no bound, so that one
    example with almost no loss at the start would decide the scale of all rewards; both
    give the same order. An example without loss has no drop.

    Args:
        losses: L_i and L'_i, from `example_losses`.

    >>> loss_drop(np.array([[2.0, 1.0], [1.0, 4.0], [0.0, 0.0]], np.float32)).tolist()
    [0.5, -0.75, 0.0]
    """
    start, end = losses.T
    largest = np.maximum(start, end)
    return (start - end) / np.where(largest > 0, largest, 1)


def loss_pass(models: Sequence[Decoder], *, most: int) -> Pass:
    """Make the pass that takes losses; see `example_losses`.

    Args:
        models: As for `example_losses`.
        most: Largest number of scored tokens in an example.

    Returns:
        From a batch, and its lower states where these were kept, to an array
        [batch, models].
    """
    graph, lora, frozen = nnx.split(models[0], nnx.LoRAParam, ...)
    others = [nnx.state(model, nnx.LoRAParam) for model in models[1:]]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), lora, *others)
    return Pass(_losses, (most, graph, stacked, frozen), models[0].execution)


@partial(jax.jit, static_argnums=0)
def _losses(
    most: int,
    graph,
    adapters,
    frozen,
    ids: Int[Array, "batch time"],
    labels: Int[Array, "batch time"],
    lower: LowerStates | None = None,
) -> Float32[Array, "batch models"]:
    at = jax.vmap(partial(predicting, most=most), spmd_axis_name=DATA)(labels)
    text = ids if lower is None else lower

    def losses(lora) -> Float32[Array, " batch"]:
        model = nnx.merge(graph, lora, frozen)
        of = lambda *example: example_loss(model)(*example).loss
        return jax.vmap(of, spmd_axis_name=DATA)(model.hidden_at(text, at), labels, at)

    # One after the other in one program: it is compiled once for any number of models.
    return jax.lax.map(losses, adapters).T
