"""Llama-family decoder: pre-norm, rotary positions, grouped-query attention, SwiGLU.

Written for sequences [*batch, time, dim] that are padded on the right: attention is
causal, so what follows a token never changes it, and no padding mask is needed.
Matrix products of float32 weights are full float32: accelerators default to less.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, PyTree

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import DEFAULT_LORA, LoraConfig, linear

Rope = tuple[Float32[Array, "time half"], Float32[Array, "time half"]]


def rope_table(time: int, head_dim: int, theta: float) -> Rope:
    """Cosines and sines of t * theta^(-2i / head_dim) (RoFormer, Su et al., 2021).

    In float32 whatever the weights: bfloat16 cannot tell position 257 from 256.

    >>> cos, sin = rope_table(3, 4, 10000.0)
    >>> cos.shape, float(cos[0, 0])
    ((3, 2), 1.0)
    """
    half = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    angle = jnp.arange(time, dtype=jnp.float32)[:, None] / theta ** half[None, :]
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "*batch time heads head_dim"], rope: Rope
) -> Float[Array, "*batch time heads head_dim"]:
    """Turns the pairs (x_i, x_{i + head_dim / 2}) by the angle of their position."""
    cos, sin = (table[:, None, :] for table in rope)  # [time, 1, head_dim / 2]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def causal_attention(
    q: Float[Array, "*batch time heads head_dim"],
    k: Float[Array, "*batch time kv_heads head_dim"],
    v: Float[Array, "*batch time kv_heads head_dim"],
) -> Float[Array, "*batch time heads head_dim"]:
    """softmax(q k' / sqrt(head_dim), over the past) v, the softmax in float32.

    The same as `jax.nn.dot_product_attention`, twice as fast on a CPU: queries that
    share a key are rows of one larger matrix product.
    """
    *batch, time, heads, dim = q.shape
    group = heads // k.shape[-2]
    q, k, v = (jnp.swapaxes(x, -3, -2) for x in (q, k, v))  # [*batch, heads, time, dim]
    rows = q.reshape(*batch, -1, group * time, dim) * dim**-0.5
    scores = jnp.matmul(
        rows, jnp.swapaxes(k, -1, -2), preferred_element_type=jnp.float32
    )
    past = jnp.tril(jnp.ones((time, time), bool))
    scores = jnp.where(past, scores.reshape(*batch, -1, group, time, time), -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    mixed = weights.reshape(*batch, -1, group * time, time) @ v
    return jnp.swapaxes(mixed.reshape(*batch, heads, time, dim), -3, -2)


class RMSNorm(nnx.Module):
    """w * x / sqrt(mean(x^2) + eps), the mean in float32."""

    def __init__(self, dim: int, eps: float, *, dtype=jnp.float32):
        self.weight = nnx.Param(jnp.ones(dim, dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Normalises the last axis."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return self.weight[...] * y.astype(x.dtype)


class Attention(nnx.Module):
    """Causal self-attention in which `num_heads / num_kv_heads` queries share a key."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        make = partial(linear, lora=lora, rngs=rngs, dtype=dtype)
        self.q_proj = make("q_proj", c.hidden_size, queries)
        self.k_proj = make("k_proj", c.hidden_size, keys)
        self.v_proj = make("v_proj", c.hidden_size, keys)
        self.o_proj = make("o_proj", queries, c.hidden_size)
        self.head_dim = c.head_dim

    def __call__(
        self, x: Float[Array, "*batch time dim"], rope: Rope
    ) -> Float[Array, "*batch time dim"]:
        """Mixes the tokens."""
        heads = lambda y: y.reshape(*y.shape[:-1], -1, self.head_dim)
        q = rotate(heads(self.q_proj(x)), rope)  # [*batch, time, heads, head_dim]
        k = rotate(heads(self.k_proj(x)), rope)
        v = heads(self.v_proj(x))
        mixed = causal_attention(q, k, v)
        return self.o_proj(mixed.reshape(*x.shape[:-1], -1))


class MLP(nnx.Module):
    """SwiGLU: (silu(x W_gate) * x W_up) W_down."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        make = partial(linear, lora=lora, rngs=rngs, dtype=dtype)
        self.gate_proj = make("gate_proj", c.hidden_size, c.intermediate_size)
        self.up_proj = make("up_proj", c.hidden_size, c.intermediate_size)
        self.down_proj = make("down_proj", c.intermediate_size, c.hidden_size)

    def __call__(
        self, x: Float[Array, "*batch time dim"]
    ) -> Float[Array, "*batch time dim"]:
        """Transforms each token."""
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        self.attention_norm = RMSNorm(c.hidden_size, c.norm_eps, dtype=dtype)
        self.attention = Attention(c, lora, rngs=rngs, dtype=dtype)
        self.mlp_norm = RMSNorm(c.hidden_size, c.norm_eps, dtype=dtype)
        self.mlp = MLP(c, lora, rngs=rngs, dtype=dtype)

    def __call__(
        self, x: Float[Array, "*batch time dim"], rope: Rope
    ) -> Float[Array, "*batch time dim"]:
        """One residual block."""
        x = x + self.attention(self.attention_norm(x), rope)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nnx.Module):
    """Llama-family language model with LoRA adapters.

    The layers are one `DecoderLayer` whose parameters have a leading layer axis, run
    by `jax.lax.scan`, so that compile time does not grow with depth.

    Args:
        config: Sizes of the model.
        lora: Adapters to put in place.
        key: Random key of the initial weights.
        dtype: Of the frozen weights and the activations; adapters are float32.

    >>> config = DecoderConfig.tiny()
    >>> model = Decoder(config, key=jax.random.key(0))
    >>> model(jnp.zeros((2, 5), jnp.int32)).shape == (2, 5, config.vocab_size)
    True
    """

    def __init__(
        self,
        config: DecoderConfig,
        lora: LoraConfig = DEFAULT_LORA,
        *,
        key: jax.Array,
        dtype=jnp.float32,
    ):
        key_embed, key_head, key_layers = jax.random.split(key, 3)
        table = (config.vocab_size, config.hidden_size)
        rows = lambda key: (0.02 * jax.random.normal(key, table)).astype(dtype)
        self.config, self.lora = config, lora
        self.embed = nnx.Param(rows(key_embed))
        self.layers = nnx.vmap(
            lambda key: DecoderLayer(config, lora, rngs=nnx.Rngs(key), dtype=dtype)
        )(jax.random.split(key_layers, config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, dtype=dtype)
        if not config.tie_embeddings:
            self.head = nnx.Param(rows(key_head))

    @property
    def output_head(self) -> Float[Array, "vocab dim"]:
        """The rows whose inner product with a hidden state is the token's logit."""
        return (self.embed if self.config.tie_embeddings else self.head)[...]

    def _rope(self, time: int) -> Rope:
        return rope_table(time, self.config.head_dim, self.config.rope_theta)

    def _run(
        self, ids: Int[Array, "*batch time"], num_layers: int
    ) -> Float[Array, "*batch time dim"]:
        """Embeds the tokens (a negative id is padding) and runs the first layers."""
        rope = self._rope(ids.shape[-1])
        graph, lora, frozen = nnx.split(self.layers, nnx.LoRAParam, ...)

        # Rematerialised: a backward pass keeps one activation per layer.
        @jax.checkpoint
        def step(x, layer):
            index, lora_i = layer
            frozen_i = _take(frozen, index)
            return nnx.merge(graph, lora_i, frozen_i)(x, rope), None

        # The frozen weights are indexed inside the loop: slicing off the layers that
        # are not run would copy the model. The adapters are small, and as scanned
        # inputs their gradients come out stacked.
        first = jax.tree.map(lambda w: w[:num_layers], lora)
        x = self.embed[...][jnp.maximum(ids, 0)]
        return jax.lax.scan(step, x, (jnp.arange(num_layers), first))[0]

    def prefix(self, ids: Int[Array, "*batch time"]) -> Float[Array, "*batch time dim"]:
        """Runs all layers but the last."""
        with jax.default_matmul_precision("float32"):
            return self._run(ids, self.config.num_layers - 1)

    def last_layer(self) -> DecoderLayer:
        """The last layer as a module of its own, without the layer axis."""
        graph, state = nnx.split(self.layers)
        return nnx.merge(graph, _take(state, self.config.num_layers - 1))

    def tail(
        self, layer: DecoderLayer, x: Float[Array, "*batch time dim"]
    ) -> Float[Array, "*batch time dim"]:
        """Goes on where `prefix` stopped: the last layer and the final norm."""
        with jax.default_matmul_precision("float32"):
            return self.norm(layer(x, self._rope(x.shape[-2])))

    def hidden(self, ids: Int[Array, "*batch time"]) -> Float[Array, "*batch time dim"]:
        """Hidden states after the final norm.

        Args:
            ids: Token ids, padded on the right with negative ones.

        Returns:
            One state per token; those of padding mean nothing.
        """
        with jax.default_matmul_precision("float32"):
            return self.norm(self._run(ids, self.config.num_layers))

    def __call__(
        self, ids: Int[Array, "*batch time"]
    ) -> Float[Array, "*batch time vocab"]:
        """Logits of the next token after each token."""
        with jax.default_matmul_precision("float32"):
            return self.hidden(ids) @ self.output_head.T


def _take(state: PyTree, index) -> PyTree:
    take = lambda w: jax.lax.dynamic_index_in_dim(w, index, keepdims=False)
    return jax.tree.map(take, state)
