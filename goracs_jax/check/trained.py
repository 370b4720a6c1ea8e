"""The trainings of a check: each a stage in one folder, which is read back if done.

They share what the layers below all adapters make of the pool and of the judge.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from goracs_jax.check.design import Run
from goracs_jax.check.inputs import CheckInputs
from goracs_jax.comparison.drawn import pool_of
from goracs_jax.jobs import finetune
from goracs_jax.llm.lower import LowerTable
from goracs_jax.models import decoder_config
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.reading import tokenize_pool
from goracs_jax.runs.say import say
from goracs_jax.settings import Check


def lower_states(
    settings: Check, inputs: CheckInputs, pool: Pool, folder: Path
) -> LowerTable | None:
    """Run the layers below all adapters over the texts of all trainings, once.

    Args:
        settings: The flags.
        inputs: The judge, and how adapters are trained.
        pool: The examples that subsets are drawn from.
        folder: Where the states are kept.

    Returns:
        The states; None where `goracs_jax.runs.lower.keep_states` gives none.
    """
    s, training, judge = settings, inputs.training, inputs.judge.pool
    if not training.lora.resolved(decoder_config(s.model)).frozen_layers():
        return None  # without a look at the weights
    llm = finetune.open_inputs(s, pool, judge, training).llm
    texts = [tokenize_pool(some, llm, training.scored) for some in (pool, judge)]
    reads = training.loop.reads(s.budget, len(judge.examples))
    return keep_states(
        folder, llm, texts, inputs.sizes.trainings(len(inputs.spaces)) * reads
    )


def trainer(
    settings: Check,
    inputs: CheckInputs,
    pool: Pool,
    folder: Path,
    *,
    total: int,
    lower: LowerTable | None,
) -> Callable[[Run], float]:
    """Return what trains on the rows of a run, and gives the loss on the judge.

    Args:
        settings: The flags.
        inputs: The judge, and how adapters are trained.
        pool: The examples that rows are numbers of.
        folder: Where trainings are kept.
        total: How many there will be.
        lower: What they share.
    """
    done = 0

    def train(run: Run) -> float:
        nonlocal done
        config = replace(inputs.training, seed=run.seed)
        mine = pool_of([pool.examples[row] for row in run.rows], folder, "subset")
        given = finetune.open_inputs(settings, mine, inputs.judge.pool, config)
        loss = finetune.run(given._replace(lower=lower), config, folder).valid_loss
        done += 1
        say(f"training {done} of {total}: {run}, loss {loss:.4f}")
        return loss

    return train
