"""What variants of LoRA add to a decoder: ranks by layer, and trained vocabularies."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from goracs_jax.errors import InputError
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LayerConstant, LoRALinear, column_norms
from goracs_jax.models.lora_config import LoraConfig


class Table(NamedTuple):
    """The embedding or the output head, of which an adapter may train some rows."""

    base: Float[Array, "vocab dim"]
    tokens: tuple[int, ...] = ()  # whose rows are others than those of `base`
    rows: Float[Array, "tokens dim"] | None = None

    def whole(self) -> Float[Array, "vocab dim"]:
        """Return the table with the rows in place."""
        if self.rows is None:
            return self.base
        return self.base.at[jnp.array(self.tokens)].set(self.rows)

    def embedded(self, ids: Int[Array, "*batch time"]) -> Float[Array, "*batch time d"]:
        """Return the rows of tokens; their gradient is that of `rows` or of `base`."""
        found = self.base[ids]
        if self.rows is None:
            return found
        is_token = ids[..., None] == jnp.array(self.tokens)
        trained = self.rows[jnp.argmax(is_token, axis=-1)]
        return jnp.where(jnp.any(is_token, axis=-1, keepdims=True), trained, found)

    def products(
        self, hidden: Float[Array, "*batch dim"]
    ) -> Float32[Array, "*batch v"]:
        """Return the inner products of hidden states with all rows, in float32."""
        found = _dot(hidden, self.base)
        if self.rows is None:
            return found
        return found.at[..., jnp.array(self.tokens)].set(_dot(hidden, self.rows))


def _dot(hidden: Array, rows: Array) -> Float32[Array, "*batch rows"]:
    return jnp.matmul(
        hidden, rows.T, precision="float32", preferred_element_type=jnp.float32
    )


def placed(layers: nnx.Module, lora: LoraConfig, num_layers: int) -> None:
    """Give stacked layers their ranks and scales, where these differ.

    A layer of a smaller rank, or without an adapter, has zeros in the columns of A and
    in the rows of B that it does not use. Their gradients are zero, because that of A
    is a product with B and that of B one with A, so nothing trains them.

    Args:
        layers: The layers of a decoder, which are changed.
        lora: The configuration, resolved.
        num_layers: Their number.
    """
    if not lora.sites:
        return
    for path, layer in nnx.iter_modules(layers):
        if not isinstance(layer, LoRALinear):
            continue
        name = str(path[-1])
        ranks = jnp.array(lora.ranks(name, num_layers))
        used = jnp.arange(lora.width(name)) < ranks[:, None]
        layer.lora_a[...] = jnp.where(used[:, None, :], layer.lora_a[...], 0)
        layer.scales = LayerConstant(jnp.array(lora.scales(name, num_layers)))
        if layer.dora:
            layer.adapted = LayerConstant(ranks > 0)


def start(model: Any) -> None:
    """Set what an adapter trains of the base to the values there.

    These are the norms of DoRA and the tables of the vocabulary, or rows of them. A
    fresh adapter then changes nothing.

    Args:
        model: A decoder with the weights of its base, which is changed.
    """

    def trained(values: Array) -> nnx.LoRAParam:
        values = values.astype(jnp.float32)
        return nnx.LoRAParam(model.execution.everywhere(values))

    for _, layer in nnx.iter_modules(model.layers):
        if isinstance(layer, LoRALinear) and layer.dora:
            layer.lora_m = trained(column_norms(layer.updated()))
    for name in model.lora.tables:
        setattr(model, f"{name}_table", trained(model.stored_table(name)))
    for name, tokens in model.lora.tokens:
        rows = model.stored_table(name)[jnp.array(tokens)]
        setattr(model, f"{name}_rows", trained(rows))


def table_of(model: Any, name: str) -> Table:
    """Return the embedding or the output head with what the adapter trains of it.

    Args:
        model: A decoder.
        name: "embed" or "head".
    """
    lora, tokens = model.lora, dict(model.lora.tokens)
    base = model.stored_table(name)
    if name in lora.tables:
        base = getattr(model, f"{name}_table")[...].astype(base.dtype)
    elif name == "head" and model.config.tie_embeddings and "head" not in tokens:
        name = "embed"  # rows are tied, tables that are trained whole are not
    if name not in tokens:
        return Table(base)
    rows = getattr(model, f"{name}_rows")[...].astype(base.dtype)
    return Table(base, tokens[name], rows)


def check_merge(config: DecoderConfig, lora: LoraConfig) -> None:
    """Check that a model can hold what an adapter adds to it.

    Args:
        config: The sizes of the model.
        lora: The configuration, resolved.

    Raises:
        InputError: The adapter adds a bias to a layer that has none, or trains tables
            apart that are tied.

    >>> check_merge(DecoderConfig.tiny(), LoraConfig(tables=("head",)))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: the adapter trains embedding and output head ...
    """
    cannot = "in this model, so it cannot be merged: use model and adapter side by side"
    bare = [name for name in lora.targets if name not in config.biases]
    if lora.bias and bare:
        raise InputError(
            f"the adapter adds a bias to {bare[0]}, which has none {cannot}."
        )
    if config.tie_embeddings and (lora.tables or "head" in dict(lora.tokens)):
        raise InputError(
            "the adapter trains embedding and output head apart, which are one table "
            f"{cannot}."
        )


def merge_layers(model: Any) -> None:
    """Merge the adapters of all linear layers into their weights.

    Args:
        model: A decoder, which is changed; see `check_merge`.
    """
    for _, layer in nnx.iter_modules(model):
        if not isinstance(layer, LoRALinear):
            continue
        kernel = layer.updated()
        if layer.dora:
            kernel = layer.ratio()[..., None, :] * kernel
        if layer.has_lora_bias:
            assert layer.bias is not None  # see `check_merge`
            bias = layer.bias[...]
            update = jnp.asarray(layer.factor)[..., None] * layer.lora_bias[...]
            layer.bias = nnx.Param((bias + update).astype(bias.dtype))
            layer.lora_bias = nnx.LoRAParam(jnp.zeros_like(layer.lora_bias[...]))
        layer.kernel = nnx.Param(kernel.astype(layer.kernel.dtype))
        layer.lora_b = nnx.LoRAParam(jnp.zeros_like(layer.lora_b[...]))
        if layer.dora:
            layer.lora_m = nnx.LoRAParam(column_norms(layer.updated()))


def merge_tables(model: Any) -> None:
    """Replace the embedding and the output head by those that the adapter has trained.

    Args:
        model: A decoder, which is changed; see `check_merge`.
    """
    lora, tied = model.lora, model.config.tie_embeddings
    embed, head = (table_of(model, name).whole() for name in ("embed", "head"))
    if lora.tables or lora.tokens:
        model.embed = nnx.Param(embed)
        if not tied:
            model.head = nnx.Param(head)
