"""Fine-tuning: from a coreset and a model to an adapter and its training metrics."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from goracs_jax.choices import Keep
from goracs_jax.errors import InputError
from goracs_jax.files import together, write_json
from goracs_jax.jobs.watch import say_size, watched
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.profile import CPU_TOKENS
from goracs_jax.llm.tokens import Scored, Tokens
from goracs_jax.mesh import leads
from goracs_jax.models import (
    Decoder,
    LoraConfig,
    decoder_config,
    read_lora_config,
    save_adapter,
)
from goracs_jax.models.hub import published_name
from goracs_jax.models.lora_config import PLAIN
from goracs_jax.models.targets import Rules, last_layers
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, Pool, open_llm
from goracs_jax.runs.reading import scored_in, tokenize_pool
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage, run_stage
from goracs_jax.settings import Training
from goracs_jax.settings.outputs import ADAPTER, MANIFEST
from goracs_jax.training import TASKS, FinetuneConfig
from goracs_jax.training import finetune as train_adapter
from goracs_jax.training.checkpoint import LogEntry

#: The folder, inside that of the stage, of what the layers below all adapters make.
LOWER = "lower"
#: An upper estimate of adapters, their two moments and copies on disk, in bytes.
BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a training depends on, apart from the examples and the model."""

    loop: FinetuneConfig
    lora: LoraConfig
    scored: Scored  # which tokens are in the loss
    seed: int

    @classmethod
    def of(cls, settings: Training, seed: int) -> "TrainConfig":
        """Resolve flags, with the task's defaults for those that are not given.

        Raises:
            InputError: A value is out of range, or the folder of --adapter has none.
        """
        task = TASKS[settings.task]
        names = {field.name for field in fields(FinetuneConfig)}
        names.remove("tokens_per_batch")  # of a micro-batch, see below
        given = {k: v for k, v in vars(settings).items() if k in names}
        epochs = task.epochs if settings.steps is None else None
        defaults = {"epochs": epochs, "learning_rate": task.learning_rate}
        given |= {k: v for k, v in defaults.items() if given[k] is None}
        if settings.patience is None:
            del given["patience"]
        # A CPU's number is part of what 0.6.0 stored; elsewhere the model decides.
        on_cpu = jax.default_backend() == "cpu"
        default = CPU_TOKENS["training"] if on_cpu else None
        for name in ("micro_batch_tokens", "tokens_per_batch"):
            if (value := getattr(settings, name)) is not None and value < 1:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} must be at least 1, got {value}.")
        wanted = (settings.micro_batch_tokens, settings.tokens_per_batch, default)
        given["tokens_per_batch"] = next((n for n in wanted if n is not None), None)
        loop = FinetuneConfig(**given).resolved()
        if settings.patience is not None and loop.keep != "best":
            raise InputError(
                f"--patience stops training with --keep best, not {loop.keep}: "
                "leave it out, or give --keep best."
            )
        return cls(
            loop=loop,
            lora=_lora(settings),
            scored=settings.labels or task.scored,
            seed=seed,
        )

    def reading(self, pool: Pool, labels: Scored | None) -> "TrainConfig":
        """Score the answers of chats, unless --labels says otherwise.

        Args:
            pool: The training examples.
            labels: What --labels says.
        """
        return replace(self, scored=scored_in(pool, labels, self.scored))

    def check_size(self, n_train: int) -> None:
        """Refuse a training in which no step would change anything.

        Raises:
            InputError: All steps would have learning rate 0.
        """
        self.loop.schedule(self.loop.total_steps(n_train))


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


class Finetuned(NamedTuple):
    """How a training went, and which adapter was kept."""

    valid_epochs: list[int]  # of each validation
    valid_losses: list[float]
    steps: int
    tokens: int
    train_seconds: float
    valid_seconds: float
    sizes: Mapping[str, int]
    identity: Mapping[str, Any]
    folder: Path  # where the files of the adapter are
    keep: Keep = "best"
    # Stages of earlier versions lack both: all layers ran in every step.
    lower_once: bool = False  # whether the layers below all adapters ran once
    lower_seconds: float = 0.0  # that they took for these texts, if they did

    @property
    def seconds(self) -> float:
        """What steps and validations took, with the states that they read."""
        return self.lower_seconds + self.train_seconds + self.valid_seconds

    @property
    def best(self) -> int:
        """The validation with the lowest loss."""
        return int(np.argmin(self.valid_losses))

    @property
    def kept(self) -> int:
        """The validation of the adapter that was kept: the best, or the last."""
        return self.best if self.keep == "best" else len(self.valid_losses) - 1

    @property
    def valid_loss(self) -> float:
        """The validation loss of the adapter that was kept."""
        return self.valid_losses[self.kept]

    def save(self, out: Path, made: Mapping[str, Any]) -> None:
        """Make a PEFT folder: all of its files appear, or none does.

        Args:
            out: The folder.
            made: What made it: settings, versions and machine, as `made_by` gives it.

        Raises:
            InputError: A file of the finished stage was removed.
        """
        for name in ADAPTER:
            if not (source := self.folder / name).exists():
                raise InputError(
                    f"{source} was removed: remove {self.folder} and run again."
                )
        rate = self.tokens / self.train_seconds
        plain = self._asdict()
        manifest = {
            **made,
            "inputs": plain.pop("identity"),
            "sizes": plain.pop("sizes"),
            "best_epoch": self.valid_epochs[self.best],
            "best_valid_loss": self.valid_losses[self.best],
            "kept_epoch": self.valid_epochs[self.kept],
            "kept_valid_loss": self.valid_loss,
            "tokens_per_second": rate,
            **{name: value for name, value in plain.items() if name != "folder"},
        }
        with together(out, (*ADAPTER, MANIFEST), seal=MANIFEST) as new:
            for name in ADAPTER:
                shutil.copyfile(self.folder / name, new / name)
            write_json(new / MANIFEST, manifest)
        kept = {
            "best": f"best epoch {manifest['best_epoch']} of {self.valid_epochs[-1]}",
            "last": f"last of {self.steps} steps",
            "average": f"average over the last tenth of {self.steps} steps",
        }[self.keep]
        say(f"{kept}: validation loss {self.valid_loss:.4f}; {rate:.0f} tokens/s")
        say(f"{out}: {', '.join([*ADAPTER, MANIFEST])}")

    @classmethod
    def load(cls, out: Path) -> "Finetuned":
        """Read the manifest of a PEFT folder back.

        Raises:
            OSError: There is none.
        """
        found = json.loads((out / "manifest.json").read_text())
        plain = {name: found[name] for name in cls._fields if name in found}
        return cls(**plain, identity=found["inputs"], folder=out)


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


def _lora(settings: Training) -> LoraConfig:
    """Configure the adapter that training starts with: of a folder, or a fresh one."""
    if settings.adapter:
        if settings.layers:
            raise InputError(
                "--layers says which layers get a fresh adapter, and --adapter has its "
                "own: leave one of them out."
            )
        return replace(read_lora_config(settings.adapter), dropout=settings.dropout)
    fresh = LoraConfig(**{name: getattr(settings, name) for name in PLAIN})
    if settings.layers is None:
        return fresh
    layers = last_layers(settings.layers, decoder_config(settings.model).num_layers)
    return replace(fresh, rules=Rules(targets=fresh.targets, layers=layers))


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
