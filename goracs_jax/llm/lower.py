"""What the layers below all adapters make of texts, computed once and kept.

With adapters in the last K of L layers alone, the states that enter the first of these
K are the same in all steps, epochs and runs: training changes nothing below, and
dropout acts on adapters alone. What reads them has the work of K layers left.
"""

from collections.abc import Mapping
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int32

from goracs_jax.errors import InputError
from goracs_jax.llm.batches import Batch, BatchFn, Planned
from goracs_jax.llm.passes import Pass, results
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokens import Tokens, take
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lower import LowerStates


class LowerTable(NamedTuple):
    """The states of texts before the first layer that has an adapter.

    Texts are found by their content, so that trainings on any of them share one table.

    Attributes:
        table: The states of all tokens, one text after the other.
        starts: The row of the first token of each text, by the digest of its ids.
        seconds: The time that it took to compute them.
    """

    table: Float[np.ndarray, "tokens dim"]
    starts: Mapping[bytes, int]
    seconds: float = 0.0

    def has(self, *pools: Tokens) -> bool:
        """Tell whether all of some texts are there."""
        return all(text in self.starts for tokens in pools for text in _digests(tokens))

    def seconds_of(self, *pools: Tokens) -> float:
        """Return the share of `seconds` that some texts took, by their tokens."""
        return self.seconds * len(distinct(*pools).ids) / len(self.table)

    def states(self, ids: Int32[np.ndarray, "batch time"]) -> LowerStates:
        """Return what `Decoder.lower` does for texts that are there, padded with 0."""
        found = np.zeros((*ids.shape, self.table.shape[1]), self.table.dtype)
        for states, row in zip(found, ids, strict=True):
            text = row[row >= 0]
            if len(text):  # a row of filler has none
                start = self.starts[_digest(text)]
                states[: len(text)] = self.table[start : start + len(text)]
        return LowerStates(found)


def lower_states(model: Decoder, *pools: Tokens) -> LowerTable:
    """Run the layers below all adapters over texts, and keep their states in memory.

    Args:
        model: A decoder whose adapters lie in its last layers alone.
        pools: The texts; one that is there twice is run once.

    Returns:
        The states, for `goracs_jax.finetune` on any of these texts.

    Raises:
        InputError: The adapter trains the first layer or the embedding.

    >>> from goracs_jax.llm.tokens import ragged
    >>> from goracs_jax.models import DecoderConfig, LoraConfig
    >>> from goracs_jax.models.targets import Rules
    >>> lora = LoraConfig(rules=Rules(targets=("q_proj", "v_proj"), layers=(1,)))
    >>> model = Decoder(DecoderConfig.tiny(), lora, key=jax.random.key(0))
    >>> lower_states(model, ragged([[1, 2, 3], [4, 5]])).table.shape
    (5, 32)
    """
    if not model.frozen_layers:
        raise InputError(
            "the adapter trains the first layer or the embedding, so no layer is below "
            "it: give LoraConfig rules with the last layers alone."
        )
    texts, run = distinct(*pools), lower_pass(model)
    table = np.empty((len(texts.ids), model.config.hidden_size), model.embed.dtype)
    batches = run.batches(texts, batch_tokens(model, "embedding", texts))
    for batch, states in zip(batches, results(run, batches), strict=True):
        put(table, texts, batch, states)
    return LowerTable(table, starts_of(texts))


def starts_of(texts: Tokens) -> dict[bytes, int]:
    """Return where each text starts in a table of all tokens, by its digest."""
    return dict(zip(_digests(texts), texts.offsets[:-1].tolist(), strict=True))


def distinct(*pools: Tokens) -> Tokens:
    """Join texts, each of them once, whatever their labels.

    >>> from goracs_jax.llm.tokens import ragged
    >>> distinct(ragged([[1, 2], [3]]), ragged([[3], [4]])).ids.tolist()
    [1, 2, 3, 4]
    """
    first = {}
    for number, tokens in enumerate(pools):
        for row, text in enumerate(_digests(tokens)):
            first.setdefault(text, (number, row))
    parts = []
    for number, tokens in enumerate(pools):
        if rows := [row for pool, row in first.values() if pool == number]:
            parts.append(take(tokens, rows))
    lengths = np.concatenate([part.lengths for part in parts])
    ids, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Tokens(ids, labels, np.cumsum([0, *lengths]))


def lower_pass(model: Decoder) -> Pass:
    """Make the pass through the layers below all adapters.

    Args:
        model: A decoder that has such layers.

    Returns:
        From a batch to an array [batch, time, dim].
    """
    return Pass(_lower, nnx.split(model), model.execution)


@jax.jit
def _lower(graph, state, ids, labels):
    del labels
    return nnx.merge(graph, state).lower(ids).states


def put(
    table: Float[np.ndarray, "tokens dim"],
    texts: Tokens,
    batch: Batch | Planned,
    found: Float[np.ndarray, "batch time dim"],
) -> None:
    """Write what the pass found for a batch into the table of all tokens."""
    for row, states in zip(batch.rows, found, strict=True):
        if row >= 0:
            start, end = texts.offsets[row : row + 2]
            table[start:end] = states[: end - start]


def reading(run: Pass, lower: LowerTable | None, tokens: Tokens) -> BatchFn:
    """Give a pass the states of each batch as one more argument, if they were kept.

    Args:
        run: The pass over ids, labels and, if there are any, lower states.
        lower: What was kept.
        tokens: The texts of all batches.
    """
    if lower is None or not lower.has(tokens):
        return run
    return lambda ids, labels: run(ids, labels, lower.states(ids))


def _digests(tokens: Tokens) -> list[bytes]:
    spans = pairwise(tokens.offsets.tolist())
    return [_digest(tokens.ids[start:end]) for start, end in spans]


def _digest(ids: Int32[np.ndarray, " time"]) -> bytes:
    return blake2b(ids.astype("<i4").tobytes(), digest_size=16).digest()
