"""Per-example LoRA gradient norms of a decoder."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, PyTree

from goracs_jax.errors import InputError
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.layers import softcap
from goracs_jax.tokens import (
    NOT_SCORED,
    Mapper,
    Tokens,
    check_ids,
    make_batches,
    map_batches,
)

# Tokens of a batch whose logits exist at one time: 512 x 49,152 floats are 100 MB.
LOGIT_TOKENS = 512


Which = Literal["last_v_lora_b", "all_lora"]


def gradient_norms(
    model: Decoder,
    tokens: Tokens,
    *,
    which: Which = "last_v_lora_b",
    tokens_per_batch: int = 2048,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, " examples"]:
    r"""How much one step on each example alone would move the adapters.

    g_i = || d L_i / d theta ||_2, with L_i the mean cross-entropy of example i over its
    scored tokens (GORACS, Mei et al., KDD 2025) and theta the matrix lora_B of v_proj
    in the last layer, or all adapters.

    Args:
        model: A decoder with adapters in place.
        tokens: Examples with unshifted labels.
        which: What theta is. For "last_v_lora_b", the gradient the authors use, the
            layers before the last run once and without gradient.
        tokens_per_batch: Padded tokens in one batch.
        mapper: Runs a function over batches; see `goracs_jax.tokens.map_batches`.

    Returns:
        One norm per example, in input order.

    Raises:
        InputError: If v_proj has no adapter where it is needed, an example has an id
            outside the vocabulary, or a norm is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> examples = [[1, 2, 3, 4], [5, 6, 7]]
    >>> gradient_norms(model, ragged(examples, examples)).shape
    (2,)
    """
    if which == "last_v_lora_b" and "v_proj" not in model.lora.targets:
        raise InputError(
            "which='last_v_lora_b' needs an adapter on v_proj, the model has them on "
            f"{', '.join(model.lora.targets)}: add v_proj or use which='all_lora'."
        )
    check_ids(tokens, model.config.vocab_size)
    norms_of_batch = {"last_v_lora_b": _last_v_norms, "all_lora": _all_norms}[which]
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    batches = make_batches(tokens, tokens_per_batch=tokens_per_batch)
    norms = mapper(partial(norms_of_batch, graph, lora, frozen), batches)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise InputError(
            f"the gradient norm of example {bad[0] + 1} is {norms[bad[0]]} "
            f"({len(bad)} of {len(norms)} are not finite): check the model's weights, "
            "or load it in float32."
        )
    return norms


@jax.jit
def _last_v_norms(graph, lora, frozen, ids, labels):
    model = nnx.merge(graph, lora, frozen)
    is_theta = nnx.All(nnx.PathContains("v_proj"), nnx.PathContains("lora_b"))
    layer_graph, theta, rest = nnx.split(model.last_layer(), is_theta, ...)
    x = model.prefix(ids)  # [batch, time, dim]: no gradient goes through here
    hidden = lambda theta, x: model.tail(nnx.merge(layer_graph, theta, rest), x)
    cap = model.config.logit_softcap
    return _norms(hidden, theta, x, labels, model.output_head, cap)


@jax.jit
def _all_norms(graph, lora, frozen, ids, labels):
    model = lambda lora: nnx.merge(graph, lora, frozen)
    hidden = lambda lora, ids: model(lora).hidden(ids)
    head, cap = model(lora).output_head, model(lora).config.logit_softcap
    return _norms(hidden, lora, ids, labels, head, cap)


def _norms(
    hidden: Callable[[PyTree, Array], Float[Array, "time dim"]],
    theta: PyTree,
    inputs: Array,
    labels: Int[Array, "batch time"],
    head: Float[Array, "vocab dim"],
    cap: float | None,
) -> Float32[Array, " batch"]:
    """Norms of d loss / d theta, for the function of one example `hidden`."""
    batch, time = labels.shape
    chunk = max(1, min(time, LOGIT_TOKENS // batch))

    def norm(inputs, labels):
        def loss(theta):
            # The state at t predicts the token at t + 1.
            next_token = jnp.append(labels[1:], NOT_SCORED)
            x = hidden(theta, inputs)
            return mean_cross_entropy(x, head, next_token, chunk, cap)

        return optax.tree.norm(jax.grad(loss)(theta))

    return jax.vmap(norm)(inputs, labels)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def mean_cross_entropy(
    hidden: Float[Array, "time dim"],
    head: Float[Array, "vocab dim"],
    labels: Int[Array, " time"],
    chunk: int,
    cap: float | None = None,
) -> Float32[Array, ""]:
    """Mean over the scored tokens of log sum_v exp(z_v) - z_label.

    The logits z_v = h . w_v are bent by `softcap` if the model has a cap.

    Logits exist for `chunk` tokens at a time. Under differentiation the gradient for
    `hidden` is formed in the same pass, so none are computed twice; the head is
    frozen: its gradient is not formed and counts as zero.

    Args:
        hidden: Final hidden states.
        head: Output rows of the vocabulary.
        labels: The token that follows each state, or -100.
        chunk: Tokens whose logits exist at one time.
        cap: The model's `logit_softcap`.

    Returns:
        The loss; 0 if no token is scored.

    >>> one = mean_cross_entropy(jnp.zeros((3, 2)), jnp.ones((8, 2)), jnp.arange(3), 2)
    >>> float(one)  # log 8
    2.079442
    """
    step = lambda total, part: (total + jnp.sum(_chunk_loss(head, cap, *part)[0]), None)
    total, _ = jax.lax.scan(step, 0.0, _chunks(hidden, labels, chunk))
    return total / _num_scored(labels)


def _cross_entropy_fwd(hidden, head, labels, chunk, cap):
    num_scored = _num_scored(labels)

    def step(total, part):
        loss, probability, bend, label, scored = _chunk_loss(head, cap, *part)
        # d loss / d logits = probability - one_hot(label); the comparison is fused
        # into the subtraction, so no one-hot array exists.
        hit = jnp.arange(head.shape[0]) == label[:, None]
        slope = (probability - hit) * (scored / num_scored)[:, None] * bend
        slope = _dot(slope.astype(head.dtype), head)
        return total + jnp.sum(loss), slope.astype(hidden.dtype)

    total, slopes = jax.lax.scan(step, 0.0, _chunks(hidden, labels, chunk))
    return total / num_scored, slopes.reshape(-1, hidden.shape[1])[: len(labels)]


def _cross_entropy_bwd(chunk, cap, d_hidden, d_loss):
    return (d_loss * d_hidden).astype(d_hidden.dtype), None, None


mean_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def _chunks(hidden, labels, chunk):
    """Pads to whole chunks and splits: [chunks, chunk, dim] and [chunks, chunk]."""
    extra = -len(labels) % chunk
    hidden = jnp.pad(hidden, ((0, extra), (0, 0)))
    labels = jnp.pad(labels, (0, extra), constant_values=NOT_SCORED)
    return hidden.reshape(-1, chunk, hidden.shape[1]), labels.reshape(-1, chunk)


def _chunk_loss(head, cap, hidden, labels):
    scored = labels >= 0
    label = jnp.maximum(labels, 0)
    logits = softcap(_dot(hidden, head.T), cap)
    bend = 1.0 if cap is None else 1 - (logits / cap) ** 2  # d softcap(z) / dz
    top = jnp.max(logits, axis=-1, keepdims=True)
    exp = jnp.exp(logits - top)
    total = jnp.sum(exp, axis=-1, keepdims=True)
    at_label = jnp.take_along_axis(logits, label[:, None], axis=-1)
    loss = jnp.where(scored, (jnp.log(total) + top - at_label)[:, 0], 0.0)
    return loss, exp / total, bend, label, scored


def _dot(x, y):
    return jnp.matmul(x, y, precision="float32", preferred_element_type=jnp.float32)


def _num_scored(labels):
    return jnp.maximum(jnp.sum(labels >= 0), 1).astype(jnp.float32)
