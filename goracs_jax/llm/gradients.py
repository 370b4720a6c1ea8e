"""LoRA gradients of single examples: their norms, and the losses."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float32, Int

from goracs_jax.choices import Which as Which
from goracs_jax.errors import InputError
from goracs_jax.gradients.rows import (
    GradientRows,
    Projector,
    check_finite,
    gradient_rows,
)
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.loss import example_loss, predicting
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokens import Tokens, check_ids
from goracs_jax.mesh import DATA
from goracs_jax.models.decoder import Decoder


class ExampleScores(NamedTuple):
    """The results of one pass over examples, in input order."""

    norm: Float32[np.ndarray, " examples"]
    loss: Float32[np.ndarray, " examples"]
    prediction_error: Float32[np.ndarray, " examples"]


def gradient_norms(
    model: Decoder,
    tokens: Tokens,
    *,
    which: Which = "last_v_lora_b",
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, " examples"]:
    r"""Compute the gradient norm of each example, g_i = || d L_i / d theta ||_2.

    L_i is the mean cross-entropy of example i over its scored tokens (GORACS, Mei et
    al., KDD 2025), and theta the matrix lora_B of v_proj in the last layer, or all
    adapters.

    Args:
        model: A decoder with adapters in place.
        tokens: Examples with labels that are not shifted.
        which: The parameters theta. For "last_v_lora_b", which the authors of GORACS
            use, the layers before the last run once and without gradient.
        tokens_per_batch: Padded tokens of a batch on each device; by default those of
            `goracs_jax.llm.profile.batch_tokens`.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.

    Returns:
        One norm per example, in input order.

    Raises:
        InputError: v_proj has no adapter where it is needed, or an example has an id
            outside the vocabulary.
        NumericalError: A norm is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> examples = [[1, 2, 3, 4], [5, 6, 7]]
    >>> gradient_norms(model, ragged(examples, examples)).shape
    (2,)
    """
    return example_scores(
        model, tokens, which=which, tokens_per_batch=tokens_per_batch, mapper=mapper
    ).norm


def example_scores(
    model: Decoder,
    tokens: Tokens,
    *,
    which: Which = "last_v_lora_b",
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
) -> ExampleScores:
    """Compute gradient norm, loss and prediction error of each example in one pass.

    Loss and prediction error are those of `goracs_jax.llm.loss.mean_cross_entropy`: the
    means over the scored tokens of -log p_label and of || p - onehot(label) ||_2
    (EL2N).

    Args:
        model: As for `gradient_norms`.
        tokens: As for `gradient_norms`.
        which: As for `gradient_norms`.
        tokens_per_batch: As for `gradient_norms`.
        mapper: As for `gradient_norms`.

    Raises:
        InputError: As `gradient_norms`.
        NumericalError: As `gradient_norms`.
    """
    check_theta(model, tokens, which)
    run = score_pass(model, which, most=int(tokens.scored.max()))
    size = tokens_per_batch or batch_tokens(model, which, tokens)
    return checked_scores(mapper(run, run.batches(tokens, size)))


def score_pass(model: Decoder, which: Which, *, most: int) -> Pass:
    """Make the pass that takes gradient norms, losses and prediction errors.

    Args:
        model: As for `gradient_norms`.
        which: As for `gradient_norms`.
        most: Largest number of scored tokens in an example.

    Returns:
        From a batch to an array [batch, 3].
    """
    parts = nnx.split(model, nnx.LoRAParam, ...)
    return Pass(_scores, (which, most, *parts), model.execution)


def checked_scores(table: Float32[np.ndarray, "examples three"]) -> ExampleScores:
    """Name the columns that `score_pass` gives, and refuse what is not finite.

    Raises:
        NumericalError: A number is not finite; the first such example is named.
    """
    cure = "check the model's weights, or load it in float32."
    scores = ExampleScores(*np.ascontiguousarray(table.T))
    for name, numbers in zip(scores._fields, scores, strict=True):
        kind = "gradient norm" if name == "norm" else name.replace("_", " ")
        check_finite(numbers, f"the {kind}", cure)
    return scores


def check_theta(model: Decoder, tokens: Tokens, which: Which):
    """Check that the parameters exist, and that all ids are in the vocabulary.

    Raises:
        InputError: v_proj has no adapter where it is needed, or an id is outside.
    """
    layers = model.config.num_layers
    if which == "last_v_lora_b" and not model.lora.ranks("v_proj", layers)[-1]:
        raise InputError(
            "which='last_v_lora_b' needs an adapter on v_proj in the last layer, the "
            f"model has them on {', '.join(model.lora.targets)} and not there: add it "
            "or use which='all_lora'."
        )
    check_ids(tokens, model.config.vocab_size)


@partial(jax.jit, static_argnums=(0, 1))
def _scores(which, most, graph, lora, frozen, ids, labels):
    return score_table(lora_rows(which, most, graph, lora, frozen, ids, labels))


def score_table(rows: GradientRows) -> Float32[Array, "batch three"]:
    """Put the fields of `ExampleScores` side by side."""
    return jnp.stack([rows.norms, rows.losses, rows.aux], axis=1)


def lora_rows(
    which: Which,
    most: int,
    graph,
    lora,
    frozen,
    ids: Int[Array, "batch time"],
    labels: Int[Array, "batch time"],
    project: Projector | None = None,
) -> GradientRows:
    """Give the decoder's loss to `gradient_rows`; its aux is the prediction error."""
    model = nnx.merge(graph, lora, frozen)
    if which == "last_v_lora_b":
        is_theta = nnx.All(nnx.PathContains("v_proj"), nnx.PathContains("lora_b"))
        parts, theta, rest = nnx.split(model.last_layer(), is_theta, ...)
        inputs = model.prefix(ids)  # [batch, time, dim]: no gradient goes through here
        run = lambda layer, x, at: (model, model.tail(layer, x, at))
    else:
        # No gradient goes through the layers below all adapters either.
        parts, theta, rest, inputs = graph, lora, frozen, model.lower(ids)
        run = lambda whole, text, at: (whole, whole.hidden_at(text, at))

    def loss(theta, rest, example):
        inputs, labels = example
        # The head is that of the changed model, because an adapter may train it.
        at = predicting(labels, most)
        changed, hidden = run(nnx.merge(parts, theta, rest), inputs, at)
        found = example_loss(changed)(hidden, labels, at)
        return found.loss, found.prediction_error

    examples = (inputs, labels)
    return gradient_rows(
        loss, theta, rest, examples, project=project, spmd_axis_name=DATA
    )
