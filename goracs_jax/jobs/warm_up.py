"""Short trainings that a selection needs: of a part of the pool, or of the target.

The gradients of a fresh adapter say little: its B is zero, so A has no gradient, and
that of B is the one of random features. A short training cures this. The adapter is a
stage of the run, which is kept, reused and resumed like any other; it is trained when
it is first loaded.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.data.stored import Some
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.gradients.adam import Moments, moments_of
from goracs_jax.jobs.watch import say_size, watched
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.tokenization import Scored
from goracs_jax.mesh import leads
from goracs_jax.models import Decoder, load_adapter, save_adapter
from goracs_jax.runs.opened import Llm, Pool
from goracs_jax.runs.reading import tokens_of
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage, run_stage
from goracs_jax.training import FinetuneConfig
from goracs_jax.training import finetune as train_adapter

#: Examples of a step, and the largest learning rate: small batches make enough steps of
#: a few hundred rows, and 1e-3 is a usual rate for LoRA over so few.
BATCH, RATE = 16, 1e-3
#: Passes over the part of the pool, and the least steps. LESS makes 4 passes over 5 %;
#: in 30 steps even a part of one batch leaves B = 0 behind.
POOL_EPOCHS, POOL_STEPS = 3, 30
#: Passes over the target examples, and the least and the most steps: enough to move
#: towards them, too few to know them by heart.
PATH_EPOCHS, PATH_STEPS = 2, (8, 32)


class Warmed(NamedTuple):
    """An adapter that a stage trains, and the model that loads it."""

    stage: Stage
    llm: Llm  # training runs, if it has not, when this is loaded
    moments: Callable[[], Moments]  # Adam's at its end; likewise


def adapter_from_pool(
    pool: Pool,
    llm: Llm,
    scored: Scored,
    share: float,
    *,
    seed: int,
    base: str,
    folder: Path,
) -> Warmed:
    """Make the stage that trains an adapter on a part of the training pool.

    Args:
        pool: All training examples.
        llm: The model with the adapter to start from, as a rule a fresh one.
        scored: Which tokens are in the loss.
        share: The part of the pool, above 0 and at most 1.
        seed: Seed of the part, the order and dropout.
        base: The model's name in adapter_config.json.
        folder: The folder of the run, in which the stage is kept.

    Raises:
        InputError: The share is out of range.
    """
    part = part_of(pool, share, seed)
    passes = POOL_EPOCHS * -(-len(part.examples) // BATCH)
    steps = max(POOL_STEPS, passes)
    given = (seed, base, folder)
    return _trained("adapter from the pool", part, llm, scored, steps, *given)


def target_path(
    target: Pool, llm: Llm, scored: Scored, *, seed: int, base: str, folder: Path
) -> Warmed:
    """Make the stage of a short training on the target examples themselves.

    Its end is that of the path along which candidates are scored by
    `goracs_jax.jobs.sources.loss_drop_stage` (arXiv 2605.09404). Nothing else should be
    trained from it, as it has seen the target.

    Args:
        target: The target examples, as a rule the validation set.
        llm: The model with the adapter at which the path starts.
        scored: Which tokens are in the loss.
        seed: Seed of the order and dropout.
        base: The model's name in adapter_config.json.
        folder: The folder of the run, in which the stage is kept.
    """
    least, most = PATH_STEPS
    steps = PATH_EPOCHS * -(-len(target.examples) // BATCH)
    steps = min(max(steps, least), most)
    return _trained(
        "path to the target", target, llm, scored, steps, seed, base, folder
    )


def part_of(pool: Pool, share: float, seed: int) -> Pool:
    """Draw a part of a pool, at least one example, in the order of the pool.

    Args:
        pool: The pool.
        share: The part, above 0 and at most 1.
        seed: Seed of the draw.

    Raises:
        InputError: The share is out of range.
    """
    if not 0 < share <= 1:
        raise InputError(
            f"the share of the pool that trains an adapter must be above 0 and at most "
            f"1, got {share}."
        )
    count = len(pool.examples)
    size = max(1, round(share * count))
    rows = np.sort(np.random.default_rng(seed).choice(count, size, replace=False))
    drawn = digest({"pool": pool.sha256, "rows": rows.tolist()})
    return Pool(Some(pool.examples, rows), drawn, pool.path)


def _trained(
    name: str,
    pool: Pool,
    llm: Llm,
    scored: Scored,
    steps: int,
    seed: int,
    base: str,
    folder: Path,
) -> Warmed:
    loop = FinetuneConfig(
        steps=steps,
        learning_rate=RATE,
        batch_size=BATCH,
        warmup_steps=steps // 10,
        tokens_per_batch=None,
    )
    load = tokens_of(pool, llm, scored)

    def compute(_: Mapper) -> Arrays:
        decoder, tokens = load()
        say(f"{name}: training on {len(pool.examples)} examples, {steps} steps")
        say_size(decoder)
        home = stage.home(folder)
        with watched(loop, tokens) as watch:
            # No step looks at a validation set: the loss at the end is that of the
            # rows themselves.
            pools = (tokens, tokens)
            done = train_adapter(
                decoder, *pools, loop, seed=seed, folder=home, watch=watch
            )
        if leads():
            save_adapter(done.model, home, base)
        return moments_of(done.opt_state)._asdict()

    @cache
    def moments() -> Moments:
        found = Moments(**run_stage(folder, stage).arrays)
        if leads():
            checkpoints = stage.home(folder) / "checkpoints"
            shutil.rmtree(checkpoints, ignore_errors=True)
        return found

    @cache
    def decoder() -> Decoder:
        moments()
        return load_adapter(llm.decoder(), stage.home(folder))

    depends_on = {
        "data": pool.sha256,
        "labels": scored,
        "config": asdict(loop),
        "seed": seed,
        "start": llm.seed,
        **llm.identity,
    }
    stage = Stage(name, depends_on, compute, load, revision_of("finetune"))
    identity = {**llm.identity, "adapter": digest(stage.identity)}
    trained = llm._replace(decoder=decoder, identity=identity, seed=None)
    return Warmed(stage, trained, moments)
