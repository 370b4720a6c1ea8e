"""What each stage of a job takes, by formulas: memory, FLOPs, bytes, hours, dollars.

The stages are those of `goracs select` and `goracs finetune`. The low end of the hours
is the roofline: all devices at their published peak, waiting for nothing but the slower
of cores and memory. The high end has the cores at 30 % of the peak, and waits for the
memory and for the exchanges between devices, one after the other.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from goracs_jax.ahead.topology import Topology
from goracs_jax.jobs.plan_config import PlanConfig
from goracs_jax.llm.batches import batch_rows
from goracs_jax.llm.memory import FILLED, Rows, fitting_tokens, pass_memory
from goracs_jax.llm.work import Work, pass_work
from goracs_jax.models import LoraConfig
from goracs_jax.selection.core import core_shape
from goracs_jax.selection.method import Goracs
from goracs_jax.selection.work import SelectionWork, selection_work
from goracs_jax.transport.choose import is_entropic

#: The share of the peak that matrix products reach at the high end.
REACHED = 0.3
#: Seconds that the exact transport takes on a host, for each entry of its matrix
#: (benchmarks/README.md).
SOLVE_SECONDS = 4e-7
#: Iterations of Sinkhorn from a cold start, of 500 x 2,500 real rows (Games), and the
#: bytes that one moves for each entry (benchmarks/launches.py). From the potentials of
#: a subset in which a tenth of the rows differ there were 410.
ITERATIONS, TOUCHED = 510, 24


class StagePlan(NamedTuple):
    """What a stage takes; bytes and FLOPs are those of all devices together."""

    gib_per_device: float
    fits: bool
    tokens_per_device: int  # of a run's batch; 0 for a selection
    largest_batch: int  # tokens of the largest batch that fits on a device
    flops: float
    bytes_moved: float
    bytes_exchanged: float
    hours: tuple[float, float]
    dollars: tuple[float, float]
    compiled: bool


class Examples(NamedTuple):
    """The examples that a pass takes, how often, and in batches of what size."""

    count: int
    times: int = 1
    evenly: int | None = None  # see `goracs_jax.llm.batches.make_batches`


def stages_of(config: PlanConfig) -> dict[str, StagePlan]:
    """Plan every stage of a job by formulas.

    Args:
        config: The job.

    >>> from pathlib import Path
    >>> from goracs_jax.ahead.topology import parse
    >>> from goracs_jax.models import DecoderConfig
    >>> config = PlanConfig(
    ...     model=DecoderConfig.tiny(), path=Path("none"), topology=parse("v5e:4x4"),
    ...     train_rows=1000, valid_rows=100, length=64, scored=64, budget=10,
    ... )
    >>> list(stages_of(config))[:2]
    ['gradient-norms', 'training embeddings']
    """
    return {
        name: pass_plan(config, passes) if passes else _selection(config)
        for name, passes in _passes(config).items()
    }


def examples_of(config: PlanConfig) -> dict[str, int]:
    """Return the rows of the batch that a run takes on one device, by pass."""
    return {
        name: pass_rows(config, name, examples)[0].examples
        for passes in _passes(config).values()
        for name, examples in passes.items()
    }


def _passes(config: PlanConfig) -> dict[str, dict[str, Examples]]:
    """List the stages in their order, with their passes; a selection has none."""
    train, valid = Examples(config.train_rows), Examples(config.valid_rows)
    step, epochs = min(config.batch_size, config.budget), config.epochs
    steps = epochs * math.ceil(config.budget / config.batch_size)
    checked = min(config.batch_size, config.valid_rows)
    trained = {
        "training": Examples(step, steps, step),
        "validation": Examples(config.valid_rows, epochs, checked),
    }
    return {
        "gradient-norms": {"last_v_lora_b": train},
        "training embeddings": {"embedding": train},
        "validation embeddings": {"embedding": valid},
        "selection goracs": {},
        "finetune": trained,
    }


def pass_rows(config: PlanConfig, name: str, examples: Examples) -> tuple[Rows, int]:
    """Return the rows of the batch that a run takes on one device, and what it could.

    Args:
        config: The job.
        name: The pass.
        examples: Its examples.

    Returns:
        The rows, and the padded tokens of the largest batch that fits on a device.
    """
    fitting = largest_batch(config, name)
    bound = min(fitting, config.most_tokens(name))
    size = batch_rows(config.length, bound, examples.evenly, config.data)
    return Rows(size // config.data, config.length, config.scored), fitting


def pass_plan(config: PlanConfig, passes: Mapping[str, Examples]) -> StagePlan:
    """Plan a stage that consists of passes over examples.

    Args:
        config: The job.
        passes: The examples of each pass, by its name.
    """
    peak, total = 0, Work(0.0, 0.0, 0.0)
    tokens, largest = [], []
    model, lora, placement = config.model, LoraConfig(), config.placement
    for name, examples in passes.items():
        rows, fitting = pass_rows(config, name, examples)
        memory = pass_memory(model, lora, name, rows, placement)
        size = rows.examples * config.data
        for batches, batch in _batches(examples, size, config.data):
            whole = rows._replace(examples=batch)
            work = pass_work(model, lora, name, whole, placement)
            total = Work(*(a + batches * b for a, b in zip(total, work, strict=True)))
        peak = max(peak, memory.peak)
        tokens.append(rows.examples * config.length)
        largest.append(fitting)
    return _stage(config, peak, (min(tokens), min(largest)), total)


def _batches(examples: Examples, size: int, data: int) -> list[tuple[int, int]]:
    """Return how many batches of how many rows a pass takes, as `make_batches` does."""
    full, rest = divmod(examples.count, size)
    found, last = [(full * examples.times, size)], size
    if rest:
        while not examples.evenly and rest <= last // 2 and last // 2 % data == 0:
            last //= 2
        found.append((examples.times, last))
    return [(batches, rows) for batches, rows in found if batches]


def largest_batch(config: PlanConfig, pass_name: str) -> int:
    """Return the padded tokens of the largest batch of a pass that fits on a device."""
    return fitting_tokens(
        config.model,
        LoraConfig(),
        pass_name,
        Rows(1, config.length, config.scored),
        config.placement,
        memory_bytes=config.topology.kind.memory,
    )


def _selection(config: PlanConfig) -> StagePlan:
    """Plan the selection: its figures are those of the most that it may do."""
    n, m, dim = config.train_rows, config.valid_rows, config.model.hidden_size
    devices, budget = config.topology.devices, config.budget
    annealing = Goracs().annealing
    least, most = selection_work(n, m, budget)
    local = math.ceil(n / devices)
    # Embeddings, the transport plan of the subset, and blocks of C.
    held = 4 * (local * dim + m * dim + n + budget * m)
    # The rows that are listed for the points are on every device.
    listed = min(n, annealing.listed * m + budget)
    blocks = 4 * min(local * m, 1 << 24) + 4 * listed * dim
    dense = listed * m <= annealing.dense_entries
    core, width = core_shape((n, m), budget, n)
    # Sinkhorn on the devices, and at the end an exact transport or two on the host.
    entropic = is_entropic(config.topology.kind.platform, budget, m)

    def work(done: SelectionWork) -> Work:
        # Every device anneals, and ascends, by itself.
        looked_at = devices * done.entries
        flops = 2.0 * n * m * (done.passes * dim + done.exchanges * budget)
        flops += 0 if dense else 2.0 * dim * looked_at
        moved = done.passes * 4.0 * (n + devices * m) * dim
        moved += 4.0 * looked_at * (1 if dense else dim)
        moved += 12.0 * devices * done.ascent * core * width  # points, costs and prices
        if entropic:
            moved += devices * done.transports * ITERATIONS * TOUCHED * budget * m
        return Work(flops, moved, 0.0)

    plan = _stage(config, held + blocks, (0, 0), work(most), "float32")
    low, _ = hours_of(config.topology, work(least), "float32")
    solved = 2 if entropic else most.transports
    high = plan.hours[1] + solved * SOLVE_SECONDS * budget * m / 3600
    hours = low, high
    return plan._replace(hours=hours, dollars=_dollars(config.topology, hours))


def _stage(
    config: PlanConfig,
    peak: int,
    tokens: tuple[int, int],
    work: Work,
    dtype: str | None = None,
) -> StagePlan:
    topology = config.topology
    hours = hours_of(topology, work, dtype or config.dtype)
    return StagePlan(
        gib_per_device=peak / 2**30,
        fits=peak <= FILLED * topology.kind.memory,
        tokens_per_device=tokens[0],
        largest_batch=tokens[1],
        flops=work.flops,
        bytes_moved=work.moved,
        bytes_exchanged=work.exchanged,
        hours=hours,
        dollars=_dollars(topology, hours),
        compiled=False,
    )


def hours_of(topology: Topology, work: Work, dtype: str) -> tuple[float, float]:
    """Return the hours of some work on all devices: by the roofline, and slow.

    Args:
        topology: The devices.
        work: FLOPs and bytes of all devices together.
        dtype: The type of the matrix products.

    >>> from goracs_jax.ahead.topology import parse
    >>> work = Work(flops=197e12 * 3600, moved=0.0, exchanged=0.0)
    >>> low, high = hours_of(parse("v5e:1x1"), work, "bfloat16")
    >>> low, round(high, 2)
    (1.0, 3.33)
    """
    kind, seconds = topology.kind, 3600.0 * topology.devices
    cores = work.flops / kind.flops(dtype)
    memory = work.moved / kind.bandwidth
    # A device gets half of what its links carry; the other half it sends.
    links = 2 * work.exchanged / kind.link
    return max(cores, memory) / seconds, (cores / REACHED + memory + links) / seconds


def _dollars(topology: Topology, hours: tuple[float, float]) -> tuple[float, float]:
    cheap, dear = topology.dollars
    return hours[0] * cheap, hours[1] * dear
