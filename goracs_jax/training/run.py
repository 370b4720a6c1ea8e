"""A training run: its data and compiled programs, one step, and one validation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Float32

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.tokens import Batch, Tokens
from goracs_jax.models import Decoder
from goracs_jax.training.batches import Shapes, step_batches, step_key
from goracs_jax.training.checkpoint import LogEntry, State
from goracs_jax.training.config import FinetuneConfig
from goracs_jax.training.step import (
    ModelParts,
    Sums,
    Update,
    accumulate,
    loss_sum,
    num_scored,
    split,
    update,
    zero_sums,
)


class Run(NamedTuple):
    """What stays the same in a training run: model, data and compiled programs."""

    parts: ModelParts
    train: Tokens
    valid: list[Batch]
    config: FinetuneConfig
    seed: int
    shapes: Shapes
    optimizer: optax.GradientTransformation
    rates: Float32[np.ndarray, " steps"]  # the learning rate of each step
    accumulates: dict[int, Callable[..., Sums]]  # `accumulate` for each padded length
    losses: dict[tuple[int, ...], Callable[..., jax.Array]]  # `loss_sum` for each shape
    update: Callable[..., Update]

    @classmethod
    def prepare(
        cls,
        model: Decoder,
        train: Tokens,
        valid: Tokens,
        config: FinetuneConfig,
        seed: int,
    ) -> "Run":
        """Split the model and compile a program for every shape that can occur.

        The shapes of a step depend on the order of the data, so a program that is
        compiled on demand could interrupt any epoch. Compiling first also keeps compile
        time out of the seconds of steps and validations.

        Args:
            model: A decoder with adapters.
            train: Training examples.
            valid: Validation examples.
            config: The settings of the run.
            seed: Seed of the data order and of dropout.

        Returns:
            The run.

        Raises:
            InputError: The learning rate would be 0 at every step.
        """
        steps = config.total_steps(train.num_examples)
        optimizer = config.optimizer(steps)
        rates = np.asarray(config.schedule(steps)(np.arange(steps)))
        parts, shapes = split(model), Shapes.of(train, config)
        sums, key = zero_sums(parts.lora), step_key(seed, 0)
        adding = lambda batch: accumulate.lower(
            parts, sums, batch, key, most=shapes.most
        )
        blanks = {time: shapes.blank(time) for time in shapes.lengths}
        accumulates = {time: adding(blank).compile() for time, blank in blanks.items()}
        valid_shapes = Shapes.of(valid, config)
        batches = valid_shapes.split(valid)
        by_shape = {batch.ids.shape: batch for batch in batches}
        losses = {
            shape: loss_sum.lower(parts, batch, most=valid_shapes.most).compile()
            for shape, batch in by_shape.items()
        }
        state = parts.lora, optimizer.init(parts.lora)
        updates = update.lower(optimizer, *state, sums, np.float32(1)).compile()
        data, rule = (train, batches, config, seed, shapes), (optimizer, rates)
        return cls(parts, *data, *rule, accumulates, losses, updates)

    @property
    def total_steps(self) -> int:
        """The number of steps of a run that does not stop early."""
        return self.config.total_steps(self.train.num_examples)

    @property
    def fresh(self) -> State:
        """The state before the first step."""
        lora = self.parts.lora
        return State(lora, self.optimizer.init(lora), lora)

    def step(self, state: State) -> tuple[State, LogEntry]:
        """Update the adapters with the gradient of the next batch.

        Args:
            state: The state after the step before.

        Returns:
            The new state, and the step's metrics.

        Raises:
            InputError: The gradient of the first step is exactly zero.
            NumericalError: The loss or the gradient is not finite.
        """
        number, config, key = state.step, self.config, step_key(self.seed, state.step)
        batches = step_batches(
            self.train, self.shapes, config.batch_size, self.seed, number
        )
        parts, sums = self.parts._replace(lora=state.lora), zero_sums(state.lora)
        for batch in batches:
            sums = self.accumulates[batch.ids.shape[1]](parts, sums, batch, key)
        count = np.float32(num_scored(batches))
        done = self.update(state.lora, state.opt_state, sums, count)
        loss, grad_norm = done.loss.item(), done.grad_norm.item()
        _check_finite(f"step {number + 1}", loss, grad_norm)
        if number == 0 and grad_norm == 0:
            raise InputError(
                "the gradient of every adapter is exactly zero, so nothing would "
                "train: check the adapter that training starts from."
            )
        entry = {
            "step": number + 1,
            "epoch": self._epoch(number + 1),
            "loss": loss,
            "learning_rate": self.rates[number].item(),
            "grad_norm": grad_norm,
            "tokens": sum(int((batch.ids >= 0).sum()) for batch in batches),
        }
        changed = {"lora": done.lora, "opt_state": done.opt_state, "step": number + 1}
        return state._replace(**changed), entry

    def validate(self, state: State) -> tuple[State, LogEntry]:
        """Compute the validation loss, and keep the adapters if it is the lowest.

        It is the mean over all scored tokens of the validation examples.

        Args:
            state: The state after a step.

        Returns:
            The new state, and the metrics of the validation.

        Raises:
            NumericalError: The loss is not finite.
        """
        parts, epoch = self.parts._replace(lora=state.lora), self._epoch(state.step)
        sums = [self.losses[batch.ids.shape](parts, batch) for batch in self.valid]
        loss = float(np.sum(jax.device_get(sums), dtype=np.float64))
        loss /= num_scored(self.valid)
        _check_finite(f"validation after epoch {epoch}", loss)
        entry = {"step": state.step, "epoch": epoch, "valid_loss": loss}
        if loss < state.best_loss:
            found = {"best": state.lora, "best_loss": loss, "best_epoch": epoch}
            return state._replace(**found, waited=0), entry
        return state._replace(waited=state.waited + 1), entry

    def validates_after(self, step: int) -> bool:
        """Return whether a validation follows the step with this number, from 1."""
        per_epoch = self.config.steps_per_epoch(self.train.num_examples)
        every = self.config.valid_every * per_epoch
        return step % every == 0 or step == self.total_steps

    def _epoch(self, step: int) -> int:
        """Return the epoch of a step; both are counted from 1."""
        return -(-step // self.config.steps_per_epoch(self.train.num_examples))


def _check_finite(where: str, loss: float, grad_norm: float = 0.0) -> None:
    if not (np.isfinite(loss) and np.isfinite(grad_norm)):
        raise NumericalError(
            f"{where}: the loss is {loss}, the gradient norm {grad_norm}: lower the "
            "learning rate, check the model's weights, or use float32."
        )
