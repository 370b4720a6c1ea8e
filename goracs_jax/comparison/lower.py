"""What the layers below all adapters make of the texts of a comparison, made once."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs, is_calibrated_by_target
from goracs_jax.evaluate.plan import questions_of
from goracs_jax.llm.flops import Lengths
from goracs_jax.llm.lower import LowerTable
from goracs_jax.models import decoder_config
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import open_llm
from goracs_jax.runs.reading import tokenize_pool
from goracs_jax.settings import Compare
from goracs_jax.training import FinetuneConfig


def lower_states(
    settings: Compare, inputs: CompareInputs, trials: Iterable[Trial], folder: Path
) -> LowerTable | None:
    """Run the layers below all adapters over the texts of all trials, once.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        trials: The trials that are to be done.
        folder: Where the states are kept.

    Returns:
        The states; None where `goracs_jax.runs.lower.keep_states` gives none.
    """
    s, training = settings, inputs.training
    if not training.lora.resolved(decoder_config(s.model)).frozen_layers():
        return None  # without a look at the weights
    llm = open_llm(
        s.model,
        s.adapter,
        s.seed,
        s,
        lora=training.lora,
        untrained="warn",
        template=s.template,
    )
    pools = [
        tokenize_pool(pool, llm, training.scored)
        for pool in (inputs.train, inputs.valid)
    ]
    tested = 0
    if s.task == "ctr":
        asked = [inputs.test]
        if is_calibrated_by_target(s):
            asked.append(inputs.valid)
        for pool in asked:
            pools.append(questions_of(pool, llm).tokens)
            tested += len(pool.examples)
    n_valid, lengths = len(inputs.valid.examples), pools[0].lengths
    reads = 0
    for trial in trials:
        loop = expected_loop(training.loop, s.tokens, lengths, trial.budget)
        reads += loop.reads(trial.budget, n_valid) + tested
    return keep_states(folder, llm, pools, reads)


def expected_loop(
    loop: FinetuneConfig, tokens: int | None, lengths: Lengths, budget: int
) -> FinetuneConfig:
    """Give a loop the steps that it is expected to take before rows are chosen.

    Args:
        loop: The settings of the training.
        tokens: Those of --tokens, at which it ends; None where the loop has its length.
        lengths: The tokens of each example of the pool; a choice has their mean.
        budget: Examples that are chosen.

    >>> import numpy as np
    >>> loop = FinetuneConfig(steps=3, warmup_steps=2, learning_rate=1.0, batch_size=4)
    >>> expected_loop(loop, 160, np.array([4, 6]), 8).steps  # of 4 texts, 20 tokens
    8
    """
    if tokens is None:
        return loop
    step = float(lengths.mean()) * budget / loop.steps_per_epoch(budget)
    return replace(loop, steps=math.ceil(tokens / step))
