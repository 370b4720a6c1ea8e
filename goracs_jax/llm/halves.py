"""Batches that do not fit a device: they are halved, and the run goes on."""

import logging
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from goracs_jax.errors import NumericalError
from goracs_jax.llm.batches import AnyBatch, BatchFn, Words

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


def warn(words: Words) -> None:
    """Say that batches are halved.

    Args:
        words: Those of the batch that did not fit.
    """
    logger.warning(
        "a batch of %s does not fit the memory of the device: it is halved until it "
        "fits, and so are the others; a smaller %s starts there.",
        *(words.size, words.limit),
    )


def too_large(words: Words) -> NumericalError:
    """Make the error of a batch that cannot be halved.

    Args:
        words: Those of the batch.
    """
    return NumericalError(
        f"{words.size} do not fit the memory of the device, one example on each: "
        f"{words.cure}"
    )


def in_halves(
    fn: BatchFn, batches: Sequence[AnyBatch], devices: int = 1
) -> Iterator[PyTree[np.ndarray]]:
    """Yield what a function returns for each batch, in pieces that fit the memory.

    Args:
        fn: From the arrays of a batch to arrays [batch, ...].
        batches: The batches, the largest rows first; the first one did not fit.
        devices: The number of devices that share a batch, which divides its rows.

    Raises:
        NumericalError: One row for each device does not fit.

    >>> from goracs_jax.llm.batches import make_batches
    >>> from goracs_jax.llm.tokens import ragged
    >>> batches = make_batches(ragged([[1], [2], [3]]))
    >>> next(in_halves(lambda ids, labels: ids[:, 0], batches))
    array([ 1,  2,  3, -1], dtype=int32)
    """
    warn(batches[0].words)
    most = batches[0].row_size * len(batches[0].rows) // 2  # numbers of a piece
    for batch in batches:
        found = None
        while found is None:
            pieces = batch.pieces(rows_of(batch, most, devices))
            try:
                found = [jax.device_get(fn(*piece.arrays())) for piece in pieces]
            except jax.errors.JaxRuntimeError as error:
                if not memory_ran_out(error):
                    raise
            if found is None:
                rows = len(pieces[0].rows)
                if rows <= devices:
                    raise too_large(pieces[0].words)
                most = batch.row_size * rows // 2
        yield _joined(found, len(batch.rows))


def rows_of(batch: AnyBatch, most: int, devices: int = 1) -> int:
    """Return the rows of the pieces that a batch is cut into.

    Args:
        batch: The batch.
        most: The most numbers of a piece, unless a row on each device has more.
        devices: The number of devices that share a piece, which divides its rows.
    """
    by_size = devices * max(1, most // (batch.row_size * devices))
    return min(len(batch.rows), by_size)


def _joined(pieces: Sequence[PyTree[np.ndarray]], rows: int) -> PyTree[np.ndarray]:
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:rows], *pieces)
