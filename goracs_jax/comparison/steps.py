"""Trainings of equally many tokens: how many steps each needs."""

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.llm.flops import Lengths


def steps_for(tokens: int, lengths: Lengths, batch_size: int) -> int:
    """Return the number of steps over some examples that is closest to N tokens.

    It counts on examples of the mean length m: N / m of them are some whole epochs of
    ceil(n / batch) steps, and the rest in batches. So trainings on examples of other
    lengths take other numbers of steps, and within a batch the same tokens.

    Args:
        tokens: N, of prompts and answers, without padding.
        lengths: The tokens of each of the n examples.
        batch_size: Examples of one step.

    >>> steps_for(100, np.array([5, 5, 5]), 2)  # 20 examples: 6 epochs of 2 steps, 1
    13
    """
    epochs, rest = divmod(tokens / lengths.mean(), len(lengths))
    return int(epochs) * -(-len(lengths) // batch_size) + round(rest / batch_size)


def check_tokens(
    tokens: int, lengths: Lengths, budget: int, batch_size: int, warmup_steps: int
) -> None:
    """Refuse tokens that some choice of n examples would spend on the warm-up.

    Args:
        tokens: As for `steps_for`.
        lengths: The tokens of each example that may be chosen.
        budget: n.
        batch_size: As for `steps_for`.
        warmup_steps: Steps of the warm-up.

    Raises:
        InputError: The n longest examples would have no step after the warm-up.
    """
    steps = steps_for(tokens, np.sort(lengths)[-budget:], batch_size)
    if steps <= warmup_steps:
        raise InputError(
            f"--tokens {tokens} can be as few as {steps} steps with {budget} examples, "
            f"and --warmup-steps takes {warmup_steps}: give more tokens, or fewer "
            "steps of the warm-up."
        )
