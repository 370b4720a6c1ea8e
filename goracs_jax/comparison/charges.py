"""The floating-point operations (FLOPs) that a trial is charged, stage by stage."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from goracs_jax.comparison.design import COSTS, Trial
from goracs_jax.comparison.drawn import Draw
from goracs_jax.llm.flops import (
    Counts,
    Lengths,
    encoder_flops,
    forward_flops,
    gradient_flops,
)
from goracs_jax.models import DecoderConfig, EncoderConfig


class Sizes(NamedTuple):
    """The sizes of the models, and the numbers of tokens of every example."""

    llm: DecoderConfig
    encoder: EncoderConfig | None  # None where the LLM embeds
    train: Counts
    valid: Counts
    embedded: Lengths  # tokens of both files, as the embedding model reads them
    frozen_layers: int = 0  # below all adapters

    @property
    def upper(self) -> DecoderConfig:
        """The LLM without the layers below all adapters."""
        layers = self.llm.num_layers - self.frozen_layers
        return replace(self.llm, num_layers=layers, sliding=())

    def of(self, draw: Draw) -> "Sizes":
        """Return the sizes of what a seed draws."""
        lengths = np.split(self.embedded, [len(self.train.tokens)])
        both = zip((self.train, self.valid), lengths, draw.rows, strict=True)
        some = [
            (counts, lengths) if rows is None else (counts.take(rows), lengths[rows])
            for counts, lengths, rows in both
        ]
        (train, x), (valid, y) = some
        embedded = np.concatenate([x, y])
        return self._replace(train=train, valid=valid, embedded=embedded)


class Trained(NamedTuple):
    """The rows of a training, how often they were gone through, its validations.

    `once` is whether the layers below all adapters ran once, and not each time.
    """

    rows: Int[np.ndarray, " budget"]
    epochs: float
    validations: int
    once: bool = False


def training_flops(sizes: Sizes, trained: Trained) -> float:
    """Count the steps over the rows and the passes over the validation examples.

    >>> lengths = np.array([3, 5])
    >>> some = Counts(lengths, np.array([2, 2]))
    >>> sizes = Sizes(DecoderConfig.tiny(), None, some, some, lengths)
    >>> once = training_flops(sizes, Trained(np.array([1]), 1, 1))
    >>> training_flops(sizes, Trained(np.array([1]), 4, 4)) == 4 * once
    True
    """
    rows, valid = sizes.train.take(trained.rows), sizes.valid
    step = gradient_flops(sizes.upper, rows, "all_lora")
    validation = forward_flops(sizes.upper, valid)
    lower = lambda counts: (
        forward_flops(sizes.llm, counts) - forward_flops(sizes.upper, counts)
    )
    epochs, validations = trained.epochs, trained.validations
    reads = (1, 1) if trained.once else (epochs, validations)
    below = reads[0] * lower(rows) + reads[1] * lower(valid)
    return epochs * step + validations * validation + below


class Search(NamedTuple):
    """Passes over C, with 2 N M dim FLOPs each, and the width of the rows."""

    passes: int
    dim: int


def charged(
    trial: Trial, sizes: Sizes, trained: Trained, search: Search
) -> dict[str, float]:
    """Count the FLOPs of each stage that the trial pays.

    Args:
        trial: The trial to charge.
        sizes: Sizes of models and examples.
        trained: How long it trained.
        search: What its search reads.

    Returns:
        FLOPs by stage. What is computed of all examples is charged in full. Of an
        adapter from the pool, or a path to the target, the training is left out: a few
        per cent of the pass that follows.
    """
    llm = sizes.llm
    unscored = lambda lengths: Counts(lengths, 0 * lengths)  # no logits are made
    both = lambda of: of(sizes.train) + of(sizes.valid)
    states = lambda: both(lambda c: forward_flops(llm, unscored(c.tokens)))
    full = lambda counts: gradient_flops(llm, counts, "all_lora")
    passes: dict[str, Callable[[], float]] = {
        "text": lambda: (
            encoder_flops(sizes.encoder, sizes.embedded)
            if sizes.encoder
            else forward_flops(llm, unscored(sizes.embedded))
        ),
        "states": states,
        "prompts": states,
        "gradient": lambda: both(full),
        "subspace": lambda: both(full),
        "norms": lambda: gradient_flops(llm, sizes.train, "last_v_lora_b"),
        "loss-drop": lambda: 2 * forward_flops(llm, sizes.train),
    }
    found: dict[str, float] = {}
    for name in trial.paid:
        cost = COSTS[name]
        found[cost] = found.get(cost, 0.0) + passes[name]()
    if trial.selects and "embeddings" in trial.arm.record.needs:
        pairs = len(sizes.train.tokens) * len(sizes.valid.tokens)
        found["selection"] = 2.0 * search.passes * pairs * search.dim
    return found | {"training": training_flops(sizes, trained)}
