"""Fine-tuning: from a coreset and a model to an adapter and its training metrics."""

import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.jobs.finetuned import Finetuned
from goracs_jax.jobs.train_config import TrainConfig
from goracs_jax.jobs.watch import say_size, watched
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.tokens import Tokens
from goracs_jax.mesh import leads
from goracs_jax.models import (
    Decoder,
    save_adapter,
)
from goracs_jax.models.hub import published_name
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, Pool, open_llm
from goracs_jax.runs.reading import tokenize_pool
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.stages import Arrays, Stage, run_stage
from goracs_jax.settings import Training
from goracs_jax.training import finetune as train_adapter
from goracs_jax.training.checkpoint import LogEntry

#: The folder, inside that of the stage, of what the layers below all adapters make.
LOWER = "lower"
#: An upper estimate of adapters, their two moments and copies on disk, in bytes.
BYTES = 256 << 20


class TrainInputs(NamedTuple):
    """The examples of a training, and the model with the adapter to start from.

    `lower` is what the layers below all adapters make of the texts, if other runs share
    it.
    """

    train: Pool
    valid: Pool
    llm: Llm
    base: str  # the model's name in adapter_config.json
    lower: LowerTable | None = None


def open_inputs(
    settings: Training, train: Pool, valid: Pool, config: TrainConfig
) -> TrainInputs:
    """Open the model with the adapter that training starts from.

    Args:
        settings: The flags.
        train: The training examples.
        valid: The validation examples.
        config: The configuration that they gave.

    Raises:
        InputError: There is no such model.
    """
    llm = open_llm(
        settings.model,
        settings.adapter,
        config.seed,
        settings,
        remat=settings.remat,
        lora=config.lora,
        untrained="warn",
        template=settings.template,
    )
    return TrainInputs(train, valid, llm, published_name(settings.model))


def stage_of(inputs: TrainInputs, config: TrainConfig, folder: Path) -> Stage:
    """Make the stage of a training, which is stored under `folder`."""
    pools = (inputs.train, inputs.valid)

    @cache
    def prepare() -> tuple[Decoder, Tokens, Tokens]:
        train, valid = (tokenize_pool(p, inputs.llm, config.scored) for p in pools)
        return inputs.llm.decoder(), train, valid

    def compute(_: Mapper) -> Arrays:
        decoder, train, valid = prepare()
        say_size(decoder)
        home, lower = stage.home(folder), inputs.lower
        if lower is None or not lower.has(train, valid):
            reads = config.loop.reads(train.num_examples, valid.num_examples)
            lower = keep_states(home / LOWER, inputs.llm, (train, valid), reads)
        with watched(config.loop, train) as watch:
            done = train_adapter(
                decoder,
                train,
                valid,
                config.loop,
                seed=config.seed,
                folder=home,
                lower=lower,
                watch=watch,
            )
        if leads():
            save_adapter(done.model, home, inputs.base)
        below = 0.0 if lower is None else lower.seconds_of(train, valid)
        return _outcome(done.log) | {
            "lower_once": np.array(lower is not None),
            "lower_seconds": np.array(below),
        }

    train, valid = pools
    depends_on = {
        "train": train.sha256,
        "valid": valid.sha256,
        "labels": config.scored,
        "config": asdict(config.loop),
        "lora": config.lora.identity(),
        "seed": config.seed,
        **inputs.llm.identity,
    }
    stage = Stage("finetune", depends_on, compute, prepare, revision_of("finetune"))
    return stage


def run(inputs: TrainInputs, config: TrainConfig, folder: Path) -> Finetuned:
    """Train an adapter, from the checkpoint of a stopped run if there is one.

    Args:
        inputs: The examples and the model.
        config: The loop, the adapter, the scored tokens and the seed.
        folder: Where the stage is kept.
    """
    stage = stage_of(inputs, config, folder)
    if not stage.is_done(folder):
        stage.prepare()
    outcome = run_stage(folder, stage).arrays
    if leads():
        for name in ("checkpoints", LOWER):
            shutil.rmtree(stage.home(folder) / name, ignore_errors=True)
    plain = {name: array.tolist() for name, array in outcome.items()}
    sizes = {name: len(getattr(inputs, name).examples) for name in ("train", "valid")}
    home = stage.home(folder)
    assert config.loop.keep is not None, "resolved"
    return Finetuned(
        **plain,
        sizes=sizes,
        identity=stage.inputs,
        folder=home,
        keep=config.loop.keep,
    )


def _outcome(log: list[LogEntry]) -> Arrays:
    """Gather what the manifest records of a training."""
    found = [entry for entry in log if "valid_loss" in entry]
    steps = [entry for entry in log if "valid_loss" not in entry]
    return {
        "valid_epochs": np.array([entry["epoch"] for entry in found]),
        "valid_losses": np.array([entry["valid_loss"] for entry in found]),
        "steps": np.array(len(steps)),
        "tokens": np.array(sum(entry["tokens"] for entry in steps)),
        "train_seconds": np.array(sum(entry["seconds"] for entry in steps)),
        "valid_seconds": np.array(sum(entry["seconds"] for entry in found)),
    }
