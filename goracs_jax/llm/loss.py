"""Loss and prediction error of one example, and the gradient of the loss.

The logits are computed in blocks of the vocabulary, and never kept as a whole.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from goracs_jax.llm.tokens import NOT_SCORED
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.execution import VOCAB_BLOCK
from goracs_jax.models.layers import bend, softcap

Gather: TypeAlias = Callable[[Array], Array]


def _as_it_is(rows: Array) -> Array:
    return rows


class Loss(NamedTuple):
    """Means over the scored tokens of an example; 0 if there are none."""

    loss: Float32[Array, "*batch"]
    prediction_error: Float32[Array, "*batch"]


class _Sums(NamedTuple):
    """Sums over the rows v of the vocabulary so far, with e_v = exp(z_v - top).

    The row of the label is left out, so that nothing cancels where p_label is near 1.
    """

    top: Float32[Array, " time"]  # max z_v
    total: Float32[Array, " time"]  # sum e_v
    squares: Float32[Array, " time"]  # sum e_v^2
    rows: Float32[Array, "time dim"]  # sum e_v dz_v / dh


def predicting(labels: Int[Array, " time"], most: int) -> Int[Array, " places"] | None:
    """Return the places of an example that predict a scored token.

    Nothing else needs logits, nor most of the last layer. Where the answer is Yes or
    No, these are two places of a hundred.

    Args:
        labels: The token at each place, or a negative number where it is not scored.
            The first token is never predicted.
        most: An upper bound of the number of scored tokens; static, since it is a
            shape.

    Returns:
        The places, filled up with the last one, which predicts nothing; None means all.

    >>> labels = jnp.array([NOT_SCORED, NOT_SCORED, 5, 6])
    >>> predicting(labels, 3).tolist(), predicting(labels, 4)
    ([1, 2, 3], None)
    """
    if most >= len(labels):
        return None
    last = len(labels) - 1
    is_scored = _predicted(labels, None) >= 0
    return jnp.nonzero(is_scored, size=most, fill_value=last)[0]


def example_loss(model: Decoder) -> Callable[[Array, Array, Array | None], Loss]:
    """Return `next_token_loss` with a model's head, cap and block of the vocabulary.

    Args:
        model: The decoder.

    Returns:
        A function of an example's final hidden states at some places, its labels, and
        these places; see `predicting`.
    """
    if model.trains_head:

        def trained_head(hidden: Array, labels: Array, at: Array | None) -> Loss:
            return cross_entropy_of(model.logits(hidden), _predicted(labels, at))

        return trained_head
    return lambda hidden, labels, at: next_token_loss(
        hidden,
        model.output_head,
        labels,
        model.config.logit_softcap,
        at=at,
        block=model.execution.vocab_block,
        gather=model.execution.gathered_rows,
    )


def next_token_loss(
    hidden: Float[Array, "places dim"],
    head: Float[Array, "vocab dim"],
    labels: Int[Array, " time"],
    cap: float | None = None,
    *,
    at: Int[Array, " places"] | None = None,
    block: int = VOCAB_BLOCK,
    gather: Gather = _as_it_is,
) -> Loss:
    """Shift the labels of an example and take `mean_cross_entropy`.

    Args:
        hidden: Final hidden states; the state at t predicts the token at t + 1.
        head: Output rows of the vocabulary.
        labels: The token at each place, or a negative number where it is not scored.
        cap: The model's `logit_softcap`.
        at: The places of the states, from `predicting`; None means all.
        block: As for `mean_cross_entropy`.
        gather: As for `mean_cross_entropy`.

    Returns:
        Both means over the scored tokens. The first token is never predicted.

    >>> hidden, head = jnp.eye(4), jnp.arange(32.0).reshape(8, 4)
    >>> labels = jnp.array([5, NOT_SCORED, 2, NOT_SCORED])
    >>> one, at = next_token_loss(hidden, head, labels), predicting(labels, most=1)
    >>> float(one.loss) == float(next_token_loss(hidden[at], head, labels, at=at).loss)
    True
    """
    following = _predicted(labels, at)
    return mean_cross_entropy(hidden, head, following, cap, block, gather)


def _predicted(labels: Array, at: Array | None) -> Array:
    """Return the token that follows each place, or some of them."""
    following = jnp.append(labels[1:], NOT_SCORED)
    return following if at is None else following[at]


def cross_entropy_of(
    logits: Float32[Array, "time vocab"], labels: Int[Array, " time"]
) -> Loss:
    """Compute what `mean_cross_entropy` does from logits, in memory as a whole.

    Its loss can be differentiated with respect to the logits, and so to a head that is
    trained, whose gradient has more numbers than the logits of an example.

    Args:
        logits: Logits of the token that follows each state.
        labels: This token, or a negative number where it is not scored.

    >>> found = cross_entropy_of(jnp.zeros((3, 8)), jnp.arange(3))
    >>> float(found.loss), float(found.prediction_error)  # log 8, sqrt(56 / 64)
    (2.079442, 0.935414)
    """
    scored = labels >= 0
    log_p = jax.nn.log_softmax(logits)
    is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
    miss = jax.lax.stop_gradient(jnp.exp(log_p)) - is_label
    losses = -jnp.sum(jnp.where(is_label, log_p, 0.0), axis=-1)
    share = scored / jnp.maximum(jnp.sum(scored), 1).astype(jnp.float32)
    errors = jnp.linalg.norm(miss, axis=-1)
    return Loss(jnp.sum(losses * share), jnp.sum(errors * share))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def mean_cross_entropy(
    hidden: Float[Array, "time dim"],
    head: Float[Array, "vocab dim"],
    labels: Int[Array, " time"],
    cap: float | None = None,
    block: int = VOCAB_BLOCK,
    gather: Gather = _as_it_is,
) -> Loss:
    r"""Compute mean cross-entropy and EL2N error over the scored tokens of an example.

    With p = softmax(z), z_v = softcap(h . w_v) and y the label of a token,

        loss  = -log p_y
        error = || p - onehot(y) ||_2 = sqrt((1 - p_y)^2 + sum_{v != y} p_v^2),

    The error of a token is what EL2N (Paul et al., NeurIPS 2021) is for an image.

    The vocabulary is read in blocks, and sums are rescaled where a larger logit is met,
    as FlashAttention does with keys (Dao et al., 2022). The slope d loss / d h is one
    of the sums, so no logit is computed twice. Only the loss can be differentiated, and
    only with respect to `hidden`: the head is frozen, and its gradient counts as zero.

    Args:
        hidden: Final hidden states.
        head: Output rows of the vocabulary.
        labels: The token that follows each state, or a negative number where it is not
            scored.
        cap: The model's `logit_softcap`.
        block: Rows of the vocabulary whose logits are in memory at one time.
        gather: Brings the parts of a block together, where devices share the head.

    >>> found = mean_cross_entropy(jnp.zeros((3, 2)), jnp.ones((8, 2)), jnp.arange(3))
    >>> float(found.loss), float(found.prediction_error)  # log 8, sqrt(56 / 64)
    (2.079442, 0.935414)
    """
    return _loss_and_slope(hidden, head, labels, cap, block, gather)[0]


def _forward(hidden, head, labels, cap, block, gather):
    # With the slope a block is multiplied twice, and XLA gathers it by itself.
    del gather
    return _loss_and_slope(hidden, head, labels, cap, block, _as_it_is)


def _loss_and_slope(hidden, head, labels, cap, block, gather):
    vocab, (time, dim) = head.shape[0], hidden.shape
    scored, label = labels >= 0, jnp.maximum(labels, 0)
    # Block i has the rows i, i + blocks, ...: where the head's rows are spread over
    # devices, every device has a part of every block.
    blocks = -(-vocab // block)
    padded = jnp.pad(head, ((0, -vocab % blocks), (0, 0)))
    parts = padded.reshape(-1, blocks, dim)

    def step(sums: _Sums, i: Int[Array, ""]) -> tuple[_Sums, None]:
        w = gather(jax.lax.dynamic_index_in_dim(parts, i, axis=1, keepdims=False))
        row = jnp.arange(len(w)) * blocks + i
        z = softcap(_dot(hidden, w.T), cap)
        top = jnp.maximum(sums.top, jnp.max(z, axis=-1))
        other = (row < vocab) & (row != label[:, None])
        e = jnp.where(other, jnp.exp(z - top[:, None]), 0.0)
        keep = jnp.exp(sums.top - top)
        return _Sums(
            top,
            sums.total * keep + jnp.sum(e, axis=-1),
            sums.squares * keep**2 + jnp.sum(e * e, axis=-1),
            sums.rows * keep[:, None] + _dot((e * bend(z, cap)).astype(w.dtype), w),
        ), None

    zero = jnp.zeros(time)
    start = _Sums(zero - jnp.inf, zero, zero, jnp.zeros((time, dim)))
    sums, _ = jax.lax.scan(step, start, jnp.arange(blocks))
    w_label = head[label].astype(jnp.float32)
    z_label = softcap(jnp.sum(hidden.astype(jnp.float32) * w_label, axis=-1), cap)
    norm = sums.total + jnp.exp(z_label - sums.top)
    miss = sums.total / norm  # 1 - p_label
    losses = jnp.log(norm) + sums.top - z_label
    errors = jnp.sqrt(miss**2 + sums.squares / norm**2)
    share = scored / jnp.maximum(jnp.sum(scored), 1).astype(jnp.float32)
    mean = lambda x: jnp.sum(jnp.where(scored, x * share, 0.0))
    down = (miss * bend(z_label, cap))[:, None] * w_label
    slope = (sums.rows / norm[:, None] - down) * share[:, None]
    return Loss(mean(losses), mean(errors)), slope.astype(hidden.dtype)


def _backward(cap, block, gather, slope, d):
    return (d.loss * slope).astype(slope.dtype), None, None


mean_cross_entropy.defvjp(_forward, _backward)


def _dot(x, y):
    return jnp.matmul(x, y, precision="float32", preferred_element_type=jnp.float32)
