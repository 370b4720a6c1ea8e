"""`goracs finetune`: a coreset and a model in; a PEFT folder out."""

import shutil
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.files import locked, prepare_folder, write_json
from goracs_jax.llm.tokens import LabelMode, Mapper, Tokens
from goracs_jax.models import (
    Decoder,
    LoraConfig,
    load_adapter,
    load_decoder,
    load_tokenizer,
    read_lora_config,
    save_adapter,
)
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.opened import (
    Llm,
    Pool,
    hash_model,
    keep_apart,
    read_pool,
    tokenize_pool,
)
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage, progress, run_stage
from goracs_jax.settings import Finetune, Training
from goracs_jax.training import TASKS, FinetuneConfig
from goracs_jax.training import finetune as train_adapter
from goracs_jax.training.checkpoint import LogEntry
from goracs_jax.verbs.events import require_tensorboard, write_events

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What a run leaves in its stage's folder, and then in --out.
FILES = ("adapter_config.json", "adapter_model.safetensors", "metrics.jsonl")
# Adapters, two moments and their copies, of any model that is tuned this way.
BYTES = 256 << 20


def finetune(settings: Finetune) -> None:
    """Run `goracs finetune`."""
    keep_apart(settings.out, settings.model, settings.adapter)
    if settings.tensorboard:
        require_tensorboard()
    config, labels = training_config(settings)
    lora = lora_config(settings)
    train, valid = read_pool(settings.data), read_pool(settings.valid)
    n_train = len(train.examples)
    per_epoch = config.steps_per_epoch(n_train)
    config.schedule(config.total_steps(n_train))  # refused now if it is 0
    llm = _open(settings, lora)
    stage = _stage(settings, config, lora, labels, (train, valid), llm)
    say(
        f"{n_train} training, {len(valid.examples)} validation examples: {per_epoch} "
        f"steps of {config.batch_size} in an epoch, at most {config.epochs} epochs"
    )
    if settings.dry_run:
        say(f"{stage.name}: {'done' if stage.is_done(settings.out) else 'to do'}")
        say(f"at most {BYTES / 2**20:.0f} MiB on disk; results: {settings.out}")
        return
    prepare_folder(settings.out, BYTES)
    with locked(settings.out / "stages"):
        if not stage.is_done(settings.out):
            stage.prepare()
        result = run_stage(settings.out, stage)
        _write(settings, stage, result.arrays, (train, valid))


def training_config(settings: Training) -> tuple[FinetuneConfig, LabelMode]:
    """The settings, with the defaults of the task where they say nothing."""
    task = TASKS[settings.task]
    config = FinetuneConfig(
        epochs=task.epochs if settings.epochs is None else settings.epochs,
        learning_rate=(
            task.learning_rate
            if settings.learning_rate is None
            else settings.learning_rate
        ),
        batch_size=settings.batch_size,
        warmup_steps=settings.warmup_steps,
        patience=settings.patience,
        valid_every=settings.valid_every,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        tokens_per_batch=settings.micro_batch_tokens,
    )
    return config, settings.labels or task.scored


def lora_config(settings: Training) -> LoraConfig:
    """The adapter that training starts with: that of a folder, or a fresh one."""
    if settings.adapter:
        return replace(read_lora_config(settings.adapter), dropout=settings.dropout)
    return LoraConfig(
        r=settings.r,
        alpha=settings.alpha,
        targets=settings.targets,
        dropout=settings.dropout,
    )


def _open(settings: Finetune, lora: LoraConfig) -> Llm:
    """The model with the adapter that training starts from."""

    @cache
    def load() -> tuple[Decoder, "PreTrainedTokenizerFast"]:
        key = jax.random.key(settings.seed)
        dtype = jnp.dtype(settings.dtype)
        decoder = load_decoder(settings.model, lora=lora, key=key, dtype=dtype)
        if settings.adapter:
            decoder = load_adapter(decoder, settings.adapter, untrained="warn")
        return decoder, load_tokenizer(settings.model)

    identity = {"model": hash_model(settings.model), "dtype": settings.dtype}
    if settings.adapter:
        identity["adapter"] = hash_model(settings.adapter)
    return Llm(load, identity, settings.seed)


def _stage(
    settings: Finetune,
    config: FinetuneConfig,
    lora: LoraConfig,
    labels: LabelMode,
    pools: tuple[Pool, Pool],
    llm: Llm,
) -> Stage:
    @cache
    def prepare() -> tuple[Decoder, Tokens, Tokens]:
        decoder, _ = llm.load()
        train, valid = (tokenize_pool(p.prompts, p.places, llm, labels) for p in pools)
        return decoder, train, valid

    def compute(_: Mapper) -> Arrays:
        decoder, train, valid = prepare()
        _say_size(decoder)
        home = stage.home(settings.out)
        tokens = config.epochs * int(train.lengths.sum())
        steps = config.total_steps(train.num_examples)
        with progress() as bar:
            task = bar.add_task("tokens", total=tokens)

            def watch(record: LogEntry) -> None:
                # By the step, which a resumed run knows: steps are about equal.
                so_far = tokens * record["step"] // steps
                what = _describe(record, config)
                bar.update(task, completed=so_far, description=what)

            done = train_adapter(
                decoder,
                train,
                valid,
                config,
                seed=settings.seed,
                folder=home,
                watch=watch,
            )
        save_adapter(done.model, home, str(settings.model))
        return _outcome(done.log)

    train, valid = pools
    inputs = {
        "train": train.sha256,
        "valid": valid.sha256,
        "labels": labels,
        "config": asdict(config),
        "lora": asdict(lora),
        "seed": settings.seed,
        **llm.identity,
    }
    stage = Stage("finetune", inputs, compute, prepare)
    return stage


def _say_size(decoder: Decoder) -> None:
    count = lambda state: sum(leaf.size for leaf in jax.tree.leaves(state))
    trained, whole = count(nnx.state(decoder, nnx.LoRAParam)), count(nnx.state(decoder))
    share = 100 * trained / whole
    say(f"{trained:,} of {whole:,} parameters are trained ({share:.3g} %)")


def _describe(record: LogEntry, config: FinetuneConfig) -> str:
    kind = "valid_loss" if "valid_loss" in record else "loss"
    name = kind.replace("_", " ")
    return f"epoch {record['epoch']}/{config.epochs}, {name} {record[kind]:.4f}"


def _outcome(records: list[LogEntry]) -> Arrays:
    """What the manifest tells of a run."""
    found = [r for r in records if "valid_loss" in r]
    steps = [r for r in records if "valid_loss" not in r]
    return {
        "valid_epochs": np.array([r["epoch"] for r in found]),
        "valid_losses": np.array([r["valid_loss"] for r in found]),
        "steps": np.array(len(steps)),
        "tokens": np.array(sum(r["tokens"] for r in steps)),
        "train_seconds": np.array(sum(r["seconds"] for r in steps)),
        "valid_seconds": np.array(sum(r["seconds"] for r in found)),
    }


def _write(
    settings: Finetune, stage: Stage, outcome: Arrays, pools: tuple[Pool, Pool]
) -> None:
    """Put the results of a finished stage into --out; the manifest comes last."""
    out, home, (train, valid) = settings.out, stage.home(settings.out), pools
    shutil.rmtree(home / "checkpoints", ignore_errors=True)
    (out / "manifest.json").unlink(missing_ok=True)
    for name in FILES:
        if not (home / name).exists():
            raise InputError(f"{home / name} was removed: remove {home} and run again.")
        shutil.copyfile(home / name, out / name)
    if settings.tensorboard:
        write_events(out / "tensorboard", out / "metrics.jsonl")
    losses = outcome["valid_losses"]
    best = int(np.argmin(losses))
    plain = {name: array.tolist() for name, array in outcome.items()}
    rate = plain["tokens"] / plain["train_seconds"]
    manifest = made_by(settings) | {
        "inputs": stage.inputs,
        "sizes": {"train": len(train.examples), "valid": len(valid.examples)},
        "best_epoch": plain["valid_epochs"][best],
        "best_valid_loss": plain["valid_losses"][best],
        "tokens_per_second": rate,
        **plain,
    }
    write_json(out / "manifest.json", manifest)
    say(
        f"best epoch {manifest['best_epoch']} of {plain['valid_epochs'][-1]}: "
        f"validation loss {losses[best]:.4f}; {rate:.0f} tokens/s"
    )
    say(f"{out}: {', '.join([*FILES, 'manifest.json'])}")
