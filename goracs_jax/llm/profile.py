"""How a decoder runs on the devices at hand, where the user does not say it.

A CPU takes a thousand tokens at a time, which fill its matrix products and stay in its
cache. An accelerator takes as many as fit into its memory, in eight shapes at most,
because a program for many chips compiles for a minute; and its matrix products are made
for bfloat16.
"""

from typing import Any, TypeAlias

import jax

from goracs_jax.choices import Dtype
from goracs_jax.devices import kind_of
from goracs_jax.llm.batches import bucket_length
from goracs_jax.llm.memory import Rows, fitting_tokens
from goracs_jax.llm.sizes import Placement
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.execution import Execution
from goracs_jax.models.splash import LANES

Device: TypeAlias = Any  # jax.Device, which pyright takes for a variable
#: Padded tokens of a batch on a CPU, by pass.
CPU_TOKENS = {
    "embedding": 1024,
    "last_v_lora_b": 1024,
    "all_lora": 1024,
    "answers": 2048,
    "training": 2048,
    "validation": 2048,
    "likelihood": 4096,
    "generation": 4096,
}
#: Padded tokens of a batch above which no accelerator gets faster: 64 Ki rows of a
#: matrix product are hundreds of tiles for every core.
MOST_TOKENS = 65_536
#: Rows of the vocabulary at one time: on accelerators, blocks of 1,024 would read and
#: write the sums over a large vocabulary more often than its rows.
ACCELERATOR_BLOCK = 8192
#: Shapes of batches at most, the last and smaller one among them.
SHAPES = 8


def default_dtype(device: Device) -> Dtype:
    """Return the type of weights and activations that suits a device.

    >>> default_dtype(jax.devices("cpu")[0])
    'float32'
    """
    return "float32" if device.platform == "cpu" else "bfloat16"


def execution_on(device: Device) -> dict[str, Any]:
    """Return the fields of `goracs_jax.models.execution.Execution` that suit a device.

    >>> execution_on(jax.devices("cpu")[0])
    {}
    """
    if device.platform == "cpu":
        return {}
    attention = "splash" if device.platform == "tpu" else "scores"
    return {"vocab_block": ACCELERATOR_BLOCK, "shapes": SHAPES, "attention": attention}


def batch_tokens(model: Decoder, pass_name: str, tokens: Tokens, **more: int) -> int:
    """Return how many padded tokens of a batch each device takes.

    They fit whatever the length of the rows. At a given number of tokens, longer rows
    take more memory for attention, shorter and more rows more for the gradients of
    each, so the shortest and the longest decide.

    Args:
        model: The decoder; its `execution.tokens` decides if it is given.
        pass_name: One of `goracs_jax.llm.memory.PASSES`.
        tokens: The examples, the longest of which must fit.
        more: Other fields of `goracs_jax.llm.memory.Rows`.

    >>> from goracs_jax.llm.tokens import ragged
    >>> from goracs_jax.models import DecoderConfig
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> batch_tokens(model, "embedding", ragged([[1, 2, 3]]))
    1024
    """
    execution = model.execution
    if execution.tokens is not None:
        return execution.tokens
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return CPU_TOKENS[pass_name]
    scored = int(tokens.scored.max())
    ends = map(bucket_length, (int(tokens.lengths.min()), int(tokens.lengths.max())))
    fitting = min(
        fitting_tokens(
            model.config,
            model.lora,
            pass_name,
            Rows(1, length, min(scored, length), **more),
            placement_on(device, execution, str(model.embed.dtype)),
            memory_bytes=memory_of(device),
        )
        for length in set(ends)
    )
    return min(fitting, MOST_TOKENS)


def placement_on(device: Device, execution: Execution, dtype: str) -> Placement:
    """Return how passes lie on devices of a kind.

    Args:
        device: One of them.
        execution: How the passes run.
        dtype: The type of the frozen weights and the activations.

    >>> placement_on(jax.devices("cpu")[0], Execution(), "float32").lanes
    1
    """
    grid = (1, 1) if execution.mesh is None else execution.mesh.axis_sizes
    is_tpu = device.platform == "tpu"
    return Placement(
        *grid,
        dtype=dtype,
        remat=execution.remat,
        vocab_block=execution.vocab_block,
        attention=execution.attention,
        lanes=LANES if is_tpu else 1,
        matrix_unit=kind_of(device.device_kind).matrix_unit if is_tpu else 0,
    )


def memory_of(device: Device) -> int:
    """Return the bytes of memory of a device: what it says, or what is published.

    Raises:
        InputError: It does not say, and the kind of device is not known.
    """
    found = device.memory_stats() or {}
    return int(found.get("bytes_limit") or kind_of(device.device_kind).memory)
