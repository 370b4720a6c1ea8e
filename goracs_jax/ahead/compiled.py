"""What a compiled program says of itself: bytes, FLOPs, what devices exchange."""

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.stages import Compiled, Lowered, Traced

from goracs_jax.ahead.traced import count_flops, count_kernel_flops

EXCHANGES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
    "ragged-all-to-all",
)
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}

_ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
# `%name = TYPE OPERATION(...)`, where the type may be a tuple; an exchange that runs
# beside computations is a pair, of which the first part counts.
_EXCHANGE = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({'|'.join(EXCHANGES)})(-start)?\((.*)$", re.M
)
_CHANNEL = re.compile(r"channel_id=(\d+)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) [^\n]*\{\n(.*?)^\}", re.M | re.S)
_WHILE = re.compile(r" while\(.*?condition=%?([\w.-]+), body=%?([\w.-]+)(.*)$", re.M)
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"n":"(\d+)"\}')


class Array(NamedTuple):
    """An array of a device's program."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(np.prod(self.shape, dtype=np.int64, initial=1))

    @property
    def bytes(self) -> int:
        """The bytes of the entries, without padding."""
        return self.size * BYTES.get(self.dtype, 4)


class Exchange(NamedTuple):
    """An exchange between devices: the array that a device gets, and how often."""

    kind: str
    largest: Array
    bytes: int  # of all arrays that one device gets, each time
    times: int


class Report(NamedTuple):
    """What a compiler says of a program, for one device.

    FLOPs are those of matrix products. A compiler counts the body of a loop once; here
    it is multiplied by the number of its rounds (`count_flops`), and what it does not
    see in kernels is added. They are None where the compiler does not count, as that of
    GPUs.
    """

    seconds: float  # of compiling
    arguments: int  # bytes
    temporaries: int
    outputs: int  # bytes, without those that overwrite arguments
    flops: float | None
    exchanges: list[Exchange]
    text: str

    @property
    def peak(self) -> int:
        """Bytes of memory that the program needs."""
        return self.arguments + self.temporaries + self.outputs


def compile_program(program: Traced, lowered: Lowered, *, rounds: int = 1) -> Report:
    """Compile a program and read what the compiler says.

    Args:
        program: The program, traced for shapes on a mesh.
        lowered: The same, as it goes to the compiler.
        rounds: Rounds of a loop that ends by a condition, for counting FLOPs.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
    >>> program = jax.jit(lambda x: x @ x.T).trace(x)
    >>> compile_program(program, program.lower()).arguments
    512
    """
    started = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    memory, text = compiled.memory_analysis(), compiled.as_text() or ""
    if memory is None:
        raise ValueError("the compiler does not tell how much memory a program needs.")
    return Report(
        seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=_flops(compiled, program, rounds),
        exchanges=list(exchanges(text)),
        text=text,
    )


def _flops(compiled: Compiled, program: Traced, rounds: int) -> float | None:
    counted = (compiled.cost_analysis() or {}).get("flops")
    if not counted:
        return None
    whole = count_flops(program.jaxpr, unknown=rounds)
    products = counted * whole / max(count_flops(program.jaxpr, once=True), 1.0)
    return products + count_kernel_flops(program.jaxpr, unknown=rounds)


def arrays(text: str) -> set[Array]:
    """Return the arrays of a compiled program, by type and shape.

    >>> sorted(arrays("%x = bf16[2,3]{1,0} add(f32[] %y, s32[7] %z)"))[0]
    Array(dtype='bf16', shape=(2, 3))
    """
    return set(_arrays(text))


def _arrays(text: str) -> Iterator[Array]:
    for dtype, shape in _ARRAY.findall(text):
        yield Array(dtype, tuple(int(n) for n in shape.split(",") if n))


def exchanges(text: str) -> Iterator[Exchange]:
    """Yield the exchanges of a compiled program, those in loops with their rounds.

    An exchange that runs beside computations is written in several parts of the text,
    which have the number of its channel in common.
    """
    rounds, seen = _rounds(text), set()
    for name, body in _COMPUTATION.findall(text):
        for result, kind, start, rest in _EXCHANGE.findall(body):
            channel = _CHANNEL.search(rest)
            if channel and channel[1] in seen:
                continue
            seen |= {channel[1]} if channel else set()
            found = list(_arrays(result))
            # The first part of a pair lists what it sends, then what it gets.
            if start and len(found) > 1 and kind != "all-reduce":
                found = found[len(found) // 2 :]
            largest = max(found, key=lambda array: array.bytes)
            total = sum(array.bytes for array in found)
            yield Exchange(kind, largest, total, rounds.get(name, 1))


def _rounds(text: str) -> dict[str, int]:
    """Return how often each computation runs, where the text tells it.

    GPUs' compilers state the rounds of a loop; TPUs' compare a counter with a constant.
    """
    bodies = dict(_COMPUTATION.findall(text))

    def times(condition: str, rest: str) -> int:
        stated = _TRIPS.findall(rest) or re.findall(
            r"s32\[\][^\n]* constant\((\d+)\)", bodies.get(condition, "")
        )
        return max(map(int, stated), default=1)

    called = {
        name: {(loop, times(test, rest)) for test, loop, rest in _WHILE.findall(body)}
        for name, body in bodies.items()
    }
    rounds: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        rounds[name] = max(rounds.get(name, 0), times)
        loops = dict(called.get(name, ()))
        for other in set(re.findall(r"%([\w.-]+)", bodies.get(name, ""))) & set(bodies):
            if rounds.get(other, 0) < times * loops.get(other, 1):
                visit(other, times * loops.get(other, 1))

    entry = re.search(r"^ENTRY %?([\w.-]+)", text, re.M)
    if entry:
        visit(entry[1], 1)
    return rounds
