"""The trainings of a check: each a stage in one folder, which is read back if done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from goracs_jax.check.design import Run
from goracs_jax.check.inputs import CheckInputs
from goracs_jax.comparison.drawn import pool_of
from goracs_jax.jobs import finetune
from goracs_jax.runs.opened import Pool
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

    def train(run: Run) -> float:
        nonlocal done
        config = replace(inputs.training, seed=run.seed)
        mine = pool_of([pool.examples[row] for row in run.rows], folder, "subset")
        given = finetune.open_inputs(settings, mine, inputs.judge.pool, config)
        loss = finetune.run(given, config, folder).valid_loss
        done += 1
        say(f"training {done} of {total}: {run}, loss {loss:.4f}")
        return loss

    return train
