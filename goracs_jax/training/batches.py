"""The examples of each step, in micro-batches of a few static shapes."""

from functools import partial
from typing import NamedTuple

import numpy as np

from goracs_jax.llm.batches import (
    Batch,
    batch_rows,
    make_batches,
    next_length,
    static_lengths,
)
from goracs_jax.llm.tokens import NOT_SCORED, PADDING, Tokens, take
from goracs_jax.training.config import FinetuneConfig
from goracs_jax.training.order import Order


class Shapes(NamedTuple):
    """The shapes of all micro-batches of a run, known before it starts."""

    lengths: tuple[int, ...]  # padded lengths, ascending
    most: int  # largest number of scored tokens in an example
    tokens_per_batch: int  # of a micro-batch on each device, padding included
    step_examples: int  # largest number of examples in a step
    devices: int  # over which the examples of a micro-batch go

    @classmethod
    def of(cls, tokens: Tokens, config: FinetuneConfig, devices: int = 1) -> "Shapes":
        """Choose the shapes that need the least padding for the given examples."""
        examples = min(config.batch_size, tokens.num_examples)
        lengths, most = static_lengths(tokens.lengths), int(tokens.scored.max())
        size = config.tokens_per_batch
        assert size is not None, "the run has chosen it"
        return cls(lengths, most, size, examples, devices)

    def blank(self, time: int) -> Batch:
        """Make a micro-batch of a padded length that contains only padding."""
        rows = batch_rows(time, self.tokens_per_batch, self.step_examples, self.devices)
        return Batch(
            np.full(rows, -1, np.int32),
            np.full((rows, time), PADDING, np.int32),
            np.full((rows, time), NOT_SCORED, np.int32),
        )

    def split(self, tokens: Tokens) -> list[Batch]:
        """Split examples into micro-batches of these shapes."""
        planned = make_batches(
            tokens,
            tokens_per_batch=self.tokens_per_batch,
            padded=partial(next_length, self.lengths),
            evenly=self.step_examples,
            devices=self.devices,
        )
        batches = [batch.padded() for batch in planned]
        return [b._replace(rows=b.rows.astype(np.int32)) for b in batches]


def step_batches(
    tokens: Tokens, order: Order, shapes: Shapes, batch_size: int, step: int
) -> list[Batch]:
    """Make the micro-batches of a step.

    Args:
        tokens: All training examples.
        order: Their order.
        shapes: Shapes of the micro-batches.
        batch_size: Examples of one step.
        step: Number of the step, from 0.

    Returns:
        The micro-batches; their `rows` are the numbers of the examples, by which
        dropout tells them apart.
    """
    epoch, place = divmod(step, -(-tokens.num_examples // batch_size))
    rows = order.epoch(epoch)[place * batch_size : (place + 1) * batch_size]
    numbers = order.numbers(rows)
    number = lambda at: np.where(at < 0, at, numbers[at])  # filler stays -1
    batches = shapes.split(take(tokens, rows))
    return [batch._replace(rows=number(batch.rows)) for batch in batches]
