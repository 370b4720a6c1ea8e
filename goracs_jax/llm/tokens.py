"""Tokenised examples: token ids and labels in flat arrays."""

from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from goracs_jax.errors import InputError
from goracs_jax.files import unnamed
from goracs_jax.llm.texts import NOT_SCORED as NOT_SCORED

#: The id that fills a row after the end of its text; the models embed it as token 0.
PADDING = -1
EMPTY = np.empty(0, np.int32)


class Tokens(NamedTuple):
    """Tokenised examples, one after the other in flat arrays.

    Example i is `ids[offsets[i]:offsets[i + 1]]`. `labels` has at each place the same
    id, or -100 where the token is not scored. The loss shifts labels; here they are not
    shifted.
    """

    ids: Int32[np.ndarray, " total"]
    labels: Int32[np.ndarray, " total"]
    offsets: Int64[np.ndarray, " examples_and_one"]

    @property
    def num_examples(self) -> int:
        """The number of examples (`len` counts the fields of the tuple)."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """The number of tokens of each example."""
        return np.diff(self.offsets)

    @property
    def scored(self) -> Int64[np.ndarray, " examples"]:
        """The number of scored tokens of each example."""
        counts, some = np.zeros(self.num_examples, np.int64), self.lengths > 0
        starts = self.offsets[:-1][some]  # of an empty example, reduceat adds the next
        counts[some] = np.add.reduceat(self.labels >= 0, starts, dtype=np.int64)
        return counts


def ragged(
    ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None = None
) -> Tokens:
    """Join lists of ids, and of labels of the same lengths, into `Tokens`.

    Args:
        ids: One list per example.
        labels: One list per example; if None, no token is scored.

    >>> ragged([[5, 6], [7]]).offsets
    array([0, 2, 3])
    """
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = lambda rows: np.fromiter((i for row in rows for i in row), np.int32)
    if labels is None:
        return Tokens(flat(ids), np.full(offsets[-1], NOT_SCORED, np.int32), offsets)
    return Tokens(flat(ids), flat(labels), offsets)


def take(tokens: Tokens, rows: Sequence[int] | np.ndarray) -> Tokens:
    """Select examples, in the order of `rows`.

    >>> take(ragged([[1], [2, 3], [4]]), [1, 0]).ids
    array([2, 3, 1], dtype=int32)
    """
    spans = [slice(*tokens.offsets[row : row + 2]) for row in rows]
    ids = np.concatenate([tokens.ids[span] for span in spans])
    labels = np.concatenate([tokens.labels[span] for span in spans])
    return Tokens(ids, labels, np.cumsum([0, *tokens.lengths[np.asarray(rows)]]))


def joined(parts: Iterable[Tokens]) -> Tokens:
    """Join the examples of several parts, in files without names.

    Args:
        parts: The parts, which may be made one after the other.

    >>> joined([ragged([[1], [2, 3]]), ragged([[4]])]).offsets
    array([0, 1, 3, 4])
    """
    lengths = [np.zeros(1, np.int64)]
    with unnamed() as ids, unnamed() as labels:
        for part in parts:
            ids.write(part.ids.data)
            labels.write(part.labels.data)
            lengths.append(part.lengths)
        offsets = np.cumsum(np.concatenate(lengths))
        total = int(offsets[-1])
        return Tokens(_mapped(ids, total), _mapped(labels, total), offsets)


def _mapped(file: IO[bytes], size: int) -> Int32[np.ndarray, " total"]:
    file.flush()
    return np.asarray(np.memmap(file, np.int32, "r", shape=size)) if size else EMPTY


def check_ids(tokens: Tokens, vocab_size: int):
    """Check that every id is in a model's vocabulary.

    JAX would read some other row of the embedding table, without an error.

    Args:
        tokens: The examples.
        vocab_size: Rows of the model's embedding table.

    Raises:
        InputError: An id is negative or at least `vocab_size`.

    >>> check_ids(ragged([[0, 2], [1]]), vocab_size=3)
    """
    ids = tokens.ids
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        bad = np.flatnonzero((ids < 0) | (ids >= vocab_size))
        example = int(np.searchsorted(tokens.offsets, bad[0], side="right"))
        raise InputError(
            f"example {example} has token id {tokens.ids[bad[0]]}, the model has ids 0 "
            f"to {vocab_size - 1}: use the tokenizer that belongs to the model."
        )
