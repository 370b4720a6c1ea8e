"""Settings of fine-tuning; the defaults are those of GORACS (Mei et al., KDD 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import optax

from goracs_jax.choices import Scored, Task
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

    Args:
        epochs: Largest number of passes over the training examples.
        learning_rate: Largest learning rate, reached after the warm-up.
        batch_size: Examples per step.
        warmup_steps: Steps in which the learning rate rises from 0 to its largest
            value.
        patience: Training stops after this many validations without a lower loss.
        valid_every: Epochs between validations; there is always one after the last
            epoch.
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

    epochs: int
    learning_rate: float
    batch_size: int = 128
    warmup_steps: int = 20
    patience: int = 5
    valid_every: int = 1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    tokens_per_batch: int | None = 2048

    def __post_init__(self):
        for name in ("epochs", "batch_size", "patience", "valid_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
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

    def steps_per_epoch(self, n_train: int) -> int:
        """Return the number of steps in an epoch; the last may have fewer examples."""
        return -(-n_train // self.batch_size)

    def total_steps(self, n_train: int) -> int:
        """Return the number of steps in all epochs."""
        return self.epochs * self.steps_per_epoch(n_train)

    def schedule(self, total_steps: int) -> optax.Schedule:
        """Return the learning rate as a function of the step, counted from 0.

        It rises linearly from 0 during the warm-up, then falls linearly to 0.

        Args:
            total_steps: Number of steps in all epochs.

        Raises:
            InputError: The rate is 0 at every step, so that nothing would train.

        >>> config = FinetuneConfig(epochs=9, learning_rate=1.0, warmup_steps=2)
        >>> rate = config.schedule(6)
        >>> [float(rate(step)) for step in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
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
