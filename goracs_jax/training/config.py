"""Settings of fine-tuning; the defaults are those of GORACS (Mei et al., KDD 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import optax

from goracs_jax.choices import Keep, Scored, Task
from goracs_jax.errors import InputError


class TaskDefaults(NamedTuple):
    """The defaults that differ between the two tasks of the paper."""

    epochs: int
    learning_rate: float
    scored: Scored  # the tokens that the loss scores


TASKS: Mapping[Task, TaskDefaults] = {
    "seqrec": TaskDefaults(50, 1e-4, "all"),
    "ctr": TaskDefaults(200, 1e-5, "answer"),
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of AdamW with warm-up and linear decay, as in Hugging Face's Trainer.

    Where the paper does not give a value, the Trainer's default is used, since the
    authors trained with it: no weight decay, betas 0.9 and 0.999, epsilon 1e-8,
    gradients clipped to norm 1, and a linear schedule whose first step has learning
    rate 0.

    Training takes a number of epochs, or of steps. What is kept of it is one of:

    - "best", the default with epochs: the adapters with the lowest validation loss;
      training stops early where it no longer falls.
    - "last", the default with steps: the adapters after the last step.
    - "average": the mean of the adapters after each step of the last tenth.

    Args:
        epochs: Passes over the training examples, the most of them with "best".
        steps: Steps, in place of epochs; the examples are gone through as often as it
            takes.
        keep: What is kept; None is the default for epochs or steps.
        learning_rate: Largest learning rate, reached after the warm-up.
        batch_size: Examples per step.
        warmup_steps: Steps in which the learning rate rises from 0 to its largest
            value.
        patience: With "best", training stops after this many validations without a
            lower loss.
        valid_every: Epochs between validations; there is always one after the last
            step. None is 1 with "best"; otherwise the last is the only one.
        weight_decay: AdamW's decoupled weight decay.
        max_grad_norm: Gradients with a larger norm are scaled down to this norm.
        tokens_per_batch: Padded tokens of a micro-batch on each device; None chooses
            them for the device. It changes memory and speed, but not the gradient of a
            step.

    Raises:
        InputError: A value is out of range.

    >>> FinetuneConfig(epochs=2, learning_rate=1e-4).batch_size
    128
    """

    learning_rate: float
    epochs: int | None = None
    steps: int | None = None
    keep: Keep | None = None
    batch_size: int = 128
    warmup_steps: int = 20
    patience: int = 5
    valid_every: int | None = None
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    tokens_per_batch: int | None = 2048

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                f"epochs or steps must be given, and not both, got epochs "
                f"{self.epochs} and steps {self.steps}."
            )
        for name in ("epochs", "steps", "batch_size", "patience", "valid_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}.")
        if self.steps is not None and self.steps <= self.warmup_steps:
            raise InputError(
                "steps must be more than warmup_steps, after which the learning rate "
                f"falls to 0, got {self.steps} and {self.warmup_steps}: give more "
                "steps, or fewer of the warm-up."
            )
        if self.keep not in (None, *get_args(Keep)):
            raise InputError(
                f"keep must be one of {', '.join(get_args(Keep))}, got {self.keep}."
            )
        for name in ("learning_rate", "max_grad_norm", "tokens_per_batch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise InputError(
                    f"{name} must not be negative, got {getattr(self, name)}."
                )

    def resolved(self) -> "FinetuneConfig":
        """Fill in the defaults of `keep` and `valid_every`.

        >>> config = FinetuneConfig(epochs=2, learning_rate=1e-4).resolved()
        >>> config.keep, config.valid_every
        ('best', 1)
        >>> config = FinetuneConfig(steps=200, learning_rate=1e-3).resolved()
        >>> config.keep, config.valid_every
        ('last', None)
        """
        keep = self.keep or ("best" if self.steps is None else "last")
        every = self.valid_every or (1 if keep == "best" else None)
        return replace(self, keep=keep, valid_every=every)

    def steps_per_epoch(self, n_train: int) -> int:
        """Return the number of steps in an epoch; the last may have fewer examples."""
        return -(-n_train // self.batch_size)

    def total_steps(self, n_train: int) -> int:
        """Return the number of steps, unless training stops early."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None, "checked above"
        return self.epochs * self.steps_per_epoch(n_train)

    def reads(self, n_train: int, n_valid: int) -> int:
        """Return how often texts are read, unless training stops early.

        Args:
            n_train: Number of training examples.
            n_valid: Number of validation examples.

        >>> FinetuneConfig(epochs=3, learning_rate=1.0).reads(n_train=10, n_valid=4)
        42
        """
        config, steps = self.resolved(), self.total_steps(n_train)
        per_epoch = self.steps_per_epoch(n_train)
        every = config.valid_every
        validations = 1 if every is None else -(-steps // (every * per_epoch))
        return -(-steps * n_train // per_epoch) + validations * n_valid

    def averaged(self, total_steps: int) -> int:
        """Return after how many of the last steps the adapters are averaged.

        With "average" it is a tenth of them, rounded up; else the last stands alone.

        >>> config = FinetuneConfig(steps=200, learning_rate=1e-3, keep="average")
        >>> config.averaged(200)
        20
        """
        return -(-total_steps // 10) if self.keep == "average" else 1

    def schedule(self, total_steps: int) -> optax.Schedule:
        """Return the learning rate as a function of the step, counted from 0.

        It rises linearly from 0 during the warm-up, then falls linearly to 0.

        Args:
            total_steps: Number of all steps.

        Raises:
            InputError: The rate is 0 at every step, so that nothing would train.

        >>> config = FinetuneConfig(epochs=9, learning_rate=1.0, warmup_steps=2)
        >>> rate = config.schedule(6)
        >>> " ".join(f"{rate(step):.2f}" for step in range(7))
        '0.00 0.50 1.00 0.75 0.50 0.25 0.00'
        """
        if self.warmup_steps and total_steps < 2:
            raise InputError(
                "the only step has learning rate 0, the first of the warm-up, so "
                "nothing would train: give more epochs or --warmup-steps 0."
            )
        down = max(1, total_steps - self.warmup_steps)
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps),
                optax.linear_schedule(self.learning_rate, 0.0, down),
            ],
            [self.warmup_steps],
        )

    def optimizer(self, total_steps: int) -> optax.GradientTransformation:
        """Return AdamW, preceded by the clipping of gradients."""
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.adamw(self.schedule(total_steps), weight_decay=self.weight_decay),
        )
