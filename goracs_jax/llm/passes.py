"""Passes of a model over batches: compiled ahead, spread over a grid, never waiting."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from goracs_jax.llm.batches import (
    AnyBatch,
    BatchFn,
    Planned,
    bucket_length,
    make_batches,
    next_length,
    static_lengths,
)
from goracs_jax.llm.halves import in_halves, memory_ran_out
from goracs_jax.llm.tokens import Tokens
from goracs_jax.mesh import EVERYWHERE, spread_batch
from goracs_jax.models.execution import Execution


class Pass(NamedTuple):
    """A jitted function of a model and of batches, whose examples go over a grid.

    Attributes:
        fn: From all of `given` and the arrays of a batch, such as ids and labels, to
            arrays with one row per example.
        given: The model's parts and settings, which are the same for all batches.
        execution: How the model runs: its grid, and the batches that it takes.
    """

    fn: Any  # what jax.jit returns
    given: tuple
    execution: Execution = Execution()

    def __call__(self, *arrays: PyTree) -> PyTree[jax.Array]:
        """Start the pass over a batch; every process gets all of its results."""
        found = self.fn(*self.given, *spread_batch(arrays, self.mesh))
        if self.mesh is None or jax.process_count() == 1:
            return found
        return _collect(self.mesh)(found)

    @property
    def mesh(self) -> Mesh | None:
        """The grid of the model; None means one device."""
        return self.execution.grid

    def batches(self, tokens: Tokens, tokens_per_batch: int) -> list[Planned]:
        """Pack examples into batches; see `goracs_jax.llm.batches.make_batches`.

        Args:
            tokens: The examples.
            tokens_per_batch: Padded tokens that each device processes at one time.
        """
        devices, shapes = self.execution.data_devices, self.execution.shapes
        padded = bucket_length
        if shapes is not None:  # the last batch may have a shape of its own
            lengths = static_lengths(tokens.lengths, max(1, shapes - 1))
            padded = partial(next_length, lengths)
        return make_batches(
            tokens, tokens_per_batch=tokens_per_batch, padded=padded, devices=devices
        )

    def compile(self, batches: Sequence[AnyBatch]) -> None:
        """Compile the programs of all shapes at the same time, before the first runs.

        JAX keeps what it has compiled for the calls that follow.
        """
        shapes = {batch.shape: batch for batch in batches}
        # Lowered here, since JAX's context managers belong to a thread.
        lowered = [
            self.fn.lower(*self.given, *spread_batch(batch.arrays(), self.mesh))
            for batch in shapes.values()
        ]
        together([program.compile for program in lowered])


def together(work: Sequence[Callable[[], Any]]) -> None:
    """Do some work in threads, for instance compile: XLA uses a core for a program."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done in [pool.submit(one) for one in work]:
            done.result()


@cache
def _collect(mesh: Mesh) -> Any:
    everywhere = NamedSharding(mesh, EVERYWHERE)
    return jax.jit(lambda tree: tree, out_shardings=everywhere)


def results(
    fn: BatchFn, batches: Sequence[AnyBatch], *, under_way: int | None = None
) -> Iterator[PyTree[np.ndarray]]:
    """Yield what a function returns for each batch, in the memory of the host.

    An accelerator starts on a batch before the results of the one before are fetched,
    so that it does not wait for the host. A CPU would run both at the same time, each
    of them more slowly. A batch that does not fit the memory is halved, and so are
    those that follow, one at a time.

    Args:
        fn: From the arrays of a batch to arrays [batch, ...]; a `Pass` is compiled
            first.
        batches: The batches.
        under_way: Batches that are started before the oldest is fetched; by default 1
            on CPUs, elsewhere 2.

    Raises:
        NumericalError: One row on each device does not fit the memory.

    >>> from goracs_jax.llm.tokens import ragged
    >>> double = lambda ids, labels: 2 * ids
    >>> [found.shape for found in results(double, make_batches(ragged([[1], [2]])))]
    [(2, 16)]
    """
    done = 0
    try:
        for found in _whole(fn, batches, under_way):
            yield found
            done += 1
        return
    except jax.errors.JaxRuntimeError as error:
        if not memory_ran_out(error):
            raise
    # Not in the handler: the error would keep the arrays of its program.
    devices = fn.execution.data_devices if isinstance(fn, Pass) else 1
    yield from in_halves(fn, batches[done:], devices)


def _whole(
    fn: BatchFn, batches: Sequence[AnyBatch], under_way: int | None
) -> Iterator[PyTree[np.ndarray]]:
    if isinstance(fn, Pass):
        fn.compile(batches)
    if under_way is None:
        under_way = 1 if jax.default_backend() == "cpu" else 2
    started: deque[PyTree[jax.Array]] = deque()
    for batch in batches:
        started.append(fn(*batch.arrays()))
        if len(started) == under_way:
            yield jax.device_get(started.popleft())
    yield from map(jax.device_get, started)


def map_batches(fn: BatchFn, batches: Sequence[AnyBatch]) -> PyTree[np.ndarray]:
    """Apply a function to each batch and put the results in input order.

    Args:
        fn: From the arrays of a batch to an array [batch, ...] or a pytree of such
            arrays.
        batches: Batches that have every example once.

    Returns:
        An array [examples, ...], or a pytree of such arrays.

    >>> from goracs_jax.llm.tokens import ragged
    >>> batches = make_batches(ragged([[1], [2] * 40, [3] * 20]))
    >>> map_batches(lambda ids, labels: jax.numpy.max(ids, axis=1), batches)
    array([1, 2, 3], dtype=int32)
    """
    rows = np.concatenate([batch.rows for batch in batches])

    def ordered(*parts: np.ndarray) -> np.ndarray:
        found = np.concatenate(parts)
        out = np.empty((int(np.sum(rows >= 0)), *found.shape[1:]), found.dtype)
        out[rows[rows >= 0]] = found[rows >= 0]
        return out

    return jax.tree.map(ordered, *results(fn, batches))
