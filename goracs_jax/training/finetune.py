"""LoRA fine-tuning with early stopping: the loop around the step."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.models import Decoder
from goracs_jax.tokens import Batch, Tokens, check_ids
from goracs_jax.training.batches import Shapes, step_batches, step_key
from goracs_jax.training.checkpoint import Metrics, State, Store, checkpoints
from goracs_jax.training.config import FinetuneConfig
from goracs_jax.training.step import (
    Parts,
    accumulate,
    loss_sum,
    num_scored,
    split,
    update,
    zero_sums,
)

# The state is stored at least this often: what a kill can cost.
CHECKPOINT_SECONDS = 30.0

Record = dict[str, Any]


class Finetuned(NamedTuple):
    """The model with the adapter of the least validation loss, and how it came about.

    `records` has one entry a step (loss, learning_rate, grad_norm, tokens, seconds) and
    one a validation (valid_loss), each with its step and epoch.
    """

    model: Decoder
    best_epoch: int
    best_loss: float
    records: list[Record]


def finetune(
    model: Decoder,
    train: Tokens,
    valid: Tokens,
    config: FinetuneConfig,
    *,
    seed: int,
    folder: Path | None = None,
    watch: Callable[[Record], None] = lambda record: None,
) -> Finetuned:
    r"""Trains the adapters of a model.

    One step moves them along the gradient of

        L = sum_i sum_{t scored} l_it / sum_i |{t scored}|

    over the examples i of its batch: the mean over all scored tokens, as Hugging Face's
    Trainer has it, exact for any size of micro-batches. The order of the data and the
    draws of dropout are functions of (seed, epoch, step).

    Args:
        model: A decoder with adapters in place; dropout is that of `model.lora`.
        train: Training examples with unshifted labels.
        valid: Validation examples likewise.
        config: Epochs, learning rate and the rest.
        seed: Of order and dropout.
        folder: Where checkpoints and metrics.jsonl go: a killed run goes on from there
            and ends with the same bytes. Only for the same arguments.
        watch: Called with every new record.

    Returns:
        The best model and the records of all steps.

    Raises:
        InputError: If an example has an id outside the vocabulary, nothing would train,
            or the loss is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> tokens = ragged([[1, 2, 3, 4]] * 3, [[1, 2, 3, 4]] * 3)
    >>> config = FinetuneConfig(epochs=3, learning_rate=1e-2, warmup_steps=1)
    >>> done = finetune(model, tokens, tokens, config, seed=0)
    >>> losses = [r["valid_loss"] for r in done.records if "valid_loss" in r]
    >>> losses[0] > losses[2]
    True
    """
    for tokens in (train, valid):
        check_ids(tokens, model.config.vocab_size)
    run = Run.prepare(model, train, valid, config, seed)
    fresh = State(run.parts.lora, run.optimizer.init(run.parts.lora), run.parts.lora)
    alone = nullcontext(Store(fresh, lambda state: None))
    keep = checkpoints(folder / "checkpoints", fresh) if folder else alone
    with keep as (state, save):
        metrics = Metrics(folder / "metrics.jsonl" if folder else None, state.step)

        saved = time.perf_counter()
        while state.step < run.total_steps and state.waited < config.patience:
            validates = run.validates_after(state.step + 1)
            for work in [run.step, run.validate] if validates else [run.step]:
                started = time.perf_counter()
                state, record = work(state)
                seconds = time.perf_counter() - started
                state = state._replace(seconds=state.seconds + seconds)
                record["seconds"] = seconds
                metrics.add(record)
                watch(record)
            if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                save(state)
                saved = time.perf_counter()
    best = nnx.merge(run.parts.graph, state.best, run.parts.frozen)
    return Finetuned(best, state.best_epoch, state.best_loss, metrics.records)


class Run(NamedTuple):
    """What stays the same from step to step."""

    parts: Parts
    train: Tokens
    valid: list[Batch]
    config: FinetuneConfig
    seed: int
    shapes: Shapes
    total_steps: int
    optimizer: optax.GradientTransformation
    programs: dict[int, Callable[..., Any]]  # `accumulate`, by padded length

    @classmethod
    def prepare(
        cls,
        model: Decoder,
        train: Tokens,
        valid: Tokens,
        config: FinetuneConfig,
        seed: int,
    ) -> "Run":
        total = config.epochs * config.steps_per_epoch(train.num_examples)
        optimizer = config.optimizer(total)
        parts, shapes = split(model), Shapes.of(train, config)
        sums, key = zero_sums(parts.lora), step_key(seed, 0)
        # All shapes that can come up are compiled here: which ones a step has depends
        # on the order of the data.
        programs = {
            time: accumulate.lower(parts, sums, shapes.blank(time), key).compile()
            for time in shapes.lengths
        }
        batches = Shapes.of(valid, config).split(valid)
        return cls(
            parts, train, batches, config, seed, shapes, total, optimizer, programs
        )

    def step(self, state: State) -> tuple[State, Record]:
        number = state.step
        config, key = self.config, step_key(self.seed, number)
        batches = step_batches(
            self.train, self.shapes, config.batch_size, self.seed, number
        )
        parts = self.parts._replace(lora=state.lora)
        sums = zero_sums(state.lora)
        for batch in batches:
            sums = self.programs[batch.ids.shape[1]](parts, sums, batch, key)
        count = np.float32(num_scored(batches))
        done = update(self.optimizer, state.lora, state.opt_state, sums, count)
        _check(f"step {number + 1}", float(done.loss), float(done.grad_norm))
        if number == 0 and float(done.grad_norm) == 0:
            raise InputError(
                "the gradient of every adapter is exactly zero, so nothing would "
                "train: check the adapter that training starts from."
            )
        record = {
            "step": number + 1,
            "epoch": self._epoch(number + 1),
            "loss": float(done.loss),
            "learning_rate": float(config.schedule(self.total_steps)(number)),
            "grad_norm": float(done.grad_norm),
            "tokens": sum(int((batch.ids >= 0).sum()) for batch in batches),
        }
        return state._replace(
            lora=done.lora, opt_state=done.opt_state, step=number + 1
        ), record

    def validate(self, state: State) -> tuple[State, Record]:
        parts = self.parts._replace(lora=state.lora)
        sums = [loss_sum(parts, batch) for batch in self.valid]
        loss = float(np.sum(jax.device_get(sums), dtype=np.float64))
        loss /= num_scored(self.valid)
        epoch = self._epoch(state.step)
        _check(f"validation after epoch {epoch}", loss)
        record = {"step": state.step, "epoch": epoch, "valid_loss": loss}
        if loss < state.best_loss:
            found = {"best": state.lora, "best_loss": loss, "best_epoch": epoch}
            return state._replace(**found, waited=0), record
        return state._replace(waited=state.waited + 1), record

    def validates_after(self, step: int) -> bool:
        per_epoch = self.config.steps_per_epoch(self.train.num_examples)
        every = self.config.valid_every * per_epoch
        return step % every == 0 or step == self.total_steps

    def _epoch(self, step: int) -> int:
        """The epoch, from 1, of a step, counted from 1."""
        return -(-step // self.config.steps_per_epoch(self.train.num_examples))


def _check(where: str, loss: float, grad_norm: float = 0.0) -> None:
    if not (np.isfinite(loss) and np.isfinite(grad_norm)):
        raise InputError(
            f"{where}: the loss is {loss}, the gradient norm {grad_norm}: lower the "
            "learning rate, check the model's weights, or use float32."
        )
