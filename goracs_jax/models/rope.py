"""Rotary positions (RoPE; RoFormer, Su et al., 2021) and their scaling."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

Rope = tuple[Float32[Array, "*places half"], Float32[Array, "*places half"]]


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """The frequencies theta^(-2i / head_dim) / divisors_i of the i-th pair.

    Every kind of RoPE scaling is a choice of divisors: all 1 (default), all equal
    (linear), or growing with the wavelength (llama3). None stands for 1.

    >>> RopeConfig(theta=10000.0, divisors=(1.0, 4.0)).frequencies(4)
    (1.0, 0.0025)
    """

    theta: float
    divisors: tuple[float, ...] | None = None

    def frequencies(self, head_dim: int) -> tuple[float, ...]:
        """Return the frequencies of the head_dim / 2 pairs, in radians per token."""
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
    r"""Return the divisors d_i of the frequencies f_i in Llama 3.1.

    Let r_i = L f_i / (2 pi) be the number of turns of a pair within the original
    context L. Then d_i = 1 if r_i > high, and d_i = factor if r_i < low. Between them,
    1 / d_i = (1 - s_i) / factor + s_i with s_i = (r_i - low) / (high - low).

    Args:
        theta: Base of the frequencies.
        head_dim: Width of a head, which is twice the number of pairs.
        factor: The largest divisor.
        low_freq_factor: The number of turns called low.
        high_freq_factor: The number of turns called high.
        original_positions: The original context L, in tokens.

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
    """Return the cosines and sines of position times frequency, in float32.

    The type of the weights is not used, since bfloat16 rounds position 257 to 256.

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
    """Rotate the pairs (x_i, x_{i + head_dim / 2}) by the angle of their position."""
    cos, sin = (table[..., None, :] for table in rope)  # [*places, 1, head_dim / 2]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def rotate_in_place(
    x: Float[Array, "*batch time heads head_dim"], rope: Rope
) -> Float[Array, "*batch time heads head_dim"]:
    """Return what `rotate` returns, without arrays of half a head.

    A TPU would keep those in float32, each padded to 128 numbers. A CPU is slower at
    moving every number to the other half of its head, so it does not do this.
    """
    heads, dim = x.shape[-2:]
    cos, sin = rope
    for_all = lambda *pair: jnp.tile(jnp.concatenate(pair, axis=-1), heads)
    flat = x.reshape(*x.shape[:-2], heads * dim)
    before, behind = (jnp.roll(flat, shift, axis=-1) for shift in (dim // 2, -dim // 2))
    is_first = jnp.arange(heads * dim) % dim < dim // 2
    other = jnp.where(is_first, behind, before).astype(jnp.float32)
    turned = flat.astype(jnp.float32) * for_all(cos, cos) + other * for_all(-sin, sin)
    return turned.astype(x.dtype).reshape(x.shape)
