"""Rotary positions (RoPE; RoFormer, Su et al., 2021) and their scaling."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

Rope = tuple[Float32[Array, "*places half"], Float32[Array, "*places half"]]


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """The frequencies theta^(-2i / rotated) / divisors_i of the i-th pair.

    Every kind of RoPE scaling is a choice of divisors: all 1 (default), all equal
    (linear), growing with the wavelength (llama3, yarn), or stated (longrope). None
    stands for 1.

    Args:
        theta: Base of the frequencies.
        divisors: One per pair.
        magnitude: Factor of what is rotated, by which yarn and longrope make up for
            scores that grow flat over long texts; scores get its square.
        share: Share of a head that is rotated, from its start; the rest has no
            position.

    >>> RopeConfig(theta=10000.0, divisors=(1.0, 4.0)).frequencies(4)
    (1.0, 0.0025)
    >>> RopeConfig(theta=10000.0, share=0.5).frequencies(8)
    (1.0, 0.01)
    """

    theta: float
    divisors: tuple[float, ...] | None = None
    magnitude: float = 1.0
    share: float = 1.0

    def frequencies(self, head_dim: int) -> tuple[float, ...]:
        """Return the frequencies of the pairs, in radians per token."""
        half = int(head_dim * self.share) // 2
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


def yarn_divisors(
    theta: float,
    rotated: int,
    *,
    factor: float,
    beta_fast: float,
    beta_slow: float,
    original_positions: int,
    truncate: bool,
) -> tuple[float, ...]:
    r"""Return the divisors d_i of YaRN (Peng et al., ICLR 2024, "NTK-by-parts").

    The pair that makes n turns within the original context L is number
    c(n) = rotated log(L / (2 pi n)) / (2 log theta). A ramp s_i rises from 0 at
    c(beta_fast) to 1 at c(beta_slow), and 1 / d_i = (1 - s_i) + s_i / factor.

    Args:
        theta: Base of the frequencies.
        rotated: Width of the part of a head that is rotated: twice the number of pairs.
        factor: The largest divisor.
        beta_fast: Turns from which on a pair keeps its frequency.
        beta_slow: Turns below which it is divided by the whole factor.
        original_positions: The original context L, in tokens.
        truncate: Whether the ends of the ramp are rounded outwards to whole pairs.

    Returns:
        One divisor per pair.

    >>> few = dict(beta_fast=32.0, beta_slow=1.0, original_positions=64, truncate=True)
    >>> yarn_divisors(10000.0, 8, factor=8.0, **few)
    (1.0, 1.778, 8.0, 8.0)
    """

    def pair(turns: float) -> float:
        wavelengths = original_positions / (2 * math.pi * turns)
        return rotated * math.log(wavelengths) / (2 * math.log(theta))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    high = high + 0.001 if low == high else high  # as transformers: no division by 0

    def divisor(i: int) -> float:
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        return 1 / (1 - ramp + ramp / factor)

    return tuple(map(divisor, range(rotated // 2)))


def rope_table(
    positions: Int[Array, "*places"],
    frequencies: tuple[float, ...],
    magnitude: float = 1.0,
) -> Rope:
    """Return the cosines and sines of position times frequency, in float32.

    Both are multiplied by the magnitude, see `RopeConfig`.

    The type of the weights is not used, since bfloat16 rounds position 257 to 256.

    >>> cos, sin = rope_table(jnp.arange(3), (1.0, 0.01))
    >>> cos.shape, float(cos[0, 0])
    ((3, 2), 1.0)
    """
    speed = jnp.asarray(frequencies, jnp.float32)
    angle = positions.astype(jnp.float32)[..., None] * speed
    if magnitude != 1.0:
        return magnitude * jnp.cos(angle), magnitude * jnp.sin(angle)
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "*batch time heads head_dim"], rope: Rope
) -> Float[Array, "*batch time heads head_dim"]:
    """Rotate the pairs (x_i, x_{i + half}) by the angle of their position.

    Where the table has fewer than head_dim / 2 pairs, the end of a head stays.
    """
    rotated = 2 * rope[0].shape[-1]
    if rotated < x.shape[-1]:
        turned = rotate(x[..., :rotated], rope)
        return jnp.concatenate([turned, x[..., rotated:]], axis=-1)
    cos, sin = (table[..., None, :] for table in rope)  # [*places, 1, half]
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
    if 2 * cos.shape[-1] < dim:
        return rotate(x, rope)
    for_all = lambda *pair: jnp.tile(jnp.concatenate(pair, axis=-1), heads)
    flat = x.reshape(*x.shape[:-2], heads * dim)
    before, behind = (jnp.roll(flat, shift, axis=-1) for shift in (dim // 2, -dim // 2))
    is_first = jnp.arange(heads * dim) % dim < dim // 2
    other = jnp.where(is_first, behind, before).astype(jnp.float32)
    turned = flat.astype(jnp.float32) * for_all(cos, cos) + other * for_all(-sin, sin)
    return turned.astype(x.dtype).reshape(x.shape)
