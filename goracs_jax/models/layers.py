"""The parts of a decoder that treat each token alone."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LoraConfig, linear


def softcap(x: Float[Array, "*shape"], cap: float | None) -> Float[Array, "*shape"]:
    """Bends x into (-cap, cap) as cap * tanh(x / cap), if there is a cap.

    >>> float(softcap(jnp.array(100.0), 30.0)), float(softcap(jnp.array(100.0), None))
    (29.92, 100.0)
    """
    return x if cap is None else cap * jnp.tanh(x / cap)


class RMSNorm(nnx.Module):
    """(offset + w) * x / sqrt(mean(x^2) + eps), in float32.

    The offset is 1 where a model's weights are stored as what differs from 1.
    """

    def __init__(self, dim: int, eps: float, *, offset: float = 0.0, dtype=jnp.float32):
        self.weight = nnx.Param(jnp.full(dim, 1.0 - offset, dtype))
        self.eps, self.offset = eps, offset

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Normalises the last axis."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        weight = self.weight[...].astype(jnp.float32)
        # Adding nothing is left out: it would be an operation per use.
        weight = weight + self.offset if self.offset else weight
        return (weight * y).astype(x.dtype)


class MLP(nnx.Module):
    """(act(x W_gate) * x W_up) W_down, with act SiLU (SwiGLU) or GELU (GeGLU)."""

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        make = partial(linear, lora=lora, biases=c.biases, rngs=rngs, dtype=dtype)
        self.gate_proj = make("gate_proj", c.hidden_size, c.intermediate_size)
        self.up_proj = make("up_proj", c.hidden_size, c.intermediate_size)
        self.down_proj = make("down_proj", c.intermediate_size, c.hidden_size)
        self.activation = c.activation

    def __call__(
        self, x: Float[Array, "*batch time dim"]
    ) -> Float[Array, "*batch time dim"]:
        """Transforms each token."""
        act = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu}[self.activation]
        return self.down_proj(act(self.gate_proj(x)) * self.up_proj(x))
