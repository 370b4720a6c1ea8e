"""Low-rank adapters (LoRA, Hu et al., ICLR 2022) of linear layers."""

import math
from collections.abc import Collection
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from goracs_jax.models.lora_config import DEFAULT_LORA as DEFAULT_LORA
from goracs_jax.models.lora_config import LoraConfig as LoraConfig
from goracs_jax.models.targets import LINEAR_NAMES as LINEAR_NAMES

#: Name of the values that a backward pass keeps where it needs them: the outputs of
#: linear layers, and the queries, keys and values that attention reads.
KEPT = "kept"


@jax.custom_vjp
def product(
    x: Float[Array, "*batch in"], w: Float[Array, "in out"]
) -> Float[Array, "*batch out"]:
    """Return x w in the type of x, with sums in float32, also in the backward pass.

    On a CPU, XLA multiplies bfloat16 twice as fast if it may return float32. JAX's own
    transpose of such a product would multiply a float32 gradient, so the backward pass
    is written out. It states its precision, because it is traced after the caller's
    `jax.default_matmul_precision` has ended.

    Args:
        x: Inputs.
        w: Weights.

    Returns:
        The product, in the type of x.

    >>> ones = lambda *shape: jnp.ones(shape, jnp.bfloat16)
    >>> product(ones(2, 3), ones(3, 4)).dtype
    dtype(bfloat16)
    """
    return _sums("...i,io->...o", x, w)


def _sums(terms: str, x: Array, y: Array) -> Array:
    dot = partial(jnp.einsum, terms, precision="float32")
    return dot(x, y, preferred_element_type=jnp.float32).astype(x.dtype)


def _backward(saved, gradient):
    x, w = saved
    # If the weights are frozen, XLA drops the second product, which is not used.
    return _sums("...o,io->...i", gradient, w), _weight_gradient(x, gradient)


def _weight_gradient(x: Array, gradient: Array) -> Float[Array, "in out"]:
    if x.shape[-1] <= gradient.shape[-1]:
        return _sums("...i,...o->io", x, gradient)
    # This is the gradient of A, whose rank is small. A CPU takes four times as long
    # with the rank as columns. Without the barrier, XLA would undo this.
    return jax.lax.optimization_barrier(_sums("...o,...i->oi", gradient, x)).T


product.defvjp(lambda x, w: (product(x, w), (x, w)), _backward)


class Linear(nnx.Module):
    """A linear layer, x W + b, with the kernel W stored as [in, out] and b optional."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        bias: bool = False,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
    ):
        kernel = jax.random.normal(rngs(), (d_in, d_out)) / math.sqrt(d_in)
        self.kernel = nnx.Param(kernel.astype(dtype))
        self.bias = nnx.Param(jnp.zeros(d_out, dtype)) if bias else None

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Apply the layer."""
        y = product(x, self.kernel[...])
        y = y if self.bias is None else y + self.bias[...]
        return checkpoint_name(y, KEPT)


class DropoutKey(nnx.Variable):
    """Random key of a layer's dropout, which only `with_dropout` adds."""


class LayerConstant(nnx.Variable):
    """A number of a layer's adapter that is not trained and in no file."""


#: The parts of a decoder that are no weights of its base: `nnx` filters.
ADAPTERS = (nnx.LoRAParam, LayerConstant)


class LoRALinear(nnx.Module):
    r"""A linear layer with an adapter, x W + b + s (d(x) A) B.

    W and b are frozen; A and B are float32. s is alpha / r. d is dropout in a model
    made by `with_dropout`, and the identity in any other. As in PEFT, A starts uniform
    in ± 1 / sqrt(in) (Kaiming with a = sqrt 5) and B starts at zero. A fresh adapter
    therefore changes nothing; its gradient dL/dA is zero, and dL/dB is not.

    Variants add s c with a trained vector c (`bias`), or multiply each column of W and
    of s A B by m / || W + s A B ||, where m is trained and the norm counts as a
    constant (`dora`).

    >>> layer = LoRALinear("q_proj", 6, 4, DEFAULT_LORA, rngs=nnx.Rngs(0))
    >>> layer.lora_a.shape, layer.lora_b.shape
    ((6, 8), (8, 4))
    """

    dropout_key: DropoutKey  # absent outside training
    scales: LayerConstant  # absent where the scale is the same everywhere, see `placed`
    adapted: LayerConstant  # as `scales`; with `dora` alone

    def __init__(
        self,
        name: str,
        d_in: int,
        d_out: int,
        lora: LoraConfig,
        *,
        bias: bool = False,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
    ):
        kernel = jax.random.normal(rngs(), (d_in, d_out)) / math.sqrt(d_in)
        self.kernel = nnx.Param(kernel.astype(dtype))
        self.bias = nnx.Param(jnp.zeros(d_out, dtype)) if bias else None
        bound, width = 1 / math.sqrt(d_in), lora.width(name)
        self.lora_a = nnx.LoRAParam(
            jax.random.uniform(rngs(), (d_in, width), minval=-bound, maxval=bound)
        )
        self.lora_b = nnx.LoRAParam(jnp.zeros((width, d_out)))
        self.scale, self.dropout = lora.scale, lora.dropout
        self.has_lora_bias, self.dora = lora.bias, lora.dora
        if lora.bias:
            self.lora_bias = nnx.LoRAParam(jnp.zeros(d_out))
        if lora.dora:
            self.lora_m = nnx.LoRAParam(column_norms(self.kernel[...]))

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Apply the layer and its adapter."""
        frozen = y = product(x, self.kernel[...])
        y = y if self.bias is None else y + self.bias[...]
        # The adapter stays in float32 under bfloat16 weights: its entries are small.
        x = x.astype(jnp.float32)
        if hasattr(self, "dropout_key"):
            stay = jax.random.bernoulli(
                self.dropout_key[...], 1 - self.dropout, x.shape
            )
            x = jnp.where(stay, x / (1 - self.dropout), 0)
            if self.dora:  # as in PEFT, the change of W's columns sees dropout too
                frozen = product(x.astype(y.dtype), self.kernel[...])
        low = checkpoint_name(self.factor * product(x, self.lora_a[...]), KEPT)
        update = product(low, self.lora_b[...])
        if self.has_lora_bias:
            update = update + self.factor * self.lora_bias[...]
        if self.dora:
            ratio = self.ratio()
            update = ratio * update + (ratio - 1) * frozen.astype(jnp.float32)
        return checkpoint_name(y + update.astype(y.dtype), KEPT)

    @property
    def factor(self) -> Float[Array, "*layers"] | float:
        """The scale s, of each layer if it differs."""
        return self.scales[...] if hasattr(self, "scales") else self.scale

    def updated(self) -> Float[Array, "*layers in out"]:
        """Return W + s A B in float32, for one layer or for all that are stacked."""
        ab = jnp.matmul(self.lora_a[...], self.lora_b[...], precision="float32")
        factor = jnp.asarray(self.factor)[..., None, None]
        return self.kernel[...].astype(jnp.float32) + factor * ab

    def ratio(self) -> Float[Array, "*layers out"]:
        """Return m / || W + s A B || by column, 1 in a layer without an adapter."""
        norms = jax.lax.stop_gradient(column_norms(self.updated()))
        if not hasattr(self, "adapted"):
            return self.lora_m[...] / norms
        return jnp.where(self.adapted[...][..., None], self.lora_m[...], norms) / norms


def column_norms(w: Float[Array, "*layers in out"]) -> Float[Array, "*layers out"]:
    """Return the norms of the columns of a kernel, in float32."""
    return jnp.linalg.norm(w.astype(jnp.float32), axis=-2)


M = TypeVar("M", bound=nnx.Module)


def with_dropout(model: M, key: jax.Array) -> M:
    """Return the model in training mode, in which inputs of every A are dropped.

    Apply the model to one example at a time: under `vmap`, give each example a key of
    its own. The random numbers of a layer and a token then do not depend on the
    padding.

    Args:
        model: A model whose adapters have a leading layer axis.
        key: Random key of the dropout.

    Returns:
        A model that shares all weights of `model`, which is unchanged.

    >>> from goracs_jax.models import Decoder, DecoderConfig
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> train_mode = with_dropout(model, jax.random.key(1))
    >>> train_mode(jnp.zeros(5, jnp.int32)).shape
    (5, 96)
    """
    model = nnx.merge(*nnx.split(model))
    adapted = [m for _, m in nnx.iter_modules(model) if isinstance(m, LoRALinear)]
    for layer, key_layer in zip(
        adapted, jax.random.split(key, len(adapted)), strict=True
    ):
        if layer.dropout > 0:
            keys = jax.random.split(key_layer, layer.lora_a.shape[0])
            layer.dropout_key = DropoutKey(keys)
    return model


def linear(
    name: str,
    d_in: int,
    d_out: int,
    lora: LoraConfig,
    *,
    biases: Collection[str] = (),
    rngs: nnx.Rngs,
    dtype=jnp.float32,
) -> Linear | LoRALinear:
    """Make the linear layer called `name`, with an adapter if `lora` targets it.

    Args:
        name: Name of the layer; see `LINEAR_NAMES`.
        d_in: Width of the inputs.
        d_out: Width of the outputs.
        lora: Configuration of the adapters.
        biases: Names of the layers that have a bias.
        rngs: Random keys of the initial weights.
        dtype: Type of the frozen weights.

    Returns:
        The layer.

    >>> type(linear("k_proj", 6, 4, DEFAULT_LORA, rngs=nnx.Rngs(0))).__name__
    'Linear'
    """
    bias = name in biases
    if name in lora.targets:
        return LoRALinear(name, d_in, d_out, lora, bias=bias, rngs=rngs, dtype=dtype)
    return Linear(d_in, d_out, bias=bias, rngs=rngs, dtype=dtype)
