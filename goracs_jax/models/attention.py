"""Causal self-attention with rotary positions and grouped queries."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.layers import RMSNorm, bend, softcap
from goracs_jax.models.lora import KEPT, LoraConfig, linear
from goracs_jax.models.rope import Rope, rotate, rotate_in_place
from goracs_jax.models.splash import Splash


class Asking(NamedTuple):
    """The only tokens of each text whose outputs are needed."""

    places: Int[Array, "*batch queries"]
    rope: Rope  # at these places


class Look(NamedTuple):
    """The positions of one layer: its rotation, its mask, a kernel for that mask."""

    rope: Rope
    visible: Bool[Array, "*texts queries keys"]
    splash: Splash | None = None
    asking: Asking | None = None  # None: all tokens

    def still(self, here: Bool[Array, ""]) -> "Look":
        """Return this look without the rotation where that is `here`."""

        def identity(rope: Rope) -> Rope:
            cos, sin = rope
            return jnp.where(here, 1.0, cos), jnp.where(here, 0.0, sin)

        asking = self.asking
        if asking is not None:
            asking = asking._replace(rope=identity(asking.rope))
        return self._replace(rope=identity(self.rope), asking=asking)

    def queries(self, x: Float[Array, "*batch time dim"]) -> Array:
        """Return the states of the tokens that ask."""
        return x if self.asking is None else rows_at(x, self.asking.places)


class KeysValues(NamedTuple):
    """The keys and values of tokens, cached for the tokens that follow them."""

    k: Float[Array, "*batch keys kv_heads head_dim"]
    v: Float[Array, "*batch keys kv_heads head_dim"]


def rows_at(
    x: Float[Array, "*batch time dim"], places: Int[Array, "*batch places"]
) -> Float[Array, "*batch places dim"]:
    """Return the states at some places of each text.

    >>> rows_at(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([2, 0])).tolist()
    [[3.0], [1.0]]
    """
    return jnp.take_along_axis(x, places[..., None], axis=-2)


def visible_pairs(
    queries: Int[Array, "*texts queries"],
    keys: Int[Array, "*#texts keys"],
    window: int | None = None,
) -> Bool[Array, "*texts queries keys"]:
    """Return the causal mask: each position sees itself and earlier positions.

    Args:
        queries: Positions of the queries.
        keys: Positions of the keys.
        window: Number of positions that a query sees, its own included; None means all.

    Returns:
        Whether each query sees each key.

    >>> visible_pairs(jnp.arange(3), jnp.arange(3), window=2).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    behind = queries[..., :, None] - keys[..., None, :]
    past = behind >= 0
    return past if window is None else past & (behind < window)


def attend(
    q: Float[Array, "*batch queries heads head_dim"],
    k: Float[Array, "*batch keys kv_heads head_dim"],
    v: Float[Array, "*batch keys kv_heads head_dim"],
    visible: Bool[Array, "*texts queries keys"],
    *,
    scale: float,
    cap: float | None = None,
) -> Float[Array, "*batch queries heads head_dim"]:
    """Return softmax(softcap(scale q k')) v over the visible keys.

    The softmax is computed in float32. The result is that of
    `jax.nn.dot_product_attention`, but a CPU computes it twice as fast, because queries
    that share a key are rows of one larger matrix product. As in FlashAttention (Dao et
    al., 2022), the backward pass computes the weights again, from the scores and one
    kept number per query: the logarithm of the sum of their exponentials.

    Args:
        q: Queries.
        k: Keys; their number of heads divides that of the queries.
        v: Values.
        visible: Whether each query sees each key.
        scale: Factor of the scores.
        cap: Soft cap of the scores; None means no cap.

    Returns:
        The mean of the values for each query, weighted by attention.
    """
    *batch, queries, heads, dim = q.shape
    q, k, v = (jnp.swapaxes(x, -3, -2) for x in (q, k, v))  # [*batch, heads, time, dim]
    rows = q.reshape(*batch, k.shape[-3], -1, dim) * scale  # of a group, then queries
    rows, k, v = (checkpoint_name(x, KEPT) for x in (rows, k, v))
    mixed = jnp.asarray(_mix(rows, k, v, visible, cap))
    return jnp.swapaxes(mixed.reshape(*batch, heads, queries, dim), -3, -2)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(
    rows: Float[Array, "*batch kv_heads rows head_dim"],
    k: Float[Array, "*batch kv_heads keys head_dim"],
    v: Float[Array, "*batch kv_heads keys head_dim"],
    visible: Bool[Array, "*texts queries keys"],
    cap: float | None,
) -> Float[Array, "*batch kv_heads rows head_dim"]:
    return _mix_and_kept(rows, k, v, visible, cap)[0]


def _mix_and_kept(rows, k, v, visible, cap):
    scores = _scores(rows, k, visible, cap)
    top = jnp.max(scores, axis=-1, keepdims=True)
    e = jnp.exp(scores - top)
    total = jnp.sum(e, axis=-1, keepdims=True)
    mixed = _dot(_by_row(e / total).astype(v.dtype), v).astype(v.dtype)
    log_sum = checkpoint_name(top + jnp.log(total), KEPT)
    return mixed, (rows, k, v, visible, log_sum)


def _mix_backward(cap, kept, d_mixed):
    rows, k, v, visible, log_sum = kept
    scores = _scores(rows, k, visible, cap)
    weights = jnp.exp(scores - log_sum)
    d_weights = _dot(d_mixed, jnp.swapaxes(v, -1, -2)).reshape(weights.shape)
    mean = jnp.sum(weights * d_weights, axis=-1, keepdims=True)
    d_scores = weights * (d_weights - mean)
    if cap is not None:  # what is not visible has the score -inf
        d_scores *= jnp.where(jnp.isfinite(scores), bend(scores, cap), 0.0)
    d_scores = _by_row(d_scores).astype(k.dtype)
    return (
        _dot(d_scores, k).astype(rows.dtype),
        _dot_of_columns(d_scores, rows).astype(k.dtype),
        _dot_of_columns(_by_row(weights).astype(v.dtype), d_mixed).astype(v.dtype),
        None,
    )


_mix.defvjp(_mix_and_kept, _mix_backward)


def _scores(rows, k, visible, cap):
    """Return the scores, [*batch, kv_heads, group, queries, keys]."""
    scores = softcap(_dot(rows, jnp.swapaxes(k, -1, -2)), cap)
    scores = scores.reshape(*scores.shape[:-2], -1, *visible.shape[-2:])
    return jnp.where(visible[..., None, None, :, :], scores, -jnp.inf)  # for all heads


def _by_row(x):
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _dot(x, y):
    # The precision is stated, because the backward pass is traced after the caller's
    # `jax.default_matmul_precision` has ended.
    return jnp.matmul(x, y, precision="float32", preferred_element_type=jnp.float32)


def _dot_of_columns(x, y):
    """Return x' y, computed as (y' x)', where x is larger than y.

    A CPU takes twice as long to read x by columns. XLA would do so without barriers.
    """
    y = jax.lax.optimization_barrier(jnp.swapaxes(y, -1, -2))
    return jnp.swapaxes(jax.lax.optimization_barrier(_dot(y, x)), -1, -2)


class Attention(nnx.Module):
    """Causal self-attention; num_heads / num_kv_heads query heads share a key."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        make = partial(linear, lora=lora, biases=c.biases, rngs=rngs, dtype=dtype)
        self.q_proj = make("q_proj", c.hidden_size, queries)
        self.k_proj = make("k_proj", c.hidden_size, keys)
        self.v_proj = make("v_proj", c.hidden_size, keys)
        self.o_proj = make("o_proj", queries, c.hidden_size)
        if c.qk_norm or c.wide_qk_norm:
            q, k = (queries, keys) if c.wide_qk_norm else (c.head_dim, c.head_dim)
            norm = partial(RMSNorm, eps=c.norm_eps, offset=c.norm_offset, dtype=dtype)
            self.q_norm, self.k_norm = norm(q), norm(k)
        self.head_dim, self.qk_norm = c.head_dim, c.qk_norm
        self.wide_qk_norm = c.wide_qk_norm
        self.scale, self.cap = c.query_scale, c.attention_softcap

    def __call__(
        self,
        x: Float[Array, "*batch time dim"],
        look: Look,
        past: KeysValues | None = None,
    ) -> tuple[Float[Array, "*batch queries dim"], KeysValues]:
        """Attend to the tokens and, if given, to cached tokens before them.

        Args:
            x: The normalised hidden states.
            look: The rotation and the mask.
            past: Keys and values of the tokens before them, or None.

        Returns:
            The output of attention at the tokens that ask, and the keys and values of
            all tokens.
        """
        heads = lambda y: y.reshape(*y.shape[:-1], -1, self.head_dim)
        asking = look.queries(x)
        q = self.q_proj(asking)
        q = heads(self.q_norm(q) if self.wide_qk_norm else q)
        k = self.k_proj(x)
        k = heads(self.k_norm(k) if self.wide_qk_norm else k)
        v = heads(self.v_proj(x))  # [*batch, time, heads, head_dim]
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        turn = rotate_in_place if look.splash else rotate
        q_rope = look.rope if look.asking is None else look.asking.rope
        q, k = turn(q, q_rope), turn(k, look.rope)
        new = seen = KeysValues(k, v)
        if past is not None:
            seen = jax.tree.map(lambda *x: jnp.concatenate(x, axis=-3), past, new)
        see = partial(attend, visible=look.visible, scale=self.scale, cap=self.cap)
        mixed = (look.splash or see)(q, seen.k, seen.v)
        return self.o_proj(mixed.reshape(*asking.shape[:-1], -1)), new
