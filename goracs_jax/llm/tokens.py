"""Turn texts into token ids and labels, and these into batches of few static shapes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Int64, PyTree

from goracs_jax.choices import Scored as Scored
from goracs_jax.errors import InputError
from goracs_jax.models.tokenizer import load_tokenizer as load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: The label of a token that is not scored.
NOT_SCORED = -100
#: The id that fills a row after the end of its text; the models embed it as token 0.
PADDING = -1

#: Padded tokens per batch: enough rows for a matrix product, few enough for a cache.
TOKENS_PER_BATCH = 1024

BatchFn = Callable[
    [Int32[np.ndarray, "batch time"], Int32[np.ndarray, "batch time"]],
    PyTree[Float[Array, "batch *features"]],
]
Mapper = Callable[[BatchFn, Sequence["Batch"]], PyTree[np.ndarray]]


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
        before = np.append(0, np.cumsum(self.labels >= 0))
        return np.diff(before[self.offsets])


class Batch(NamedTuple):
    """Examples padded to a common length; where `rows` is -1, a row is filler."""

    rows: Int64[np.ndarray, " batch"]
    ids: Int32[np.ndarray, "batch time"]
    labels: Int32[np.ndarray, "batch time"]

    @property
    def num_examples(self) -> int:
        """The number of rows that are not filler."""
        return int((self.rows >= 0).sum())


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


def tokenize(
    texts: Sequence[tuple[str, str]],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    labels: Scored = "all",
    context: int,
    places: Sequence[str] | None = None,
) -> Tokens:
    """Tokenise prompt + answer + end of text in one piece, and label scored tokens.

    With labels="answer" a token is scored if it ends behind the prompt's last
    character: a token across the border belongs to the answer. The end of the text is
    part of every example, and scored.

    Args:
        texts: Pairs of prompt and answer.
        tokenizer: A fast tokenizer with an end-of-text token.
        labels: Which tokens are scored: all (as GORACS does for sequential
            recommendation), or those of the answer (for click-through prediction).
        context: The most tokens that the model can read.
        places: The names of the texts in errors; "example 1" and so on if None.

    Raises:
        InputError: There is no example, an example is longer than the context or has no
            scored token, or the tokenizer has no end-of-text token.
    """
    if not texts:
        raise InputError("there are no examples to tokenise: give at least one.")
    eos = end_of_text(tokenizer)
    encoded = tokenizer(
        [prompt + answer for prompt, answer in texts],
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    all_ids, all_labels = [], []
    for i, (prompt, _) in enumerate(texts):
        place = places[i] if places else f"example {i + 1}"
        ids, spans = list(encoded["input_ids"][i]), encoded["offset_mapping"][i]
        border = -1 if labels == "all" else len(prompt)
        scored = [
            token if end > border else NOT_SCORED
            for token, (_, end) in zip(ids, spans, strict=True)
        ]
        if ids and ids[-1] == eos:  # some tokenizers end the text themselves
            scored[-1] = eos
        else:
            ids.append(eos)
            scored.append(eos)
        if len(ids) > context:
            raise InputError(
                f"{place} has {len(ids)} tokens, more than the model's context "
                f"of {context}: shorten it or leave it out."
            )
        if all(label == NOT_SCORED for label in scored[1:]):
            raise InputError(
                f"{place} has no token to score: give it a prompt or an answer."
            )
        all_ids.append(ids)
        all_labels.append(scored)
    return ragged(all_ids, all_labels)


def end_of_text(tokenizer: "PreTrainedTokenizerFast") -> int:
    """Return the id of the end-of-text token.

    Raises:
        InputError: The tokenizer has none.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise InputError(
            "the tokenizer has no end-of-text token: set eos_token in its "
            "tokenizer_config.json."
        )
    return eos


def open_ended(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerFast"
) -> list[list[int]]:
    """Tokenise texts that are to be continued, without an end of text.

    Some tokenizers add one themselves; it is removed.
    """
    eos = end_of_text(tokenizer)
    encoded = tokenizer(list(texts), return_attention_mask=False, verbose=False)
    rows = map(list, encoded["input_ids"])
    return [row[:-1] if row[-1:] == [eos] else row for row in rows]


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
    bad = np.flatnonzero((tokens.ids < 0) | (tokens.ids >= vocab_size))
    if len(bad):
        example = int(np.searchsorted(tokens.offsets, bad[0], side="right"))
        raise InputError(
            f"example {example} has token id {tokens.ids[bad[0]]}, the model has ids 0 "
            f"to {vocab_size - 1}: use the tokenizer that belongs to the model."
        )


def bucket_length(length: int) -> int:
    """Round a length up to one of eight steps between powers of two, from 16 on.

    About 6 % of all tokens are then padding. Half as many steps would double this, and
    save less than it costs: a scanned model compiles in a second or two per shape.

    >>> [bucket_length(n) for n in (1, 16, 17, 65, 81, 129, 200)]
    [16, 16, 20, 72, 88, 144, 208]
    """
    step = max(4, 2 ** ((length - 1).bit_length() - 4))
    return max(16, -(-length // step) * step)


def take(tokens: Tokens, rows: Sequence[int] | np.ndarray) -> Tokens:
    """Select examples, in the order of `rows`.

    >>> take(ragged([[1], [2, 3], [4]]), [1, 0]).ids
    array([2, 3, 1], dtype=int32)
    """
    spans = [slice(*tokens.offsets[row : row + 2]) for row in rows]
    ids = np.concatenate([tokens.ids[span] for span in spans])
    labels = np.concatenate([tokens.labels[span] for span in spans])
    return Tokens(ids, labels, np.cumsum([0, *tokens.lengths[np.asarray(rows)]]))


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


def make_batches(
    tokens: Tokens,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    padded: Callable[[int], int] = bucket_length,
    evenly: int | None = None,
    multiple: int = 1,
) -> list[Batch]:
    """Sort examples by length and pack them into batches of few static shapes.

    A batch is as long as the bucket of its longest example and has
    `tokens_per_batch // length` rows, at least one. The number of rows of the last
    batch is halved as often as its examples allow.

    Args:
        tokens: The examples.
        tokens_per_batch: The most padded tokens per batch, unless one example has more.
        padded: From the length of a batch's longest example to its padded length.
        evenly: If given, this number of examples of one length fills batches of equal
            size; else every batch has as many rows as it can.
        multiple: The number of devices that share a batch; the number of rows is a
            multiple of it.

    Returns:
        The batches, the longest first, so that a lack of memory shows at once.

    >>> tokens = ragged([[1] * 20, [1] * 18, [1] * 17, [1] * 3])
    >>> [b.rows.tolist() for b in make_batches(tokens, tokens_per_batch=60)]
    [[0, 1, 2], [3]]
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    batches = []
    while len(order):
        time = padded(int(tokens.lengths[order[0]]))
        size = batch_rows(time, tokens_per_batch, evenly)
        size = -(-size // multiple) * multiple
        while not evenly and len(order) <= size // 2 and size // 2 % multiple == 0:
            size //= 2
        rows = np.full(size, -1, np.int64)
        rows[: len(order[:size])] = order[:size]
        ids = np.full((size, time), PADDING, np.int32)
        labels = np.full((size, time), NOT_SCORED, np.int32)
        for slot, row in enumerate(order[:size]):
            span = slice(tokens.offsets[row], tokens.offsets[row + 1])
            ids[slot, : tokens.lengths[row]] = tokens.ids[span]
            labels[slot, : tokens.lengths[row]] = tokens.labels[span]
        batches.append(Batch(rows, ids, labels))
        order = order[size:]
    return batches


def batch_rows(time: int, tokens_per_batch: int, evenly: int | None = None) -> int:
    """Return the number of rows of a batch of a padded length; see `make_batches`.

    >>> batch_rows(144, 2048), batch_rows(144, 2048, evenly=16), batch_rows(144, 100)
    (14, 8, 1)
    """
    rows = max(1, tokens_per_batch // time)
    if evenly is None:
        return rows
    batches = -(-evenly // rows)
    return -(-evenly // batches)


def map_batches(fn: BatchFn, batches: Sequence[Batch]) -> PyTree[np.ndarray]:
    """Apply a function to each batch and put the results in input order.

    Args:
        fn: From ids and labels, both [batch, time], to an array [batch, ...] or a
            pytree of such arrays.
        batches: Batches that have every example once.

    Returns:
        An array [examples, ...], or a pytree of such arrays.

    >>> batches = make_batches(ragged([[1], [2] * 40, [3] * 20]))
    >>> map_batches(lambda ids, labels: jax.numpy.max(ids, axis=1), batches)
    array([1, 2, 3], dtype=int32)
    """
    rows = np.concatenate([batch.rows for batch in batches])
    results = [jax.device_get(fn(batch.ids, batch.labels)) for batch in batches]

    def in_order(*parts: np.ndarray) -> np.ndarray:
        found = np.concatenate(parts)
        out = np.empty((int(np.sum(rows >= 0)), *found.shape[1:]), found.dtype)
        out[rows[rows >= 0]] = found[rows >= 0]
        return out

    return jax.tree.map(in_order, *results)
