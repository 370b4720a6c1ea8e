"""Trainings on equally many tokens: how many steps each takes."""

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.llm.flops import Lengths
from goracs_jax.training.order import Order


def steps_for(tokens: int, lengths: Lengths, order: Order, batch_size: int) -> int:
    """Return the number of steps after which training has seen closest to N tokens.

    An epoch has all tokens of the examples, so only the last one is counted step by
    step. No number of steps is closer, and N is missed by half a batch at most.

    Args:
        tokens: N, of prompts and answers, without padding.
        lengths: The tokens of each example.
        order: The order in which each epoch takes the examples.
        batch_size: Examples of one step.

    >>> order = Order((b"a", b"b", b"c"), seed=0)
    >>> steps_for(47, np.array([5, 5, 5]), order, 2)  # three epochs of 2 steps
    6
    """
    epochs, rest = divmod(tokens, int(lengths.sum()))
    starts = np.arange(0, len(lengths), batch_size)
    steps = np.add.reduceat(lengths[order.epoch(epochs)], starts)
    seen = np.cumsum([0, *steps])
    return epochs * len(starts) + int(np.abs(seen - rest).argmin())


def check_tokens(
    tokens: int, lengths: Lengths, batch_size: int, warmup_steps: int
) -> None:
    """Refuse tokens that the longest examples would spend on the warm-up.

    Args:
        tokens: As for `steps_for`.
        lengths: The tokens of each example that may be chosen.
        batch_size: As for `steps_for`.
        warmup_steps: Steps of the warm-up.

    Raises:
        InputError: Some choice would have no step after the warm-up.
    """
    longest = int(np.sort(lengths)[-batch_size:].sum())
    if tokens <= (needed := longest * (warmup_steps + 1)):
        raise InputError(
            f"--tokens must be more than {needed}, got {tokens}: the longest examples "
            f"have {longest} tokens a step, and --warmup-steps takes {warmup_steps} "
            "steps."
        )
