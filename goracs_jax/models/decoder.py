"""Llama-family decoder: pre-norm, rotary positions, grouped-query attention, gated MLP.

The differences between families (biases, norms, caps, windows) are fields of
`DecoderConfig`, not classes. Sequences [*batch, time, dim] are padded on the right.
Attention is causal, so padding behind a token never changes it, and no padding mask is
needed. Matrix products of float32 weights use full float32 precision, which is more
than the default of accelerators.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, PyTree

from goracs_jax.models.attention import KeysValues, rows_at
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.decoder_layer import DecoderLayer
from goracs_jax.models.execution import Execution
from goracs_jax.models.layers import RMSNorm, softcap
from goracs_jax.models.looks import Layout as Layout
from goracs_jax.models.looks import looks
from goracs_jax.models.lora import DEFAULT_LORA, KEPT, LoraConfig
from goracs_jax.models.lower import LowerStates, Text
from goracs_jax.models.variants import Table, placed, start, table_of


class Decoder(nnx.Module):
    """Llama-family language model with LoRA adapters.

    All layers are one `DecoderLayer` whose parameters have a leading layer axis.
    `jax.lax.scan` runs it, so that compile time does not grow with depth.

    Args:
        config: Sizes of the model.
        lora: Configuration of the adapters.
        key: Random key of the initial weights.
        dtype: Type of the frozen weights and the activations; adapters are float32.

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
        lora = lora.resolved(config)
        self.config, self.lora, self.execution = config, lora, Execution()
        self.embed = nnx.Param(rows(key_embed))
        self.layers = nnx.vmap(
            lambda key: DecoderLayer(config, lora, rngs=nnx.Rngs(key), dtype=dtype)
        )(jax.random.split(key_layers, config.num_layers))
        placed(self.layers, lora, config.num_layers)
        self.norm = RMSNorm(
            config.hidden_size, config.norm_eps, offset=config.norm_offset, dtype=dtype
        )
        if not config.tie_embeddings:
            self.head = nnx.Param(rows(key_head))
        start(self)

    @property
    def output_head(self) -> Float[Array, "vocab dim"]:
        """The rows whose inner products with a hidden state are the logits.

        If the configuration has a `logit_softcap`, it applies to these logits.
        """
        return table_of(self, "head").whole()

    @property
    def trains_head(self) -> bool:
        """Whether the output head, or a part of it, belongs to the adapter."""
        return self.lora.trains_head(tied=self.config.tie_embeddings)

    @property
    def frozen_layers(self) -> int:
        """How many layers lie below all that the adapter trains; see `lower`."""
        return self.lora.frozen_layers()

    def stored_table(self, name: str) -> Float[Array, "vocab dim"]:
        """Return the embedding or the output head of the base, without the adapter."""
        tied = self.config.tie_embeddings
        return (self.embed if name == "embed" or tied else self.head)[...]

    def _run(
        self,
        text: Text,
        num_layers: int,
        layout: Layout | None = None,
        past: KeysValues | None = None,
    ) -> tuple[Float[Array, "*batch time dim"], KeysValues | None]:
        """Embed the tokens (negative ids are padding) and run the first layers.

        Of a text whose lower states are given, only the layers above them are run.

        Returns:
            The hidden states and, if a past is given, the tokens' keys and values, with
            a leading layer axis.
        """
        if isinstance(text, LowerStates):
            start, time = self.frozen_layers, text.states.shape[-2]
        else:
            start, time = 0, text.shape[-1]
        execution = self.execution
        look = looks(self.config, execution, self.embed.dtype, time, layout)
        graph, lora, frozen = nnx.split(self.layers, nnx.LoRAParam, ...)

        # With "products" the backward pass keeps the outputs of linear layers. It
        # computes norms, attention and activations again, which is cheap.
        kept = [KEPT] if execution.remat == "products" else []

        @partial(
            jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(*kept)
        )
        def step(x, layer):
            index, lora_i, past_i = layer
            frozen_i = execution.gathered(_take(frozen, index))
            run = nnx.merge(graph, lora_i, frozen_i)
            x, new = run(x, look(index), past_i, execution)
            return execution.by_example(x), None if past is None else new

        # The frozen weights are indexed inside the loop, because slicing off the layers
        # that are not run would copy the model. The adapters are small: they are inputs
        # of the scan, which stacks their gradients.
        adapters = jax.tree.map(lambda w: w[start:num_layers], lora)
        given = isinstance(text, LowerStates)
        x = jnp.asarray(text.states) if given else self._embedded(text)
        return jax.lax.scan(step, x, (jnp.arange(start, num_layers), adapters, past))

    def _final(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        x, scale = self.norm(x), self.config.hidden_scale
        return x if scale == 1.0 else x * scale

    def _embedded(
        self, ids: Int[Array, "*batch time"]
    ) -> Float[Array, "*batch time dim"]:
        x = table_of(self, "embed").embedded(jnp.maximum(ids, 0))
        x = self.execution.by_example(x)
        return x * self.config.embed_scale if self.config.embed_scale != 1.0 else x

    def lower(self, text: Text) -> Text:
        """Run the layers below all that the adapter trains.

        Their states are the same whatever the adapter is trained to, and dropout acts
        on adapters alone. They can therefore be computed once and kept.

        Args:
            text: Token ids, padded on the right with negative ids. Lower states are
                returned as they are, and so are ids where no layer is frozen.

        Returns:
            What `prefix`, `hidden` and `hidden_at` take in place of the ids.

        >>> from goracs_jax.models.targets import Rules
        >>> lora = LoraConfig(rules=Rules(targets=("q_proj",), layers=(1,)))
        >>> model = Decoder(DecoderConfig.tiny(), lora, key=jax.random.key(0))
        >>> ids = jnp.arange(6)
        >>> lower = model.lower(ids)
        >>> bool(jnp.allclose(model.hidden(lower), model.hidden(ids), atol=1e-5))
        True
        """
        if not self.frozen_layers or isinstance(text, LowerStates):
            return text
        with jax.default_matmul_precision("float32"):
            return LowerStates(self._run(text, self.frozen_layers)[0])

    def prefix(self, text: Text) -> Float[Array, "*batch time dim"]:
        """Return the hidden states before the last layer; see `tail`."""
        with jax.default_matmul_precision("float32"):
            return self._run(text, self.config.num_layers - 1)[0]

    def last_layer(self) -> DecoderLayer:
        """Return the last layer as a module of its own, without the layer axis."""
        graph, state = nnx.split(self.layers)
        last = _take(state, self.config.num_layers - 1)
        return nnx.merge(graph, self.execution.gathered(last))

    def tail(
        self,
        layer: DecoderLayer,
        x: Float[Array, "*batch time dim"],
        at: Int[Array, "*batch places"] | None = None,
    ) -> Float[Array, "*batch places dim"]:
        """Run the last layer and the final norm on the output of `prefix`.

        Args:
            layer: The last layer.
            x: The states before it.
            at: Places of the tokens whose states are returned; None means all.
        """
        if at is not None and self.execution.runs_whole:
            return rows_at(self.tail(layer, x), at)
        kind, time = self.embed.dtype, x.shape[-2]
        index = self.config.num_layers - 1
        look = looks(self.config, self.execution, kind, time, at=at)(index)
        with jax.default_matmul_precision("float32"):
            x, _ = layer(x, look, execution=self.execution)
            return self._final(self.execution.by_example(x))

    def hidden(
        self, text: Text, layout: Layout | None = None
    ) -> Float[Array, "*batch time dim"]:
        """Return the hidden states after the final norm.

        Args:
            text: Token ids, padded on the right with negative ids, or what `lower`
                returned for them.
            layout: Positions and mask; the default is one text from left to right.

        Returns:
            One hidden state per token; those of padding are meaningless.
        """
        with jax.default_matmul_precision("float32"):
            return self._final(self._run(text, self.config.num_layers, layout)[0])

    def hidden_at(
        self,
        text: Text,
        at: Int[Array, "*batch places"] | None,
    ) -> Float[Array, "*batch places dim"]:
        """Return what `hidden` returns at some places of texts from left to right.

        The last layer takes keys and values of all tokens, and everything else at these
        places alone, unless `Execution.runs_whole`.

        Args:
            text: As for `hidden`.
            at: The places; None means all.

        >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
        >>> ids, last = jnp.arange(6).reshape(2, 3), jnp.array([[2], [2]])
        >>> found = model.hidden_at(ids, last)
        >>> bool(jnp.allclose(found, model.hidden(ids)[:, 2:], atol=1e-5))
        True
        """
        if at is None:
            return self.hidden(text)
        if self.execution.runs_whole:
            return rows_at(self.hidden(text), at)
        return self.tail(self.last_layer(), self.prefix(text), at)

    def empty_cache(self, batch: int, slots: int) -> KeysValues:
        """Return an empty cache of shape [layers, batch, slots, heads, head_dim].

        >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
        >>> model.empty_cache(batch=3, slots=10).k.shape
        (2, 3, 10, 2, 8)
        """
        c = self.config
        shape = (c.num_layers, batch, slots, c.num_kv_heads, c.head_dim)
        return KeysValues(*(jnp.zeros(shape, self.embed.dtype) for _ in "kv"))

    def extend(
        self, ids: Int[Array, "batch time"], layout: Layout, past: KeysValues
    ) -> tuple[Float[Array, "batch time dim"], KeysValues]:
        """Return the hidden states of tokens that follow cached ones.

        Args:
            ids: The new tokens.
            layout: Positions and mask of the cached and the new tokens.
            past: Keys and values of the cached tokens, from `empty_cache` or from
                earlier calls.

        Returns:
            One hidden state per new token, and the keys and values of the new tokens,
            which the caller puts into the cache.
        """
        with jax.default_matmul_precision("float32"):
            x, new = self._run(ids, self.config.num_layers, layout, past)
            assert new is not None  # because a past is given
            return self._final(x), new

    def logits(
        self,
        hidden: Float[Array, "*batch dim"],
        tokens: Int[Array, " tokens"] | None = None,
    ) -> Float32[Array, "*batch tokens"]:
        """Return the logits of all tokens, or of some, in float32.

        Args:
            hidden: Hidden states after the final norm.
            tokens: Token ids whose logits are needed; None means the whole vocabulary.
        """
        head = table_of(self, "head")
        if tokens is not None:
            head = Table(head.whole()[tokens])
        head = head._replace(base=self.execution.gathered_rows(head.base))
        return softcap(head.products(hidden), self.config.logit_softcap)

    def __call__(
        self, ids: Int[Array, "*batch time"]
    ) -> Float[Array, "*batch time vocab"]:
        """Return the logits of the next token at each token, in the weights' type."""
        hidden = self.hidden(ids)
        return self.logits(hidden).astype(hidden.dtype)


def with_execution(model: Decoder, **changes: Any) -> Decoder:
    """Return a decoder that shares all weights and runs in another way.

    Args:
        model: The decoder, which is unchanged.
        changes: Fields of `Execution`.

    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> with_execution(model, remat="layers").execution.remat
    'layers'
    """
    model = nnx.merge(*nnx.split(model))
    model.execution = replace(model.execution, **changes)
    return model


def _take(state: PyTree, index) -> PyTree:
    take = lambda w: jax.lax.dynamic_index_in_dim(w, index, keepdims=False)
    return jax.tree.map(take, state)
