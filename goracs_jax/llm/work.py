"""Predict what the program of a pass computes, moves and exchanges, from sizes alone.

`goracs_jax.llm.flops` counts what a method needs. A program does more: it pads texts,
runs the adapters, and computes attention again in a backward pass. Bytes are a lower
bound: every weight and every activation between two products is read and written once.
"""

from typing import NamedTuple

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.llm.flops import (
    Counts,
    attention_flops,
    forward_flops,
    gradient_flops,
)
from goracs_jax.llm.memory import PASSES, Rows
from goracs_jax.llm.sizes import Placement, linear_sizes, weight_bytes
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LoraConfig


class Work(NamedTuple):
    """What all devices do together for one batch; bytes of all of them."""

    flops: float
    moved: float  # bytes between memories and cores
    exchanged: float  # bytes that devices get from each other


def pass_flops(
    config: DecoderConfig,
    lora: LoraConfig,
    pass_name: str,
    rows: Rows,
    placement: Placement,
) -> float:
    """Count the FLOPs of the matrix products in the program of a pass.

    Args:
        config: Sizes of the decoder.
        lora: The adapters.
        pass_name: One of `goracs_jax.llm.memory.PASSES`.
        rows: The shape of a batch.
        placement: How the pass lies on its devices.

    Raises:
        InputError: There is no such pass.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> forward, backward = (
    ...     pass_flops(config, lora, name, Rows(1, 64, 64), Placement())
    ...     for name in ("embedding", "training")
    ... )
    >>> 2 < backward / forward < 3
    True
    """
    if pass_name not in PASSES:
        raise InputError(f"no pass {pass_name!r}: give one of {', '.join(PASSES)}.")
    c, tokens = config, rows.examples * rows.length
    places = _asked(pass_name, lora, rows, placement)
    lengths = np.full(rows.examples, rows.length)
    counts = Counts(lengths, np.full(rows.examples, places))
    head = 2.0 * c.hidden_size * c.vocab_size
    scored = rows.examples * min(rows.scored, rows.length)
    # Logits that would be of all tokens for which the last layer runs.
    unscored = head * (rows.examples * places - scored)
    low = 2.0 * tokens * sum(_low(c, lora, name) for name in lora.targets)
    whole = forward_flops(c, counts) + c.num_layers * low
    layers = whole - head * rows.examples * places
    if pass_name in ("embedding", "answers"):
        return layers
    if pass_name == "validation":
        return whole - unscored
    if pass_name == "likelihood":
        return whole
    if pass_name == "generation":
        return layers + _generated(c, lora, rows) + head * rows.examples
    if pass_name == "last_v_lora_b":
        once = gradient_flops(c, counts, pass_name) - 2 * unscored
        return once + c.num_layers * low
    # Backward, attention computes its scores again, with "layers" the whole layer but
    # its last product. The kernel of attention computes three again, in two passes. A
    # weight of an adapter takes two products.
    again = c.num_layers * attention_flops(c.num_heads * c.head_dim, lengths) / 2
    if placement.splash(config, rows.length):
        again *= 3
    if placement.remat == "layers":
        down = 2.0 * tokens * c.intermediate_size * c.hidden_size
        again += layers - c.num_layers * down
    once = gradient_flops(c, counts, "all_lora") - 2 * unscored
    return once + 3 * c.num_layers * low + again


def _asked(pass_name: str, lora: LoraConfig, rows: Rows, placement: Placement) -> int:
    """Return the tokens of a row whose output of the last layer a pass computes.

    Training with dropout draws it for every token, and so runs the last layer whole;
    see also `goracs_jax.models.execution.Execution.runs_whole`.
    """
    if placement.attention == "splash":
        return rows.length
    if pass_name == "answers":
        return 1
    by_score = pass_name in ("validation", "last_v_lora_b", "all_lora")
    by_score |= pass_name == "training" and lora.dropout == 0
    return min(rows.scored, rows.length) if by_score else rows.length


def _low(c: DecoderConfig, lora: LoraConfig, name: str) -> int:
    return lora.r * sum(linear_sizes(c)[name])


def _generated(c: DecoderConfig, lora: LoraConfig, rows: Rows) -> float:
    """Count the FLOPs of all tokens after the first, of every beam."""
    beams, steps = rows.examples * rows.beams, rows.new - 1
    weights = sum(a * b for a, b in linear_sizes(c).values())
    weights += sum(_low(c, lora, name) for name in lora.targets)
    seen = rows.length + rows.beams * (rows.new + 1)
    layer = 2.0 * weights + 4.0 * c.num_heads * c.head_dim * seen
    head = 2.0 * c.hidden_size * c.vocab_size
    return beams * steps * (c.num_layers * layer + head)


def pass_work(
    config: DecoderConfig,
    lora: LoraConfig,
    pass_name: str,
    rows: Rows,
    placement: Placement,
) -> Work:
    """Predict what one batch takes, on all devices of a grid together.

    Args:
        config: Sizes of the decoder.
        lora: The adapters.
        pass_name: One of `goracs_jax.llm.memory.PASSES`.
        rows: The shape of a batch, over all devices.
        placement: How the pass lies on its devices.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> pass_work(config, lora, "training", Rows(4, 16, 16), Placement()).exchanged
    0.0
    """
    data, model, itemsize = placement.data, placement.model, placement.itemsize
    whole = weight_bytes(config, lora, placement._replace(data=1))
    weights = whole.layers + whole.tables + whole.head
    trained = pass_name in ("all_lora", "training")
    reads = (2 if trained else 1) + (trained and placement.remat == "layers")
    if pass_name == "generation":
        reads = rows.new
    tokens = rows.examples * rows.length
    widths = sum(a + b for a, b in linear_sizes(config).values())
    # Each product reads its input and writes its output; scores that are not kept in a
    # kernel are written, read by the softmax, and written and read in the type of the
    # activations.
    scores = 4.0 * config.num_heads * rows.length * tokens
    if placement.splash(config, rows.length):
        scores = 0.0
    layer = itemsize * tokens * widths + 3 * scores
    moved = reads * (data * model * weights + config.num_layers * layer)
    # Each device gets the parts of the weights that others have; features that are
    # split over `model` are summed twice a layer.
    gathered = reads * (data - 1) * model * weights
    sums = (model - 1) * 2 * itemsize * tokens * config.hidden_size
    return Work(
        flops=pass_flops(config, lora, pass_name, rows, placement),
        moved=float(moved),
        exchanged=float(gathered + reads * config.num_layers * sums),
    )
