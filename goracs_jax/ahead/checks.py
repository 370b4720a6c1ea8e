"""What must hold for every compiled program, checked on its text.

Each check returns what is wrong, one line for each finding; no line means that it
holds.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from goracs_jax.ahead.compiled import Report, arrays
from goracs_jax.llm.memory import FILLED

FLOATS = ("bf16", "f16", "f32", "f64")
#: Parts of the names of custom calls that leave the device for Python or the host.
HOST = ("callback", "python", "host_transfer=true")


class Batch(NamedTuple):
    """The batch of a program: over all devices, and how many share it."""

    examples: int
    length: int
    data: int  # devices along `data`
    width: int  # of the hidden states


def no_whole_batch(text: str, batch: Batch) -> Iterator[str]:
    """Find activations in which a device holds the examples of all devices.

    Such an array has an axis of all examples beside one of their tokens, or both as one
    axis. Ids are integers, and may be everywhere. So may arrays that are no larger than
    a device's own share of the states: the embedding looks up a part of the features of
    all tokens, before devices exchange them for all features of their own.

    >>> list(no_whole_batch("%x = f32[12,32,7] add()", Batch(12, 32, 4, width=8)))
    ['f32[12,32,7] has the 12 examples of all 4 devices']
    """
    if batch.data == 1:
        return
    tokens = batch.examples * batch.length
    for array in sorted(arrays(text)):
        dtype, shape = array
        apart = batch.examples in shape and batch.length in shape
        whole = apart or tokens in shape
        share = tokens * batch.width // batch.data
        if dtype in FLOATS and whole and array.size > share:
            yield (
                f"{dtype}[{','.join(map(str, shape))}] has the {batch.examples} "
                f"examples of all {batch.data} devices"
            )


def no_float64(text: str) -> Iterator[str]:
    """Find numbers of 64 bits, which accelerators lack or compute slowly.

    >>> list(no_float64("%x = f64[3]{0} parameter(0)"))
    ['f64[3]']
    """
    for dtype, shape in sorted(arrays(text)):
        if dtype == "f64":
            yield f"f64[{','.join(map(str, shape))}]"


def no_host_callback(text: str) -> Iterator[str]:
    """Find operations that wait for the host in the middle of a program.

    >>> list(no_host_callback('custom-call(), custom_call_target="xla_ffi_python_cpu"'))
    ['xla_ffi_python_cpu']
    """
    for target in sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))):
        if any(part in target.lower() for part in HOST):
            yield target
    for name in ("infeed", "outfeed"):
        if re.search(rf" {name}\(", text):
            yield name
    if "is_host_transfer=true" in text:
        yield "a transfer to the host"


def no_windowed_product(text: str) -> Iterator[str]:
    """Find products that XLA computes part by part, as parts of a weight arrive.

    Each part reads and writes all sums so far, which have a row for every token, while
    the weight that is waited for is small.

    >>> list(no_windowed_product("%windowed_dot_general_body (p: f32[2]) -> f32[2] {"))
    ['a product over the parts of a weight, as they arrive']
    """
    if "windowed_dot_general" in text:
        yield "a product over the parts of a weight, as they arrive"


def no_large_exchange(report: Report, most: int) -> Iterator[str]:
    """Find exchanges after which a device has more than it may get.

    Args:
        report: What the compiler says.
        most: The largest array that may be exchanged, in bytes. It is one layer's or
            one table's weights for a language model, and what is kept of each row of C
            for a selection: rows of embeddings and blocks of C stay where they are.
    """
    for exchange in report.exchanges:
        if exchange.largest.bytes > most:
            dtype, shape = exchange.largest
            yield (
                f"{exchange.kind} of {dtype}[{','.join(map(str, shape))}], "
                f"{exchange.largest.bytes} bytes; at most {most} may be exchanged"
            )


def fits(report: Report, memory: int) -> Iterator[str]:
    """Find a program that fills more than 90 % of a device's memory.

    Args:
        report: What the compiler says.
        memory: Bytes of the device.
    """
    if report.peak > FILLED * memory:
        yield (
            f"{report.peak / 2**30:.2f} GiB a device are more than {FILLED:.0%} of "
            f"{memory / 2**30:.2f} GiB"
        )


def findings(
    report: Report, *, memory: int, exchanged: int, batch: Batch | None = None
) -> list[str]:
    """Return all that is wrong with a program.

    Args:
        report: What the compiler says.
        memory: Bytes of the device.
        exchanged: The largest array that may be exchanged, in bytes.
        batch: The batch, if it is a program of a language model.
    """
    text = report.text
    return [
        *(no_whole_batch(text, batch) if batch else ()),
        *no_float64(text),
        *no_host_callback(text),
        *no_windowed_product(text),
        *no_large_exchange(report, exchanged),
        *fits(report, memory),
    ]
