"""Batches of few static shapes, and functions that are mapped over them."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int32, Int64, PyTree

from goracs_jax.llm.tokens import NOT_SCORED, PADDING, Tokens
from goracs_jax.shapes import sizes_alike

#: Padded tokens per batch: enough rows for a matrix product, few enough for a cache.
TOKENS_PER_BATCH = 1024

SHORTER = (
    "shorten the longest texts, spread the model (--model-devices), or where gradients "
    "are taken give --remat layers; a larger device helps, too."
)

# From the arrays of a batch, to arrays with one row per example.
BatchFn = Callable[..., PyTree[Float[Array, "batch *features"]]]  # noqa: F821
Mapper = Callable[[BatchFn, Sequence["AnyBatch"]], PyTree[np.ndarray]]


class Words(NamedTuple):
    """How messages speak of a batch that does not fit the memory."""

    size: str
    limit: str  # the setting that bounds it
    cure: str  # where not even one row fits


@runtime_checkable
class AnyBatch(Protocol):
    """What a mapper needs of a batch: of texts, or of anything else."""

    @property
    def rows(self) -> Int64[np.ndarray, " batch"]:
        """The examples by number; where it is -1, a row is filler."""
        ...

    def arrays(self) -> tuple[PyTree, ...]:
        """Return the arguments of a function of batches, arrays [batch, ...]."""
        ...

    @property
    def shape(self) -> Hashable:
        """Tell apart the batches that need programs of their own."""
        ...

    @property
    def num_examples(self) -> int:
        """The number of rows that are not filler."""
        ...

    @property
    def work(self) -> int:
        """How long it takes, in units of the progress bar."""
        ...

    @property
    def row_size(self) -> int:
        """The numbers of a row, padding included."""
        ...

    @property
    def words(self) -> Words:
        """How messages speak of it."""
        ...

    def pieces(self, size: int) -> "Sequence[AnyBatch]":
        """Cut it into batches of so many rows, of which the last is filled up."""
        ...


class Batch(NamedTuple):
    """Examples padded to a common length; where `rows` is -1, a row is filler."""

    rows: Int64[np.ndarray, " batch"]
    ids: Int32[np.ndarray, "batch time"]
    labels: Int32[np.ndarray, "batch time"]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids and the labels."""
        return self.ids, self.labels

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows and their padded length."""
        return self.ids.shape

    @property
    def num_examples(self) -> int:
        """The number of rows that are not filler."""
        return int((self.rows >= 0).sum())

    @property
    def work(self) -> int:
        """The tokens, without padding."""
        return int((self.ids >= 0).sum())

    @property
    def row_size(self) -> int:
        """The padded tokens of a row."""
        return self.ids.shape[1]

    @property
    def words(self) -> Words:
        """How messages speak of it."""
        return _words(self.ids.shape)

    def pieces(self, size: int) -> "list[Batch]":
        """Cut it into batches of so many rows, of which the last is filled up.

        >>> ids = np.zeros((6, 16), np.int32)
        >>> [b.rows.tolist() for b in Batch(np.arange(6), ids, ids).pieces(4)]
        [[0, 1, 2, 3], [4, 5, -1, -1]]
        """
        missing = -len(self.rows) % size
        filled = lambda x, value: np.pad(
            x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=value
        )
        rows, ids = filled(self.rows, -1), filled(self.ids, PADDING)
        labels = filled(self.labels, NOT_SCORED)
        starts = range(0, len(rows), size)
        return [Batch(*(x[i : i + size] for x in (rows, ids, labels))) for i in starts]


class Planned(NamedTuple):
    """The examples of a batch, which are padded when it is their turn.

    The batches of a pool, padded, would be larger than its tokens.
    """

    rows: Int64[np.ndarray, " batch"]
    time: int  # the common length
    tokens: Tokens

    def padded(self) -> Batch:
        """Pad the examples to their common length."""
        shape = len(self.rows), self.time
        ids = np.full(shape, PADDING, np.int32)
        labels = np.full(shape, NOT_SCORED, np.int32)
        for slot, row in enumerate(self.rows[self.rows >= 0]):
            start, end = self.tokens.offsets[row : row + 2]
            ids[slot, : end - start] = self.tokens.ids[start:end]
            labels[slot, : end - start] = self.tokens.labels[start:end]
        return Batch(self.rows, ids, labels)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids and the labels."""
        return self.padded().arrays()

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows and their padded length."""
        return len(self.rows), self.time

    @property
    def num_examples(self) -> int:
        """The number of rows that are not filler."""
        return int((self.rows >= 0).sum())

    @property
    def work(self) -> int:
        """The tokens, without padding."""
        rows, offsets = self.rows[self.rows >= 0], self.tokens.offsets
        return int((offsets[rows + 1] - offsets[rows]).sum())

    @property
    def row_size(self) -> int:
        """The padded tokens of a row."""
        return self.time

    @property
    def words(self) -> Words:
        """How messages speak of it."""
        return _words(self.shape)

    def pieces(self, size: int) -> list[Batch]:
        """Cut it into batches of so many rows; see `Batch.pieces`."""
        return self.padded().pieces(size)


def _words(shape: tuple[int, ...]) -> Words:
    rows, time = shape
    return Words(f"{rows} x {time} tokens", "--tokens-per-batch", SHORTER)


def bucket_length(length: int) -> int:
    """Round a length up to one of eight steps between powers of two, from 16 on.

    About 6 % of all tokens are then padding. Half as many steps would double this, and
    save less than it costs: a scanned model compiles in a second or two per shape.

    >>> [bucket_length(n) for n in (1, 16, 17, 65, 81, 129, 200)]
    [16, 16, 20, 72, 88, 144, 208]
    """
    return max(16, sizes_alike(length, least_step=4)[-1])


def static_lengths(
    lengths: Int64[np.ndarray, " examples"], most: int = 8
) -> tuple[int, ...]:
    """Choose a few padded lengths so that the fewest tokens are padding.

    They serve programs that are slow to compile. Every length is one of
    `bucket_length`, and each example is padded to the next one.

    Args:
        lengths: Tokens of each example.
        most: The most padded lengths.

    >>> static_lengths(np.array([9, 10, 61, 62, 64, 150]), most=2)
    (64, 160)
    """
    buckets = [bucket_length(int(n)) for n in lengths]
    sizes, counts = np.unique(buckets, return_counts=True)
    below = np.cumsum([0, *counts])  # examples shorter than each size
    # best[j]: the least padded tokens of the examples up to size j, and the lengths
    # that give them.
    best: list[tuple[int, tuple[int, ...]]]
    best = [(int(size * below[j + 1]), (int(size),)) for j, size in enumerate(sizes)]
    for _ in range(most - 1):
        for j in reversed(range(len(sizes))):
            added = lambda i, j=j: int(sizes[j] * (below[j + 1] - below[i + 1]))
            longer = [
                (best[i][0] + added(i), (*best[i][1], int(sizes[j]))) for i in range(j)
            ]
            best[j] = min([best[j], *longer])
    return best[-1][1]


def next_length(lengths: Sequence[int], length: int) -> int:
    """Return the first of some ascending lengths that is long enough.

    >>> next_length((64, 160), 65)
    160
    """
    return next(padded for padded in lengths if padded >= length)


def make_batches(
    tokens: Tokens,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    padded: Callable[[int], int] = bucket_length,
    evenly: int | None = None,
    devices: int = 1,
) -> list[Planned]:
    """Sort examples by length and pack them into batches of few static shapes.

    A batch is as long as the bucket of its longest example and has
    `tokens_per_batch // length` rows, at least one. The number of rows of the last
    batch is halved as often as its examples allow.

    Args:
        tokens: The examples.
        tokens_per_batch: The most padded tokens of a batch on each device, unless one
            example has more.
        padded: From the length of a batch's longest example to its padded length.
        evenly: If given, this number of examples of one length fills batches of equal
            size; else every batch has as many rows as it can.
        devices: The number of devices that share a batch; each gets as many rows.

    Returns:
        The batches, the longest first, so that a lack of memory shows at once.

    >>> from goracs_jax.llm.tokens import ragged
    >>> tokens = ragged([[1] * 20, [1] * 18, [1] * 17, [1] * 3])
    >>> [b.rows.tolist() for b in make_batches(tokens, tokens_per_batch=60)]
    [[0, 1, 2], [3]]
    """
    lengths = tokens.lengths
    order, batches = np.argsort(-lengths, kind="stable"), []
    while len(order):
        time = padded(int(lengths[order[0]]))
        size = batch_rows(time, tokens_per_batch, evenly, devices)
        while not evenly and len(order) <= size // 2 and size // 2 % devices == 0:
            size //= 2
        rows = np.full(size, -1, np.int64)
        rows[: len(order[:size])] = order[:size]
        batches.append(Planned(rows, time, tokens))
        order = order[size:]
    return batches


def batch_rows(
    time: int, tokens_per_batch: int, evenly: int | None = None, devices: int = 1
) -> int:
    """Return the number of rows of a batch of a padded length; see `make_batches`.

    >>> batch_rows(144, 2048), batch_rows(144, 2048, evenly=16), batch_rows(144, 100)
    (14, 8, 1)
    >>> batch_rows(144, 2048, devices=4), batch_rows(144, 100, evenly=5, devices=4)
    (56, 4)
    """
    rows = devices * max(1, tokens_per_batch // time)
    if evenly is None:
        return rows
    batches = -(-evenly // rows)
    return -(-evenly // (batches * devices)) * devices
