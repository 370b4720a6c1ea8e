"""Predict the memory of a pass over a language model, from its sizes alone.

A device holds the arguments (weights, adapters, ids), the results, and temporaries:
activations (`goracs_jax.llm.activations`), and the weights of one layer.
"""

from typing import NamedTuple

from goracs_jax.errors import InputError
from goracs_jax.llm.activations import Activations
from goracs_jax.llm.activations import Rows as Rows
from goracs_jax.llm.sizes import Placement, linear_sizes, weight_bytes
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LoraConfig
from goracs_jax.models.targets import BLOCKS

#: The share of a device's memory that a plan fills.
FILLED = 0.9

FORWARD = ("embedding", "validation", "answers", "likelihood", "generation")
BACKWARD = ("last_v_lora_b", "all_lora", "training")
PASSES = (*FORWARD, *BACKWARD)


class Memory(NamedTuple):
    """Bytes of a program on one device."""

    arguments: int
    temporaries: int
    outputs: int = 0

    @property
    def peak(self) -> int:
        """All bytes that the program needs."""
        return sum(self)


def pass_memory(
    config: DecoderConfig,
    lora: LoraConfig,
    pass_name: str,
    rows: Rows,
    placement: Placement,
) -> Memory:
    """Predict the memory of a pass on one device.

    Args:
        config: Sizes of the decoder.
        lora: The adapters.
        pass_name: One of `PASSES`.
        rows: The rows of a batch that are on one device.
        placement: How the pass lies on its devices.

    Raises:
        InputError: There is no such pass.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> few, many = (
    ...     pass_memory(config, lora, "training", Rows(n, 16, 16), Placement())
    ...     for n in (1, 8)
    ... )
    >>> few.temporaries < many.temporaries
    True
    """
    if pass_name not in PASSES:
        raise InputError(f"no pass {pass_name!r}: give one of {', '.join(PASSES)}.")
    lora = lora.resolved(config)
    weights = weight_bytes(config, lora, placement)
    tokens = rows.examples * rows.length
    held = weights.layers + weights.tables + weights.adapters
    held += 0 if pass_name == "embedding" else weights.head
    held += weights.adapters if pass_name == "training" else 0  # the sums
    # A layer is whole over `data` while it runs, and so is the head for the loss. GPUs
    # copy the weights of a layer even where they are whole.
    moved = weights.layer
    if placement.data > 1 and pass_name not in ("embedding", "answers"):
        moved += weights.logits
    # Texts that are not one from left to right have their scores in memory.
    plain = pass_name not in ("likelihood", "generation")
    splash = plain and placement.splash(config, rows.length)
    apart = weights.layers < config.num_layers * weights.layer
    work = Activations(config, lora, rows, placement, splash, apart)
    # Trained tables are float32; where they are used, they are of the model's type.
    moved += work.tables * placement.itemsize if placement.itemsize < 4 else 0
    temporaries = {
        "embedding": lambda: work.forward(),
        "answers": lambda: work.forward(),
        "validation": lambda: work.validation(),
        "likelihood": lambda: max(work.forward(), work.logits()),
        "generation": lambda: work.generation(),
        "last_v_lora_b": lambda: work.tail(),
        "all_lora": lambda: max(work.backward() + work.gradients(), work.projection()),
        "training": lambda: work.backward() + work.dropped() + 4 * work.tables,
    }[pass_name]()
    outputs = {"embedding": 4 * rows.examples * config.hidden_size}
    # Ids, and labels where they are read.
    table = 4 if pass_name in ("embedding", "answers", "generation") else 8
    arguments = held + table * tokens
    # The weight of each token, by which texts end.
    arguments += 4 * config.vocab_size if pass_name == "generation" else 0
    return Memory(arguments, int(temporaries + moved), outputs.get(pass_name, 0))


def largest_exchange(config: DecoderConfig, rows: Rows, placement: Placement) -> int:
    """Return the bytes of the largest array that the devices of a grid may exchange.

    It is a weight of one layer, whole over `data`, the part of a table that one device
    of `model` has, or the states of a device's own examples.

    Args:
        config: Sizes of the decoder.
        rows: The rows of a batch that are on one device.
        placement: How a pass lies on its devices.

    >>> largest_exchange(DecoderConfig.tiny(), Rows(1, 16, 16), Placement())
    6144
    """
    sizes = linear_sizes(config)
    experts = 1 if config.mixture is None else config.mixture.experts
    weights = max(
        a * b * (experts if BLOCKS[name] == "mlp" else 1)
        for name, (a, b) in sizes.items()
    )
    table = -(-config.vocab_size // placement.model) * config.hidden_size
    states = rows.examples * rows.length * config.hidden_size
    return max(weights * placement.itemsize, table * placement.itemsize, states * 4)


def fitting_tokens(
    config: DecoderConfig,
    lora: LoraConfig,
    pass_name: str,
    rows: Rows,
    placement: Placement,
    *,
    memory_bytes: int,
) -> int:
    """Return the most padded tokens of a batch that fit on one device.

    They fill at most 90 % of its memory, and are a multiple of the length.

    Args:
        config: As for `pass_memory`.
        lora: As for `pass_memory`.
        pass_name: As for `pass_memory`.
        rows: As for `pass_memory`, of any number of examples.
        placement: As for `pass_memory`.
        memory_bytes: Memory of the device.

    Returns:
        The tokens; 0 where not even one row fits.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> fit = lambda size: fitting_tokens(
    ...     config, lora, "all_lora", Rows(1, 64, 64), Placement(), memory_bytes=size
    ... )
    >>> fit(10**4), fit(10**9) > fit(10**8) > 64
    (0, True)
    """

    def fits(examples: int) -> bool:
        some = rows._replace(examples=examples)
        memory = pass_memory(config, lora, pass_name, some, placement)
        return memory.peak <= FILLED * memory_bytes

    fitting, too_many = 0, 1
    while fits(too_many):
        fitting, too_many = too_many, 2 * too_many
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
    return fitting * rows.length
