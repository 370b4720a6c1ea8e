"""BERT, RoBERTa and MPNet encoders: post-norm, learned positions, no causal mask."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from goracs_jax.models.config import EncoderConfig


class Dense(nnx.Module):
    """A linear layer, x W + b, with W stored as [in, out]."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(0.02 * jax.random.normal(rngs(), (d_in, d_out)))
        self.bias = nnx.Param(jnp.zeros(d_out))

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Apply the layer."""
        return x @ self.kernel[...] + self.bias[...]


class LayerNorm(nnx.Module):
    """Layer normalisation: w * (x - mean) / sqrt(var + eps) + b."""

    def __init__(self, dim: int, eps: float):
        self.weight = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Normalise the last axis."""
        y = jax.nn.standardize(x, axis=-1, epsilon=self.eps)
        return self.weight[...] * y + self.bias[...]


class EncoderLayer(nnx.Module):
    """An encoder layer: norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, c: EncoderConfig, *, rngs: nnx.Rngs):
        self.query = Dense(c.hidden_size, c.hidden_size, rngs=rngs)
        self.key = Dense(c.hidden_size, c.hidden_size, rngs=rngs)
        self.value = Dense(c.hidden_size, c.hidden_size, rngs=rngs)
        self.out = Dense(c.hidden_size, c.hidden_size, rngs=rngs)
        self.attention_norm = LayerNorm(c.hidden_size, c.norm_eps)
        self.up = Dense(c.hidden_size, c.intermediate_size, rngs=rngs)
        self.down = Dense(c.intermediate_size, c.hidden_size, rngs=rngs)
        self.mlp_norm = LayerNorm(c.hidden_size, c.norm_eps)
        self.num_heads, self.gelu = c.num_heads, c.gelu

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        visible: Bool[Array, "batch 1 1 time"],
        bias: Float[Array, "1 heads time time"] | None,
    ) -> Float[Array, "batch time dim"]:
        """Run the layer.

        Args:
            x: Hidden states.
            visible: Whether each token may be attended to; padding may not.
            bias: Bias of the attention scores, or None.
        """
        heads = lambda y: y.reshape(*y.shape[:-1], self.num_heads, -1)
        q, k, v = (heads(f(x)) for f in (self.query, self.key, self.value))
        mixed = jax.nn.dot_product_attention(q, k, v, bias, visible)
        x = self.attention_norm(x + self.out(mixed.reshape(x.shape)))
        up = jax.nn.gelu(self.up(x), approximate=self.gelu == "tanh")
        return self.mlp_norm(x + self.down(up))


class Encoder(nnx.Module):
    """A BERT, RoBERTa or MPNet encoder in float32; a scan runs its stacked layers.

    Args:
        config: Sizes of the model.
        key: Random key of the initial weights.

    >>> sizes = dict(vocab_size=9, hidden_size=8, intermediate_size=16, num_layers=2)
    >>> heads = dict(num_heads=2, num_positions=6, first_position=0, num_types=2)
    >>> text = dict(pooling="mean", normalize=True, lowercase=False, max_tokens=6)
    >>> config = EncoderConfig(**sizes, **heads, **text, norm_eps=1e-12, gelu="exact")
    >>> Encoder(config, key=jax.random.key(0)).hidden(jnp.zeros((3, 5), int)).shape
    (3, 5, 8)
    """

    def __init__(self, config: EncoderConfig, *, key: jax.Array):
        c, self.config = config, config
        keys = jax.random.split(key, 5)
        table = lambda key, rows, columns: nnx.Param(
            0.02 * jax.random.normal(key, (rows, columns))
        )
        self.words = table(keys[0], c.vocab_size, c.hidden_size)
        self.positions = table(keys[1], c.num_positions, c.hidden_size)
        if c.num_types:
            self.types = table(keys[2], c.num_types, c.hidden_size)
        if c.relative_buckets:
            self.relative_bias = table(keys[4], c.relative_buckets, c.num_heads)
        self.norm = LayerNorm(c.hidden_size, c.norm_eps)
        self.layers = nnx.vmap(lambda key: EncoderLayer(c, rngs=nnx.Rngs(key)))(
            jax.random.split(keys[3], c.num_layers)
        )

    def hidden(self, ids: Int[Array, "batch time"]) -> Float[Array, "batch time dim"]:
        """Return the hidden states of the last layer.

        Args:
            ids: Token ids, padded on the right with negative ids.

        Returns:
            One hidden state per token; those of padding are meaningless.
        """
        # Padding may reach past the last position; there any position will do.
        position = jnp.minimum(
            jnp.arange(ids.shape[-1]) + self.config.first_position,
            self.config.num_positions - 1,
        )
        x = self.words[...][jnp.maximum(ids, 0)] + self.positions[...][position]
        if self.config.num_types:
            x = x + self.types[...][0]
        visible, bias = (ids >= 0)[:, None, None, :], None
        if self.config.relative_buckets:
            bucket = relative_bucket(ids.shape[-1], self.config.relative_buckets)
            bias = jnp.moveaxis(self.relative_bias[...][bucket], -1, 0)[None]
        graph, state = nnx.split(self.layers)
        with jax.default_matmul_precision("float32"):
            step = lambda x, layer: (nnx.merge(graph, layer)(x, visible, bias), None)
            return jax.lax.scan(step, self.norm(x), state)[0]


def relative_bucket(
    time: int, num_buckets: int, max_distance: int = 128
) -> Int[Array, "time time"]:
    """Return the bucket of the distance between two tokens (T5, Raffel et al., 2020).

    Half of the buckets are for keys after their query, the other half for the rest. In
    each half, short distances have buckets of their own, and longer ones share buckets
    whose width grows logarithmically, up to `max_distance`.

    Args:
        time: Number of tokens.
        num_buckets: Number of buckets.
        max_distance: Distance from which on all tokens share the last bucket.

    Returns:
        The bucket of each query (rows) and key (columns).

    >>> relative_bucket(3, 32).tolist()
    [[0, 17, 18], [1, 0, 17], [2, 1, 0]]
    """
    ahead = jnp.arange(time)[None, :] - jnp.arange(time)[:, None]
    half = num_buckets // 2
    alone = half // 2
    distance = jnp.abs(ahead)
    growth = jnp.log(jnp.maximum(distance, 1) / alone) / math.log(max_distance / alone)
    shared = jnp.minimum(alone + (growth * (half - alone)).astype(int), half - 1)
    return jnp.where(distance < alone, distance, shared) + half * (ahead > 0)
