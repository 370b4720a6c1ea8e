"""A training run: its data, one step, and one validation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float32, PyTree

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.batches import Batch
from goracs_jax.llm.halves import memory_ran_out, too_large, warn
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.passes import together
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokens import Tokens
from goracs_jax.mesh import replicate, replicate_key, spread_batch
from goracs_jax.models import Decoder
from goracs_jax.models.lower import LowerStates
from goracs_jax.training.batches import Shapes, step_batches
from goracs_jax.training.checkpoint import LogEntry, State
from goracs_jax.training.config import FinetuneConfig
from goracs_jax.training.order import Order
from goracs_jax.training.step import (
    ModelParts,
    accumulate,
    loss_sum,
    num_scored,
    running_mean,
    split,
    update,
    zero_sums,
)

Worked = tuple[State, LogEntry]


class Run(NamedTuple):
    """What stays the same in a training run: model, data and settings."""

    parts: ModelParts
    train: Tokens
    valid: Tokens
    valid_batches: list[Batch]
    valid_most: int  # largest number of scored tokens in a validation example
    config: FinetuneConfig
    order: Order  # of the training examples
    shapes: Shapes
    optimizer: optax.GradientTransformation
    rates: Float32[np.ndarray, " steps"]  # the learning rate of each step
    mesh: Mesh | None
    halved: bool  # whether micro-batches were, for lack of memory
    lower: LowerTable | None  # what the layers below all adapters make of the examples

    @classmethod
    def prepare(
        cls,
        model: Decoder,
        train: Tokens,
        valid: Tokens,
        config: FinetuneConfig,
        seed: int,
        *,
        lower: LowerTable | None = None,
        halved: bool = False,
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
            lower: What the layers below all adapters make of the examples.
            halved: Whether micro-batches were halved before, which is said once.

        Returns:
            The run.

        Raises:
            InputError: The learning rate would be 0 at every step.
            NumericalError: One example on each device does not fit the memory.
        """
        config = config.resolved()
        steps = config.total_steps(train.num_examples)
        optimizer = config.optimizer(steps)
        rates = np.asarray(config.schedule(steps)(np.arange(steps)))
        parts, execution = split(model), model.execution
        size = config.tokens_per_batch or batch_tokens(model, "training", train)
        order, rest = Order.of(train, seed), (optimizer, rates, execution.grid)
        while True:
            config = replace(config, tokens_per_batch=size)
            of = partial(Shapes.of, config=config, devices=execution.data_devices)
            shapes, checked = map(of, (train, valid))
            checks = (checked.split(valid), checked.most)
            same = (config, order, shapes, *rest, halved, lower)
            run = cls(parts, train, valid, *checks, *same)
            try:
                run._compile()
                return run
            except jax.errors.JaxRuntimeError as error:
                if not memory_ran_out(error):
                    raise
            size, halved = run._half(), True

    def fitting(
        self, work: Callable[["Run", State], Worked], state: State
    ) -> tuple["Run", Worked]:
        """Do some work, in smaller micro-batches where the memory runs out.

        The sums over micro-batches are exact for any size, and the work starts anew
        from the same state, so that only rounding changes.

        Args:
            work: `Run.step` or `Run.validate`.
            state: The state to work on.

        Returns:
            The run that fitted, and what the work gave.

        Raises:
            NumericalError: One example on each device does not fit the memory.
        """
        try:
            return self, work(self, state)
        except jax.errors.JaxRuntimeError as error:
            if not memory_ran_out(error):
                raise
        config = replace(self.config, tokens_per_batch=self._half())
        model = nnx.merge(*self.parts)
        pools = (self.train, self.valid)
        seed, lower = self.order.seed, self.lower
        smaller = Run.prepare(model, *pools, config, seed, lower=lower, halved=True)
        return smaller.fitting(work, state)

    def _half(self) -> int:
        """Return the tokens of half a micro-batch on a device, and say so, once."""
        blanks = [self.shapes.blank(time) for time in self.shapes.lengths]
        batches = [*blanks, *self.valid_batches]
        largest = max(batches, key=lambda batch: batch.ids.size)
        devices = self.shapes.devices
        if max(len(batch.rows) for batch in batches) <= devices:
            raise too_large(largest.words)
        if not self.halved:
            warn(largest.words._replace(limit="--micro-batch-tokens"))
        return max(1, largest.ids.size // devices // 2)

    def _compile(self) -> None:
        """Compile all programs at the same time; JAX keeps them for the calls."""
        state, sums = self.fresh, zero_sums(self.parts)
        blanks = map(self.shapes.blank, self.shapes.lengths)
        by_shape = {batch.ids.shape: batch for batch in self.valid_batches}
        adding = [
            accumulate.lower(
                self.parts, sums, batch, self._key(0), lower, most=self.shapes.most
            )
            for batch, lower in map(self._read, blanks)
        ]
        losses = [
            loss_sum.lower(self.parts, batch, lower, most=self.valid_most)
            for batch, lower in map(self._read, by_shape.values())
        ]
        changing = update.lower(
            self.optimizer, state.lora, state.opt_state, sums, np.float32(1)
        )
        programs = [*adding, *losses, changing]
        if self.averaged > 1:
            programs.append(running_mean.lower(state.lora, state.lora, np.float32(1)))
        together([program.compile for program in programs])

    @property
    def total_steps(self) -> int:
        """The number of steps of a run that does not stop early."""
        return self.config.total_steps(self.train.num_examples)

    @property
    def averaged(self) -> int:
        """The number of last steps whose adapters are averaged."""
        return self.config.averaged(self.total_steps)

    @property
    def fresh(self) -> State:
        """The state before the first step."""
        lora, opt_state = self.parts.lora, self.optimizer.init(self.parts.lora)
        if self.mesh is not None:
            opt_state = jax.tree.map(partial(replicate, mesh=self.mesh), opt_state)
        return State(lora, opt_state, lora)

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
        number, epoch = state.step + 1, self._epoch(state.step + 1)
        given = (self.train, self.order, self.shapes, self.config.batch_size)
        batches, key = step_batches(*given, state.step), self._key(epoch - 1)
        parts, sums = self.parts._replace(lora=state.lora), zero_sums(self.parts)
        for batch, lower in map(self._read, batches):
            sums = accumulate(parts, sums, batch, key, lower, most=self.shapes.most)
        count = np.float32(num_scored(batches))
        done = update(self.optimizer, state.lora, state.opt_state, sums, count)
        loss, grad_norm = done.loss.item(), done.grad_norm.item()
        _check_finite(f"step {number}", loss, grad_norm)
        if number == 1 and grad_norm == 0:
            raise InputError(
                "the gradient of every adapter is exactly zero, so nothing would "
                "train: check the adapter that training starts from."
            )
        entry = {
            "step": number,
            "epoch": epoch,
            "loss": loss,
            "learning_rate": self.rates[number - 1].item(),
            "grad_norm": grad_norm,
            "tokens": sum(int((batch.ids >= 0).sum()) for batch in batches),
        }
        kept = self._kept(state.kept, done.lora, number)
        return state._replace(
            lora=done.lora, opt_state=done.opt_state, kept=kept, step=number
        ), entry

    def validate(self, state: State) -> tuple[State, LogEntry]:
        """Compute the validation loss: the mean over the scored tokens of its examples.

        With keep="best" it is that of the present adapters, which are kept if it is the
        lowest so far; otherwise that of what is kept.

        Args:
            state: The state after a step.

        Returns:
            The new state, and the metrics of the validation.

        Raises:
            NumericalError: The loss is not finite.
        """
        lowest, epoch = self.config.keep == "best", self._epoch(state.step)
        judged = state.lora if lowest else state.kept
        parts = self.parts._replace(lora=judged)
        batches = map(self._read, self.valid_batches)
        sums = [loss_sum(parts, *batch, most=self.valid_most) for batch in batches]
        loss = float(np.sum(jax.device_get(sums), dtype=np.float64))
        loss /= num_scored(self.valid_batches)
        _check_finite(f"validation after epoch {epoch}", loss)
        entry = {"step": state.step, "epoch": epoch, "valid_loss": loss}
        if loss < state.best_loss or not lowest:
            found = {"kept": judged, "best_loss": loss, "best_epoch": epoch}
            return state._replace(**found, waited=0), entry
        return state._replace(waited=state.waited + 1), entry

    def validates_after(self, step: int) -> bool:
        """Return whether a validation follows the step with this number, from 1."""
        epochs, last = self.config.valid_every, step == self.total_steps
        if epochs is None:
            return last
        per_epoch = self.config.steps_per_epoch(self.train.num_examples)
        return last or step % (epochs * per_epoch) == 0

    def _read(self, batch: Batch) -> tuple[Batch, LowerStates | None]:
        """Put a batch on the devices, with its lower states if they were kept."""
        lower = None if self.lower is None else self.lower.states(batch.ids)
        return spread_batch((batch, lower), self.mesh)

    def _kept(self, kept: PyTree, lora: PyTree, step: int) -> PyTree:
        """Return the adapters to keep after a step with this number, from 1."""
        if self.config.keep == "best":
            return kept  # until a validation finds better ones
        count = step - (self.total_steps - self.averaged)
        return lora if count <= 1 else running_mean(kept, lora, np.float32(count))

    def _key(self, epoch: int) -> jax.Array:
        """Return the key of an epoch's dropout, on every device of the grid."""
        key = self.order.key(epoch)
        return key if self.mesh is None else replicate_key(key, self.mesh)

    def _epoch(self, step: int) -> int:
        """Return the epoch of a step; both are counted from 1."""
        return -(-step // self.config.steps_per_epoch(self.train.num_examples))


def _check_finite(where: str, loss: float, grad_norm: float = 0.0) -> None:
    if not (np.isfinite(loss) and np.isfinite(grad_norm)):
        raise NumericalError(
            f"{where}: the loss is {loss}, the gradient norm {grad_norm}: lower the "
            "learning rate, check the model's weights, or use float32."
        )
