"""Rotary positions (RoFormer, Su et al., 2021) and the ways they are stretched."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

Rope = tuple[Float32[Array, "*places half"], Float32[Array, "*places half"]]


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Speeds of the rotation: theta^(-2i / head_dim) / divisors_i for the i-th pair.

    Every kind of scaling is a choice of divisors: all 1 (default), all the same
    (linear), or growing with the wavelength (llama3). None stands for 1.

    >>> RopeConfig(theta=10000.0, divisors=(1.0, 4.0)).frequencies(4)
    (1.0, 0.0025)
    """

    theta: float
    divisors: tuple[float, ...] | None = None

    def frequencies(self, head_dim: int) -> tuple[float, ...]:
        """Radians per position, one for each of the head_dim / 2 pairs."""
        half = head_dim // 2
        divisors = self.divisors or (1.0,) * half
        return tuple(
            self.theta ** (-i / half) / divisor
            for i, divisor in zip(range(half), divisors, strict=True)
        )


def llama3_divisors(
    theta: float,
    head_dim: int,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_positions: int,
) -> tuple[float, ...]:
    r"""How Llama 3.1 slows the rotation of each pair.

    A pair that turns r_i = L f_i / (2 pi) times within the original context L keeps its
    speed where r_i > high, is divided by `factor` where r_i < low, and between them
    1 / d_i = (1 - s_i) / factor + s_i with s_i = (r_i - low) / (high - low).

    Args:
        theta: Base of the speeds.
        head_dim: Twice the number of pairs.
        factor: The largest divisor.
        low_freq_factor: low.
        high_freq_factor: high.
        original_positions: L.

    Returns:
        One divisor per pair.

    >>> few = dict(low_freq_factor=1.0, high_freq_factor=4.0, original_positions=64)
    >>> llama3_divisors(10000.0, 8, factor=8.0, **few)
    (1.0, 7.667, 8.0, 8.0)
    """
    low, high = low_freq_factor, high_freq_factor

    def divisor(frequency: float) -> float:
        turns = original_positions * frequency / (2 * math.pi)
        if turns > high:
            return 1.0
        if turns < low:
            return factor
        share = (turns - low) / (high - low)
        return 1 / ((1 - share) / factor + share)

    return tuple(map(divisor, RopeConfig(theta=theta).frequencies(head_dim)))


def rope_table(
    positions: Int[Array, "*places"], frequencies: tuple[float, ...]
) -> Rope:
    """Cosines and sines of position times frequency.

    In float32 whatever the weights: bfloat16 cannot tell position 257 from 256.

    >>> cos, sin = rope_table(jnp.arange(3), (1.0, 0.01))
    >>> cos.shape, float(cos[0, 0])
    ((3, 2), 1.0)
    """
    speed = jnp.asarray(frequencies, jnp.float32)
    angle = positions.astype(jnp.float32)[..., None] * speed
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "*batch time heads head_dim"], rope: Rope
) -> Float[Array, "*batch time heads head_dim"]:
    """Turns the pairs (x_i, x_{i + head_dim / 2}) by the angle of their position."""
    cos, sin = (table[..., None, :] for table in rope)  # [*places, 1, head_dim / 2]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
