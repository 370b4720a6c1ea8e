"""LoRA gradients of single examples: their norms and projections, and the losses."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from goracs_jax.choices import Which as Which
from goracs_jax.errors import InputError
from goracs_jax.gradients.projection import project
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
    _check(model, tokens, which)
    run = score_pass(model, which, most=int(tokens.scored.max()))
    size = tokens_per_batch or batch_tokens(model, which, tokens)
    return _finite(mapper(run, run.batches(tokens, size)))


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
        tokens_per_batch: As for `gradient_norms`.
        mapper: As for `gradient_norms`; the mapper of a stage keeps rows on disk.

    Raises:
        InputError: As `gradient_norms`; or `dim` is not positive.
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
    _check(model, tokens, which)
    most = int(tokens.scored.max())
    run = projection_pass(model, which, most=most, dim=dim, key=key, dtype=dtype)
    size = tokens_per_batch or batch_tokens(model, which, tokens, projected=dim)
    found = mapper(run, run.batches(tokens, size))
    return Projected(_finite(found[0]), found[1])


def projection_pass(
    model: Decoder,
    which: Which,
    *,
    most: int,
    dim: int,
    key: jax.Array,
    dtype: Literal["float32", "float16"] = "float32",
) -> Pass:
    """Make the pass that also projects gradients; see `projected_gradients`.

    Args:
        model: As for `gradient_norms`.
        which: As for `gradient_norms`.
        most: Largest number of scored tokens in an example.
        dim: Numbers kept per example.
        key: The random key of the projection.
        dtype: The type of the numbers that are kept.

    Returns:
        From a batch to arrays [batch, 3] and [batch, dim].
    """
    parts = nnx.split(model, nnx.LoRAParam, ...)
    # The key is passed as words: as an array on one device, it could not enter a
    # program that runs on others.
    words = np.asarray(jax.random.key_data(key))
    kept = (dim, dtype, jax.random.key_impl(key), words)
    return Pass(_projected, (which, most, *kept, *parts), model.execution)


def _finite(table: Float32[np.ndarray, "examples three"]) -> ExampleScores:
    cure = "check the model's weights, or load it in float32."
    scores = ExampleScores(*np.ascontiguousarray(table.T))
    for name, numbers in zip(scores._fields, scores, strict=True):
        kind = "gradient norm" if name == "norm" else name.replace("_", " ")
        check_finite(numbers, f"the {kind}", cure)
    return scores


def _check(model: Decoder, tokens: Tokens, which: Which):
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
    return _table(_rows(which, most, graph, lora, frozen, ids, labels))


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _projected(which, most, dim, dtype, kind, words, graph, lora, frozen, ids, labels):
    key = jax.random.wrap_key_data(words, impl=kind)
    to_dim = lambda gradients: project(gradients, key, dim).astype(dtype)
    rows = _rows(which, most, graph, lora, frozen, ids, labels, to_dim)
    return _table(rows), rows.projected


def _table(rows: GradientRows) -> Float32[Array, "batch three"]:
    return jnp.stack([rows.norms, rows.losses, rows.aux], axis=1)


def _rows(
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
        parts, theta, rest, inputs = graph, lora, frozen, ids
        run = lambda whole, ids, at: (whole, whole.hidden_at(ids, at))

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
