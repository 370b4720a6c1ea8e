"""Batches that do not fit a device: they are halved, and the run goes on."""

import logging
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from goracs_jax.errors import NumericalError
from goracs_jax.llm.batches import Batch, BatchFn
from goracs_jax.llm.tokens import NOT_SCORED, PADDING

logger = logging.getLogger(__name__)


def memory_ran_out(error: Exception) -> bool:
    """Tell whether XLA could not get the memory of a program, when compiled or run.

    In several processes the answer is no: one of them alone must not take other
    batches than the rest, which wait for it.

    >>> memory_ran_out(ValueError("RESOURCE_EXHAUSTED"))
    False
    """
    ours = isinstance(error, jax.errors.JaxRuntimeError)
    return ours and "RESOURCE_EXHAUSTED" in str(error) and jax.process_count() == 1


def warn(shape: tuple[int, ...], flag: str) -> None:
    """Say that batches are halved.

    Args:
        shape: Rows and tokens of the batch that did not fit.
        flag: The flag that would have made it smaller.
    """
    rows, time = shape
    logger.warning(
        "a batch of %d x %d tokens does not fit the memory of the device: it is halved "
        "until it fits, and so are the others; a smaller %s starts there.",
        *(rows, time, flag),
    )


def too_large(shape: tuple[int, ...]) -> NumericalError:
    """Make the error of a batch that cannot be halved.

    Args:
        shape: Rows and tokens of the batch.
    """
    rows, time = shape
    return NumericalError(
        f"{rows} x {time} tokens do not fit the memory of the device, one example on "
        "each: shorten the longest texts, spread the model (--model-devices), or where "
        "gradients are taken give --remat layers; a larger device helps, too."
    )


def in_halves(
    fn: BatchFn, batches: Sequence[Batch], devices: int = 1
) -> Iterator[PyTree[np.ndarray]]:
    """Yield what a function returns for each batch, in pieces that fit the memory.

    Args:
        fn: From ids and labels, both [batch, time], to arrays [batch, ...].
        batches: The batches, the longest first; the first one did not fit.
        devices: The number of devices that share a batch, which divides its rows.

    Raises:
        NumericalError: One row for each device does not fit.

    >>> from goracs_jax.llm.batches import make_batches
    >>> from goracs_jax.llm.tokens import ragged
    >>> batches = make_batches(ragged([[1], [2], [3]]))
    >>> next(in_halves(lambda ids, labels: ids[:, 0], batches))
    array([ 1,  2,  3, -1], dtype=int32)
    """
    warn(batches[0].ids.shape, "--tokens-per-batch")
    most = batches[0].ids.size // 2  # padded tokens of a piece
    for batch in batches:
        found = None
        while found is None:
            pieces = cut(batch, most, devices)
            try:
                found = [jax.device_get(fn(p.ids, p.labels)) for p in pieces]
            except jax.errors.JaxRuntimeError as error:
                if not memory_ran_out(error):
                    raise
            if found is None:
                shape = pieces[0].ids.shape
                if shape[0] <= devices:
                    raise too_large(shape)
                most = pieces[0].ids.size // 2
        yield _joined(found, len(batch.ids))


def _joined(pieces: Sequence[PyTree[np.ndarray]], rows: int) -> PyTree[np.ndarray]:
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:rows], *pieces)


def cut(batch: Batch, most: int, devices: int = 1) -> list[Batch]:
    """Cut a batch into pieces of one shape, the last of which is filled up.

    Args:
        batch: The batch.
        most: The most padded tokens of a piece, unless a row on each device has more.
        devices: The number of devices that share a piece, which divides its rows.

    >>> ids = np.zeros((6, 16), np.int32)
    >>> pieces = cut(Batch(np.arange(6), ids, ids), 4 * 16)
    >>> [piece.rows.tolist() for piece in pieces]
    [[0, 1, 2, 3], [4, 5, -1, -1]]
    """
    time = batch.ids.shape[1]
    size = min(len(batch.ids), devices * max(1, most // (time * devices)))
    missing = -len(batch.ids) % size
    padded = lambda x, fill: np.pad(
        x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=fill
    )
    whole = (padded(batch.rows, -1), padded(batch.ids, PADDING))
    whole = (*whole, padded(batch.labels, NOT_SCORED))
    starts = range(0, len(whole[0]), size)
    return [Batch(*(x[i : i + size] for x in whole)) for i in starts]
