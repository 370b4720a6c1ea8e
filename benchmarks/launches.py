"""What a selection of Games takes on one H100, by the compiler's text.

    .venv-ahead/bin/python benchmarks/launches.py

It needs the compiler of GPUs, which `make ahead` installs. Every program of a selection
of 1,024 of 88,000 rows for 22,000 validation rows (384 dimensions) is compiled, and its
kernels are counted, with the bytes that each reads and writes, loop by loop; of what is
only sliced or gathered from, what is taken counts. How often a program runs is what
`selection_work` plans. Seconds are those of launches, at 3 microseconds each, of bytes
at the published bandwidth and of products at the published peak of float32, one after
the other. The transports of the search are Sinkhorn's there, and one or two exact ones
on the host end it: how long one takes from good potentials is measured here, on
synthetic rows of this size. The script writes results/launches.json.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from goracs_jax.ahead.topology import ENVIRONMENT, compiler_devices, parse

os.environ |= ENVIRONMENT

import numpy as np
from common import timed, write
from selection import synthetic

from goracs_jax.ahead.compiled import BYTES
from goracs_jax.ahead.selection_programs import selection_programs
from goracs_jax.ahead.traced import count_flops
from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.jobs.plan_stages import ITERATIONS
from goracs_jax.mesh import row_mesh
from goracs_jax.selection.bound import plan_rounds
from goracs_jax.selection.method import Goracs
from goracs_jax.selection.search.schedule import plan_search, plan_starts
from goracs_jax.selection.work import selection_work
from goracs_jax.transport import exact

TRAIN, VALID, DIM, BUDGET = 88_000, 22_000, 384, 1024
LAUNCH = 3e-6  # seconds
#: Batches that greedy looks into for each of 1,000 picks from 15,000 x 5,000 real rows.
LOOKS = 1.1
AT_ONCE = 10  # iterations of Sinkhorn in one round of its loop
#: Potentials of that many times the range of C from the optimal ones stand for those of
#: Sinkhorn, whose own iterations would take minutes here.
NOISE = 5e-3

# Operations that launch nothing.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "while", "conditional", "call", "copy-done", "async-done"),
}
SLICES = ("slice", "dynamic-slice", "gather")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) [^\n]*\{\n(.*?)^\}", re.M | re.S)
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$", re.M)
_ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|condition|to_apply|branch_computations)=\{?([^}, ]+)")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"n":"(\d+)"\}')


class Part(NamedTuple):
    """A loop of a program, or the program."""

    kernels: float
    moved: float  # bytes
    loops: tuple["Part", ...] = ()  # those whose rounds are not known


def parts(text: str) -> Part:
    """Return the kernels of a program and of its loops, from its text.

    Loops whose rounds are known are added to what they are in. Of the branches of a
    condition the dearest one counts.
    """
    bodies = {name: body for _, name, body in _COMPUTATION.findall(text)}
    entry = next(name for first, name, _ in _COMPUTATION.findall(text) if first)
    return _of(entry, bodies)


def _of(name: str, bodies: Mapping[str, str]) -> Part:
    kernels = moved = 0.0
    loops: list[Part] = []
    size: dict[str, int] = {}
    for result, kind, operation, rest in _LINE.findall(bodies[name]):
        size[result] = _bytes(kind)
        called = [x.strip("%,") for x in _CALLED.findall(rest)]
        if operation == "while":
            test, body = (_of(x, bodies) for x in called[:2])
            trips = _TRIPS.search(rest)
            each = Part(
                test.kernels + body.kernels,
                test.moved + body.moved,
                test.loops + body.loops,
            )
            if trips is None:
                loops.append(each)
            else:
                kernels += int(trips[1]) * each.kernels
                moved += int(trips[1]) * each.moved
                loops += [_times(loop, int(trips[1])) for loop in each.loops]
        elif operation in ("conditional", "call"):
            names = re.findall(r"%([\w.-]+)", rest.split("),", 1)[-1])
            branches = [_of(x, bodies) for x in names if x in bodies]
            if branches:
                most = max(branches, key=lambda part: part.kernels)
                kernels, moved = kernels + most.kernels, moved + most.moved
                loops += most.loops
        elif operation not in FREE:
            kernels += 1
            given = re.findall(r"%([\w.-]+)", rest.split(")", 1)[0])
            fused = re.search(r"calls=%([\w.-]+)", rest)
            taken = _taken(bodies[fused[1]]) if fused else {}
            if operation in SLICES:
                taken = {0: size[result]}
            read = (taken.get(i, size.get(x, 0)) for i, x in enumerate(given))
            moved += size[result] + sum(read)
    return Part(kernels, moved, tuple(loops))


def _taken(body: str) -> dict[int, int]:
    """Return the bytes that a kernel takes of those operands that it only slices."""
    lines = _LINE.findall(body)
    numbers = {
        name: int(rest.split(")", 1)[0])
        for name, _, operation, rest in lines
        if operation == "parameter"
    }
    taken = dict.fromkeys(numbers, 0)
    for _, kind, operation, rest in lines:
        if operation == "parameter":
            continue
        for place, name in enumerate(re.findall(r"%([\w.-]+)", rest.split(")", 1)[0])):
            if operation in SLICES and place == 0 and name in taken:
                taken[name] += _bytes(kind)
            else:
                taken.pop(name, None)
    return {numbers[name]: size for name, size in taken.items() if size}


def _times(part: Part, times: int) -> Part:
    return Part(times * part.kernels, times * part.moved, part.loops)


def _bytes(kind: str) -> int:
    """Return the bytes of a type, which may be a tuple.

    >>> _bytes("(f32[2,3]{1,0}, s32[])")
    28
    """
    sizes = (
        BYTES.get(dtype, 4) * math.prod(int(x) for x in shape.split(",") if x)
        for dtype, shape in _ARRAY.findall(kind)
    )
    return sum(sizes)


def once(part: Part, rounds: Mapping[Any, Any]) -> tuple[float, float]:
    """Return the kernels and bytes of one run.

    Args:
        part: The program.
        rounds: The number of rounds of each open loop, and of those inside.
    """
    kernels, moved = part.kernels, part.moved
    for place, loop in enumerate(part.loops):
        times, inside = rounds[place]
        more = once(loop, inside)
        kernels, moved = kernels + times * more[0], moved + times * more[1]
    return kernels, moved


def certified() -> tuple[float, float]:
    """Return the seconds of exact transport here, cold and from good potentials."""
    data = synthetic(3 * BUDGET, VALID, DIM)
    cost = exact_cost(make_cost(data["train"], data["valid"]), np.arange(BUDGET))
    solved, _, cold = timed(lambda: exact(cost), 1)
    noise = np.random.default_rng(0).normal(size=VALID)
    g = solved.g + NOISE * np.ptp(cost) * noise
    again, _, warm = timed(lambda: exact(cost, g=g), 1)
    assert math.isclose(again.value, solved.value, rel_tol=1e-9)
    return cold, warm


def main() -> None:
    """Compile, count and add up."""
    topology = parse("h100:1")
    kind = topology.kind
    mesh = row_mesh(list(compiler_devices(topology)))
    programs = selection_programs(TRAIN, VALID, DIM, BUDGET, mesh)
    least, most = selection_work(TRAIN, VALID, BUDGET)
    plan, served = plan_search(BUDGET, VALID), math.ceil(VALID / BUDGET)
    kth = {0: (served, {})}  # the points that a row serves, one after the other
    bounding = Goracs().bound
    assert bounding is not None
    rounds = plan_rounds(TRAIN, VALID, bounding)
    asked: dict[str, tuple[tuple[float, float], dict]] = {
        "largest_distance": ((1, 1), {}),
        "greedy": ((1, 1), {0: (BUDGET - 1, {0: (LOOKS, {})})}),
        # At least once for all rows, and then for few.
        "values_below": ((1, 2 * rounds), {}),
        "core_arcs": ((rounds, rounds), {}),
        "ascend": ((rounds, rounds), {0: (least.ascent / rounds, kth)}),
        "slot_candidates": ((least.exchanges, most.exchanges), {}),
        "nearest_rows": ((0, 1), {}),
        "centred_rows": ((0, 1), {}),
        "sweeps": ((0, most.sweeps / plan.length), {0: (plan.length, {})}),
        # Once more for the last subset; units are dealt once for each annealing.
        "sinkhorn": (
            (least.transports + 1, most.transports + 1),
            {0: (ITERATIONS / AT_ONCE, {})},
        ),
    }
    rows = []
    for name, (runs, rounds_of) in asked.items():
        program = programs[name]()
        text = program.lower().compile().as_text() or ""
        kernels, moved = once(parts(text), rounds_of)
        flops = count_flops(program.jaxpr)
        seconds = (
            kernels * LAUNCH,
            moved / kind.bandwidth,
            flops / kind.flops("float32"),
        )
        rows.append(
            {
                "program": name,
                "runs": runs,
                "kernels": kernels,
                "gib": moved / 2**30,
                "launch_seconds": seconds[0],
                "moving_seconds": seconds[1],
                "product_seconds": seconds[2],
            }
        )
        print(rows[-1], flush=True)
    names = ("launch_seconds", "moving_seconds", "product_seconds")
    device = [
        sum(r["runs"][end] * sum(r[x] for x in names) for r in rows) for end in (0, 1)
    ]
    cold, each = certified()
    # The last subset, and with an annealing the first deal of its units.
    deals = plan_starts(BUDGET)[1] if most.sweeps else 0
    host = [each, (1 + deals) * each]
    sizes = {"train": TRAIN, "valid": VALID, "dim": DIM, "budget": BUDGET}
    counts = {"least": least._asdict(), "most": most._asdict()}
    figures = {**sizes, **counts, "rows": rows, "device": device, "host": host}
    figures |= {"exact_cold_seconds": cold, "exact_seconds": each}
    print({"device": device, "host": host})
    print(write("launches", figures))


if __name__ == "__main__":
    main()
