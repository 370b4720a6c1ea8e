"""How the gradient benchmarks time passes over batches."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from goracs_jax.llm.batches import Batch


class Seconds(NamedTuple):
    """How long one run took, by the clock and on the processors."""

    wall: float
    cpu: float


def by_turns(
    runs: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, list[Seconds]]:
    """Time runs in turns, so that a slow minute of the machine slows them all."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            took = time.perf_counter() - wall, time.process_time() - cpu
            seconds[name].append(Seconds(*took))
            print(name, "{:.2f} s, {:.2f} s of processors".format(*took), flush=True)
    return seconds


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time runs as `by_turns`, by the clock."""
    seconds = by_turns(runs, rounds)
    return {name: [took.wall for took in times] for name, times in seconds.items()}


@jax.jit
def logits(graph, state, ids):
    """Run the whole model."""
    return nnx.merge(graph, state)(ids)


def each(run: Callable[[Batch], jax.Array], batches: Sequence[Batch]) -> int:
    """Run one batch at a time, because the logits of all would not fit in memory."""
    for batch in batches:
        jax.block_until_ready(run(batch))
    return 0
