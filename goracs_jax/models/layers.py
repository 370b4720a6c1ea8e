"""The parts of a decoder that process each token alone: norm, MLP, soft cap."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LoraConfig, linear


def softcap(x: Float[Array, "*shape"], cap: float | None) -> Float[Array, "*shape"]:
    """Return cap * tanh(x / cap), which lies in (-cap, cap), or x if cap is None.

    >>> float(softcap(jnp.array(100.0), 30.0)), float(softcap(jnp.array(100.0), None))
    (29.92, 100.0)
    """
    return x if cap is None else cap * jnp.tanh(x / cap)


def bend(
    z: Float[Array, "*shape"], cap: float | None
) -> Float[Array, "*shape"] | float:
    """Return the derivative of softcap at the point where its value is z.

    >>> float(bend(softcap(jnp.array(0.0), 30.0), 30.0)), bend(jnp.array(5.0), None)
    (1.0, 1.0)
    """
    return 1.0 if cap is None else 1 - (z / cap) ** 2


#: The activation functions of gates, by the names of `DecoderConfig`.
ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu}


class RMSNorm(nnx.Module):
    """RMS normalisation, (offset + w) * x / sqrt(mean(x^2) + eps), in float32.

    The offset is 1 for models that store their weights as differences from 1.
    """

    def __init__(self, dim: int, eps: float, *, offset: float = 0.0, dtype=jnp.float32):
        self.weight = nnx.Param(jnp.full(dim, 1.0 - offset, dtype))
        self.eps, self.offset = eps, offset

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Normalise the last axis."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        weight = self.weight[...].astype(jnp.float32)
        # An offset of 0 is not added: that would cost one more operation each time.
        weight = weight + self.offset if self.offset else weight
        return (weight * y).astype(x.dtype)


class MLP(nnx.Module):
    """The gated MLP (act(x W_gate) * x W_up) W_down, where act is SiLU or GELU."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        make = partial(linear, lora=lora, biases=c.biases, rngs=rngs, dtype=dtype)
        self.gate_proj = make("gate_proj", c.hidden_size, c.intermediate_size)
        self.up_proj = make("up_proj", c.hidden_size, c.intermediate_size)
        self.down_proj = make("down_proj", c.intermediate_size, c.hidden_size)
        self.activation = c.activation

    def __call__(
        self, x: Float[Array, "*batch time dim"]
    ) -> Float[Array, "*batch time dim"]:
        """Apply the MLP to each token."""
        act = ACTIVATIONS[self.activation]
        return self.down_proj(act(self.gate_proj(x)) * self.up_proj(x))
