"""How the gradient benchmarks time passes over batches."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from goracs_jax.llm.batches import Batch


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time runs in turns, so that a slow minute of the machine slows them all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
            print(name, f"{seconds[name][-1]:.2f} s", flush=True)
    return seconds


@jax.jit
def logits(graph, state, ids):
    """Run the whole model."""
    return nnx.merge(graph, state)(ids)


def each(run: Callable[[Batch], jax.Array], batches: Sequence[Batch]) -> int:
    """Run one batch at a time, because the logits of all would not fit in memory."""
    for batch in batches:
        jax.block_until_ready(run(batch))
    return 0
