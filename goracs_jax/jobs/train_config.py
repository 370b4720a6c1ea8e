"""What a training depends on, apart from the examples and the model."""

from dataclasses import dataclass, fields, replace

import jax

from goracs_jax.errors import InputError
from goracs_jax.llm.profile import CPU_TOKENS
from goracs_jax.llm.tokenization import Scored
from goracs_jax.models import LoraConfig, decoder_config, read_lora_config
from goracs_jax.models.lora_config import PLAIN
from goracs_jax.models.targets import Rules, last_layers
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.reading import scored_in
from goracs_jax.settings import Training
from goracs_jax.training import TASKS, FinetuneConfig


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
        return replace(self, scored=scored_in(pool.form, labels, self.scored))

    def check_size(self, n_train: int) -> None:
        """Refuse a training in which no step would change anything.

        Raises:
            InputError: All steps would have learning rate 0.
        """
        self.loop.schedule(self.loop.total_steps(n_train))


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
