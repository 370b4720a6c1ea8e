"""Llama-family decoder: pre-norm, rotary positions, grouped-query attention, gated MLP.

What differs between families (biases, norms, caps, windows) is a field of
`DecoderConfig`, not a class. Written for sequences [*batch, time, dim] that are padded
on the right: attention is causal, so what follows a token never changes it, and no
padding mask is needed. Matrix products of float32 weights are full float32:
accelerators default to less.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from goracs_jax.models.attention import Attention, Look, visible_pairs
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.layers import MLP, RMSNorm, softcap
from goracs_jax.models.lora import DEFAULT_LORA, LoraConfig
from goracs_jax.models.rope import rope_table


class DecoderLayer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    With post norms, what is added is normalised too.
    """

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        norm = lambda: RMSNorm(
            c.hidden_size, c.norm_eps, offset=c.norm_offset, dtype=dtype
        )
        self.attention_norm, self.mlp_norm = norm(), norm()
        self.attention = Attention(c, lora, rngs=rngs, dtype=dtype)
        self.mlp = MLP(c, lora, rngs=rngs, dtype=dtype)
        self.post_norms = c.post_norms
        if c.post_norms:
            self.attention_post_norm, self.mlp_post_norm = norm(), norm()

    def __call__(
        self, x: Float[Array, "*batch time dim"], look: Look
    ) -> Float[Array, "*batch time dim"]:
        """One residual block."""
        mixed = self.attention(self.attention_norm(x), look)
        x = x + (self.attention_post_norm(mixed) if self.post_norms else mixed)
        changed = self.mlp(self.mlp_norm(x))
        return x + (self.mlp_post_norm(changed) if self.post_norms else changed)


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
        self.norm = RMSNorm(
            config.hidden_size, config.norm_eps, offset=config.norm_offset, dtype=dtype
        )
        if not config.tie_embeddings:
            self.head = nnx.Param(rows(key_head))

    @property
    def output_head(self) -> Float[Array, "vocab dim"]:
        """The rows whose inner product with a hidden state is the token's logit.

        Where the config has a `logit_softcap`, before the cap.
        """
        return (self.embed if self.config.tie_embeddings else self.head)[...]

    def _looks(self, time: int) -> Callable[[Int[Array, ""] | int], Look]:
        """What the layer of an index sees; full and sliding layers are one program."""
        c, position = self.config, jnp.arange(time)
        table = lambda rope: rope_table(position, rope.frequencies(c.head_dim))
        full = Look(table(c.rope), visible_pairs(position, position))
        if not any(c.sliding):
            return lambda index: full
        window = visible_pairs(position, position, c.window)
        sliding = Look(table(c.sliding_rope or c.rope), window)
        is_sliding = jnp.asarray(c.sliding)
        return lambda index: jax.tree.map(
            partial(jnp.where, is_sliding[index]), sliding, full
        )

    def _run(
        self, ids: Int[Array, "*batch time"], num_layers: int
    ) -> Float[Array, "*batch time dim"]:
        """Embeds the tokens (a negative id is padding) and runs the first layers."""
        look = self._looks(ids.shape[-1])
        graph, lora, frozen = nnx.split(self.layers, nnx.LoRAParam, ...)

        # Rematerialised: a backward pass keeps one activation per layer.
        @jax.checkpoint
        def step(x, layer):
            index, lora_i = layer
            frozen_i = _take(frozen, index)
            return nnx.merge(graph, lora_i, frozen_i)(x, look(index)), None

        # The frozen weights are indexed inside the loop: slicing off the layers that
        # are not run would copy the model. The adapters are small, and as scanned
        # inputs their gradients come out stacked.
        first = jax.tree.map(lambda w: w[:num_layers], lora)
        x = self.embed[...][jnp.maximum(ids, 0)]
        x = x * self.config.embed_scale if self.config.embed_scale != 1.0 else x
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
        look = self._looks(x.shape[-2])(self.config.num_layers - 1)
        with jax.default_matmul_precision("float32"):
            return self.norm(layer(x, look))

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
            logits = self.hidden(ids) @ self.output_head.T
        return softcap(logits, self.config.logit_softcap)


def _take(state: PyTree, index) -> PyTree:
    take = lambda w: jax.lax.dynamic_index_in_dim(w, index, keepdims=False)
    return jax.tree.map(take, state)
