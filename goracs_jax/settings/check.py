"""Settings of the verb that checks whether a choice can be told from chance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from goracs_jax.choices import Duplicates
from goracs_jax.settings.common import Leaks, Names, Records, Settings
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.outputs import CheckOut
from goracs_jax.settings.selection import ROWS_FILE, Rows
from goracs_jax.settings.training import Training


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """How much is done."""

    group: ClassVar[str] = "sizes"

    budget: int = 256
    """Number n of examples of a subset: that which you mean to choose."""
    rows: int = 4000
    """Largest number of training examples that are looked at, drawn at random."""
    planted_rows: int = 1000
    """Number of these for the planted mistakes."""
    planted_share: float = 0.4
    """Share of the planted rows that have a mistake."""
    repeats: int = 4
    """Number of trainings of one further subset, which tell the noise alone."""
    pairs: int = 12
    """Number of subsets that are trained twice."""
    quantiles: int = 5
    """Number of ranges of distance that examples are drawn from, in each space."""
    quantile_seeds: int = 2
    """Number of trainings of each range; 0 leaves this part out."""
    subsets: int = 60
    """Number of subsets whose losses are correlated with POO and rewards."""
    time_limit: Annotated[str | None, Flag(metavar="TIME")] = None
    """Take smaller sizes, so that the check takes about this long: seconds, minutes or
    hours, as in 90s, 60m or 2h."""


@dataclass(frozen=True, kw_only=True)
class Check(_Sizes, Rows, Leaks, Records, Training, Settings):
    """Find out whether distances or rewards tell which examples train a better model.

    In this order: planted mistakes, which need no training; whether two trainings of a
    subset agree more than those of two subsets, without which the check stops; losses
    by range of distance; and the rank correlation of POO and rewards with the losses of
    many subsets. The half of --valid that subsets are measured against does not judge:
    the loss is that on the other half. Before it starts it says what it will cost.
    Trainings are kept in --out/cells: those that are done are not done again.
    """

    group: ClassVar[str] = "data and spaces"

    train: Path
    """Training pool: Alpaca records or chats as JSON, JSONL, CSV, Parquet or Arrow."""
    valid: Path
    """Validation examples, likewise; one half is the target, the other judges."""
    out: CheckOut
    """Folder for check.json, check.png and the trainings."""
    spaces: Annotated[
        tuple[str, ...], Flag(each=str, metavar="NAME", reads=ROWS_FILE)
    ] = ("text", "gradient", "gradient/whiten/cosine")
    """Spaces to check, with commas between them: SOURCE, SOURCE/TRANSFORM or
    SOURCE/TRANSFORM/METRIC, as in goracs select --space, --transform and --metric."""
    rewards: Names = ("grad-norm", "alignment")
    """Rewards to check, with commas between them, as in goracs select --reward."""
    encoder: Path | None = None
    """Sentence encoder for embeddings: a BERT, RoBERTa or MPNet folder; without it the
    LLM embeds."""
    adapter_from_pool: Annotated[
        float | None, Flag(default="0.05, without --adapter", metavar="SHARE")
    ] = None
    """Train the adapter whose gradients are taken on this share of the rows first."""
    duplicates: Duplicates = "refuse"
    """Refuse or keep training examples that repeat another's texts."""
    steps: Annotated[int | None, Flag(default="100, without --epochs")] = None
    """Number of optimiser steps of a training, in place of --epochs."""
    learning_rate: float | None = 1e-3
    """Learning rate at the end of the warm-up, from where it decays linearly to 0."""
    batch_size: int = 16
    """Number of examples of one optimiser step."""
