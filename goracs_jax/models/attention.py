"""Causal self-attention with rotary positions and grouped queries."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.layers import RMSNorm, softcap
from goracs_jax.models.lora import LoraConfig, linear
from goracs_jax.models.rope import Rope, rotate


class Look(NamedTuple):
    """The positions of one layer: its rotation and its attention mask."""

    rope: Rope
    visible: Bool[Array, "*texts queries keys"]


class KeysValues(NamedTuple):
    """The keys and values of tokens, cached for the tokens that follow them."""

    k: Float[Array, "*batch keys kv_heads head_dim"]
    v: Float[Array, "*batch keys kv_heads head_dim"]


def visible_pairs(
    queries: Int[Array, "*texts queries"],
    keys: Int[Array, "*texts keys"],
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
    that share a key are rows of one larger matrix product.

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
    keys, group = k.shape[-3], heads // k.shape[-2]
    q, k, v = (jnp.swapaxes(x, -3, -2) for x in (q, k, v))  # [*batch, heads, time, dim]
    rows = q.reshape(*batch, -1, group * queries, dim) * scale
    scores = jnp.matmul(
        rows, jnp.swapaxes(k, -1, -2), preferred_element_type=jnp.float32
    )
    scores = softcap(scores, cap).reshape(*batch, -1, group, queries, keys)
    visible = visible[..., None, None, :, :]  # for all heads
    weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    weights = weights.astype(v.dtype).reshape(*batch, -1, group * queries, keys)
    mixed = (weights @ v).reshape(*batch, heads, queries, dim)
    return jnp.swapaxes(mixed, -3, -2)


class Attention(nnx.Module):
    """Causal self-attention; num_heads / num_kv_heads query heads share a key."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        make = partial(linear, lora=lora, biases=c.biases, rngs=rngs, dtype=dtype)
        self.q_proj = make("q_proj", c.hidden_size, queries)
        self.k_proj = make("k_proj", c.hidden_size, keys)
        self.v_proj = make("v_proj", c.hidden_size, keys)
        self.o_proj = make("o_proj", queries, c.hidden_size)
        if c.qk_norm:
            norm = partial(RMSNorm, c.head_dim, c.norm_eps, offset=c.norm_offset)
            self.q_norm, self.k_norm = norm(dtype=dtype), norm(dtype=dtype)
        self.head_dim, self.qk_norm = c.head_dim, c.qk_norm
        self.scale, self.cap = c.query_scale, c.attention_softcap

    def __call__(
        self,
        x: Float[Array, "*batch time dim"],
        look: Look,
        past: KeysValues | None = None,
    ) -> tuple[Float[Array, "*batch time dim"], KeysValues]:
        """Attend to the tokens and, if given, to cached tokens before them.

        Args:
            x: The normalised hidden states.
            look: The rotation and the mask.
            past: Keys and values of the tokens before them, or None.

        Returns:
            The output of attention, and the keys and values of the tokens.
        """
        heads = lambda y: y.reshape(*y.shape[:-1], -1, self.head_dim)
        q, k = heads(self.q_proj(x)), heads(self.k_proj(x))
        v = heads(self.v_proj(x))  # [*batch, time, heads, head_dim]
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, look.rope), rotate(k, look.rope)
        new = seen = KeysValues(k, v)
        if past is not None:
            seen = jax.tree.map(lambda *x: jnp.concatenate(x, axis=-3), past, new)
        see = partial(attend, scale=self.scale, cap=self.cap)
        mixed = see(q, seen.k, seen.v, look.visible)
        return self.o_proj(mixed.reshape(*x.shape[:-1], -1)), new
