"""LoRA fine-tuning: the loop over steps and validations."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from flax import nnx
from jaxtyping import PyTree

from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.tokens import Tokens, check_ids
from goracs_jax.mesh import agree
from goracs_jax.models import Decoder
from goracs_jax.training.checkpoint import LogEntry, MetricsLog, Store, checkpoints
from goracs_jax.training.config import FinetuneConfig
from goracs_jax.training.run import Run


class Finetuned(NamedTuple):
    """The model that is kept, and the metrics of its training.

    `best_loss` is its validation loss, and `best_epoch` the epoch of that validation:
    with keep="best" the lowest of all, otherwise the last.

    `log` has one entry per step (loss, learning_rate, grad_norm, tokens, seconds) and
    one per validation (valid_loss, seconds), each with its step and epoch. `opt_state`
    is that of AdamW after the last step.
    """

    model: Decoder
    best_epoch: int
    best_loss: float
    log: list[LogEntry]
    opt_state: PyTree


def finetune(
    model: Decoder,
    train: Tokens,
    valid: Tokens,
    config: FinetuneConfig,
    *,
    seed: int,
    folder: Path | None = None,
    lower: LowerTable | None = None,
    watch: Callable[[LogEntry], None] = lambda entry: None,
    checkpoint_seconds: float = 30.0,
) -> Finetuned:
    r"""Train the adapters of a model, and keep the best, the last or their average.

    The loss of a step is the mean over all scored tokens of its batch, as in Hugging
    Face's Trainer:

        L = sum_i sum_{t scored} l_it / sum_i |{t scored}|

    with the cross-entropy l_it of token t in example i. Its gradient is exact for any
    size of micro-batches. The order of the data and the dropout of an example are
    functions of its content, the seed and the epoch.

    Args:
        model: A decoder with adapters; the dropout rate is that of `model.lora`.
        train: Training examples, with labels that are not shifted.
        valid: Validation examples, with labels that are not shifted.
        config: Epochs or steps, learning rate and the other settings.
        seed: Seed of the data order and of dropout.
        folder: Folder for checkpoints and metrics.jsonl. A run with the same arguments
            continues a killed one from there and ends with the same bytes.
        lower: What the layers below all adapters make of the examples, if it was kept.
            It changes speed, and the result by rounding alone.
        watch: Called with every new entry of the log.
        checkpoint_seconds: Least time between two checkpoints, in seconds; it bounds
            the work that a killed run loses.

    Returns:
        The model that is kept and the metrics of all steps and validations.

    Raises:
        InputError: A token id is outside the vocabulary, or nothing would train.
        NumericalError: A loss or a gradient is not finite, or one example on each
            device does not fit the memory.

    >>> import jax
    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> tokens = ragged([[1, 2, 3, 4]] * 3, [[1, 2, 3, 4]] * 3)
    >>> config = FinetuneConfig(epochs=3, learning_rate=1e-2, warmup_steps=1)
    >>> done = finetune(model, tokens, tokens, config, seed=0)
    >>> losses = [entry["valid_loss"] for entry in done.log if "valid_loss" in entry]
    >>> losses[0] > losses[2]
    True
    """
    for tokens in (train, valid):
        check_ids(tokens, model.config.vocab_size)
    run = Run.prepare(model, train, valid, config, seed, lower=lower)
    alone = nullcontext(Store(run.fresh, lambda state: None))
    keep = checkpoints(folder / "checkpoints", run.fresh) if folder else alone
    with keep as (state, save):
        log = MetricsLog(folder / "metrics.jsonl" if folder else None, state.step)
        saved = time.perf_counter()
        while state.step < run.total_steps and state.waited < config.patience:
            validates = run.validates_after(state.step + 1)
            for work in [Run.step, Run.validate] if validates else [Run.step]:
                started = time.perf_counter()
                run, (state, entry) = run.fitting(work, state)
                entry["seconds"] = time.perf_counter() - started
                log.add(entry)
                watch(entry)
            # The first process's clock counts for all, since all save together.
            if agree(int(time.perf_counter() - saved > checkpoint_seconds)):
                save(state)
                saved = time.perf_counter()
    kept = nnx.merge(run.parts.graph, state.kept, run.parts.frozen)
    best = (state.best_epoch, state.best_loss)
    return Finetuned(kept, *best, log.entries, state.opt_state)
