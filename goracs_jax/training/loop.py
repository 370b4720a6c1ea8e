"""LoRA fine-tuning with early stopping: the loop around the step."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from flax import nnx

from goracs_jax.llm.tokens import Tokens, check_ids
from goracs_jax.models import Decoder
from goracs_jax.training.checkpoint import Metrics, Store, checkpoints
from goracs_jax.training.config import FinetuneConfig
from goracs_jax.training.run import Record, Run

# The state is stored at least this often: what a kill can cost.
CHECKPOINT_SECONDS = 30.0


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

    >>> import jax
    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
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
    alone = nullcontext(Store(run.fresh, lambda state: None))
    keep = checkpoints(folder / "checkpoints", run.fresh) if folder else alone
    with keep as (state, save):
        metrics = Metrics(folder / "metrics.jsonl" if folder else None, state.step)
        saved = time.perf_counter()
        while state.step < run.total_steps and state.waited < config.patience:
            validates = run.validates_after(state.step + 1)
            for work in [run.step, run.validate] if validates else [run.step]:
                started = time.perf_counter()
                state, record = work(state)
                record["seconds"] = time.perf_counter() - started
                metrics.add(record)
                watch(record)
            if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                save(state)
                saved = time.perf_counter()
    best = nnx.merge(run.parts.graph, state.best, run.parts.frozen)
    return Finetuned(best, state.best_epoch, state.best_loss, metrics.records)
