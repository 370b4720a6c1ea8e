"""Read the rotation of a decoder from a Hugging Face config.json."""

import math
from collections.abc import Mapping
from typing import Any

from goracs_jax.errors import InputError
from goracs_jax.models.fields import Fields
from goracs_jax.models.hf_fields import mapping
from goracs_jax.models.rope import RopeConfig, llama3_divisors, yarn_divisors

Sizes = Mapping[str, Any]  # fields of a DecoderConfig
KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def read_rope(
    field: Fields, sizes: Sizes, *, theta: float = 10000.0, partial: bool = False
) -> dict[str, Any]:
    """Read the rotation in its old or new spelling.

    transformers 5 moved `rope_theta` into `rope_parameters`. Earlier versions had the
    scaling in `rope_scaling`, with `type` or `rope_type`. If a file has both, the new
    spelling takes precedence.

    Args:
        field: The fields of config.json.
        sizes: The sizes of the model.
        theta: Base of the frequencies if the file has none: a default of the family.
        partial: Whether the family may rotate a part of each head, as Phi does.

    Returns:
        `rope`, and `max_positions` where the rotation allows fewer tokens than the file
        says.

    Raises:
        InputError: The kind is not supported, or a field of it is missing or unknown.
    """
    rope = {**mapping(field, "rope_scaling"), **mapping(field, "rope_parameters")}
    theta = field("rope_theta", float, default=theta)
    return _one_rope(rope, theta, field, sizes, partial=partial)


def read_two_ropes(
    field: Fields, sizes: Sizes, *, theta: float, local_theta: float
) -> dict[str, Any]:
    """Read the rotations of full and of sliding layers, which scaling leaves alone.

    Args:
        field: The fields of config.json.
        sizes: The sizes of the model.
        theta: Base of the frequencies in full layers, if `rope_parameters` has none.
        local_theta: The same for sliding layers.

    Returns:
        `rope` and `sliding_rope`.

    Raises:
        InputError: As for `read_rope`.
    """
    nested = mapping(field, "rope_parameters")
    kinds = Fields(nested, f"{field.where}: rope_parameters")
    full = {**mapping(field, "rope_scaling"), **mapping(kinds, "full_attention")}
    local = mapping(kinds, "sliding_attention")
    sliding = _one_rope(local, local_theta, field, sizes)
    kinds.nothing_else()
    traits = _one_rope(full, theta, field, sizes)
    return traits | {"sliding_rope": sliding["rope"]}


def _one_rope(
    raw: Mapping[str, Any],
    theta: float,
    top: Fields,
    sizes: Sizes,
    *,
    partial: bool = False,
) -> dict[str, Any]:
    field = Fields(raw, f"{top.where}: rope_parameters")
    # Phi's first name of longrope was su.
    kinds = ("default", "longrope", "su") if partial else KINDS
    kind = field.only("rope_type", kinds, default=field.get("type", "default"))
    theta = field("rope_theta", float, default=theta)
    share = 1.0
    for place in (top, field):
        if partial:
            share = place("partial_rotary_factor", float, default=share)
        else:
            place.only("partial_rotary_factor", {1.0}, default=1.0)
    rotated = int(sizes["head_dim"] * share)
    name = "original_max_position_embeddings"
    inside = field(name, int, default=sizes["max_positions"])
    # Like in transformers, a field outside of rope_parameters takes precedence, and
    # Phi has a default there.
    original = top(name, int, default=4096 if partial else inside)
    divisors, magnitude, limit = None, 1.0, {}
    if kind == "linear":
        divisors = (field("factor", float),) * (rotated // 2)
    if kind == "dynamic":
        # It changes the frequencies of texts longer than max_position_embeddings alone,
        # and these are not read by any model.
        field("factor", float)
    if kind == "llama3":
        divisors = llama3_divisors(
            theta,
            rotated,
            factor=field("factor", float),
            low_freq_factor=field("low_freq_factor", float),
            high_freq_factor=field("high_freq_factor", float),
            original_positions=original,
        )
    if kind == "yarn":
        divisors, magnitude = _yarn(field, theta, rotated, original)
    if kind in ("longrope", "su"):
        # A text of more tokens would turn all of its tokens by other angles, so that
        # these would depend on what it ends with: such texts are not read.
        limit = {"max_positions": min(original, sizes["max_positions"])}
        divisors = _factors(field, "short_factor", rotated // 2)
        _factors(field, "long_factor", rotated // 2)
        factor = field("factor", float, default=sizes["max_positions"] / original)
        grown = math.log(factor) / math.log(original) if factor > 1 else 0.0
        magnitude = field("attention_factor", float, default=math.sqrt(1 + grown))
    field.ignore("finetuned")  # whether the model was trained with this scaling
    field.nothing_else()
    rope = RopeConfig(theta=theta, divisors=divisors, magnitude=magnitude, share=share)
    return {"rope": rope} | limit


def _yarn(
    field: Fields, theta: float, rotated: int, original: int
) -> tuple[tuple[float, ...], float]:
    """Read the divisors and the magnitude of yarn, as transformers does."""
    if theta <= 1:
        raise InputError(
            f"{field.where}: rope_theta must be more than 1 for yarn, got {theta}: "
            "take the file that was published with the weights."
        )
    factor = field("factor", float)
    divisors = yarn_divisors(
        theta,
        rotated,
        factor=factor,
        beta_fast=field("beta_fast", float, default=32.0),
        beta_slow=field("beta_slow", float, default=1.0),
        original_positions=original,
        truncate=field.flag("truncate", default=True),
    )
    grown = lambda scale: 0.1 * scale * math.log(max(factor, 1.0)) + 1
    scale, of_all = (
        field(name, float, default=0.0, positive=False)
        for name in ("mscale", "mscale_all_dim")
    )
    usual = grown(scale) / grown(of_all) if scale and of_all else grown(1.0)
    return divisors, field("attention_factor", float, default=usual)


def _factors(field: Fields, name: str, count: int) -> tuple[float, ...]:
    """Read a list of positive numbers, one for each pair."""
    found = field(name, list)
    numbers = Fields({str(i): x for i, x in enumerate(found)}, f"{field.where}: {name}")
    if len(found) != count:
        raise InputError(
            f"{numbers.where} must have {count} numbers, got {len(found)}: take the "
            "file that was published with the weights."
        )
    return tuple(numbers(str(i), float) for i in range(count))
