"""Which examples a step sees, and its micro-batches of few static shapes."""

from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from goracs_jax.llm.tokens import (
    NOT_SCORED,
    PADDING,
    Batch,
    Tokens,
    batch_rows,
    make_batches,
    static_lengths,
    take,
)
from goracs_jax.training.config import FinetuneConfig


class Shapes(NamedTuple):
    """The shapes of all micro-batches of a run, known before it starts."""

    lengths: tuple[int, ...]  # padded, ascending
    most: int  # scored tokens of an example
    tokens_per_batch: int
    step_examples: int

    @classmethod
    def of(cls, tokens: Tokens, config: FinetuneConfig) -> "Shapes":
        """Those that pad the tokens of the examples least."""
        examples = min(config.batch_size, tokens.num_examples)
        lengths, most = static_lengths(tokens.lengths), int(tokens.scored.max())
        return cls(lengths, most, config.tokens_per_batch, examples)

    def blank(self, time: int) -> Batch:
        """A micro-batch of a padded length without an example."""
        rows = batch_rows(time, self.tokens_per_batch, self.step_examples)
        return Batch(
            np.full(rows, -1, np.int32),
            np.full((rows, time), PADDING, np.int32),
            np.full((rows, time), NOT_SCORED, np.int32),
        )

    def split(self, tokens: Tokens) -> list[Batch]:
        """Micro-batches of some of the examples, all of these shapes."""
        batches = make_batches(
            tokens,
            tokens_per_batch=self.tokens_per_batch,
            padded=lambda n: next(time for time in self.lengths if time >= n),
            evenly=self.step_examples,
        )
        return [b._replace(rows=b.rows.astype(np.int32)) for b in batches]


@lru_cache(maxsize=1)
def epoch_order(n: int, seed: int, epoch: int) -> Int[np.ndarray, " train"]:
    """The order of the examples in an epoch, a function of its arguments alone.

    >>> sorted(epoch_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def step_batches(
    tokens: Tokens, shapes: Shapes, batch_size: int, seed: int, step: int
) -> list[Batch]:
    """The micro-batches of a step; `rows` are places in the step."""
    n = tokens.num_examples
    epoch, place = divmod(step, -(-n // batch_size))
    rows = epoch_order(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]
    return shapes.split(take(tokens, rows))


def step_key(seed: int, step: int) -> jax.Array:
    """The key of the dropout of a step."""
    return jax.random.fold_in(jax.random.key(seed), step)
