"""The trainings of a check: each a stage in one folder, which is read back if done."""

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
from goracs_jax.runs.opened import Pool, tokenize_pool
from goracs_jax.runs.say import say
from goracs_jax.settings import Check


def trainer(
    settings: Check, inputs: CheckInputs, pool: Pool, folder: Path, *, total: int
) -> Callable[[Run], float]:
    """Return what trains on the rows of a run, and gives the loss on the judge.

    Args:
        settings: The flags.
        inputs: The judge, and how adapters are trained.
        pool: The examples that rows are numbers of.
        folder: Where trainings are kept.
        total: How many there will be.
    """
    done = 0
    lower = lower_states(settings, inputs, pool, folder, total)

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


def lower_states(
    settings: Check, inputs: CheckInputs, pool: Pool, folder: Path, trainings: int
) -> LowerTable | None:
    """Run the layers below all adapters once for all trainings, where there are any.

    Args:
        settings: The flags.
        inputs: The judge, and how adapters are trained.
        pool: The examples that trainings draw from.
        folder: Where trainings are kept.
        trainings: Their number.
    """
    judge, config = inputs.judge.pool, inputs.training
    if not config.lora.resolved(decoder_config(settings.model)).frozen_layers():
        return None  # without a look at the weights
    given = finetune.open_inputs(settings, pool, judge, config)
    of = lambda some: tokenize_pool(some.prompts, some.places, given.llm, config.scored)
    reads = trainings * config.loop.reads(settings.budget, len(judge.examples))
    return keep_states(folder / "lower", given.llm, (of(pool), of(judge)), reads)
