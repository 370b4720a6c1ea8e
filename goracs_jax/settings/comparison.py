"""Settings of the verb that compares methods."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from goracs_jax.choices import Duplicates
from goracs_jax.settings.common import Budgets, Leaks, Records, Settings
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.methods import list_compared, list_weighed
from goracs_jax.settings.outputs import CompareOut
from goracs_jax.settings.selection import Rows, Searched
from goracs_jax.settings.training import Judging, Training


@dataclass(frozen=True, kw_only=True)
class _Selections:
    """What the selections of a comparison share."""

    group: ClassVar[str] = "selection"

    lambdas: Annotated[
        tuple[float, ...] | None,
        Flag(default="0.1", more=list_weighed, each=float, metavar="FLOAT"),
    ] = None
    """Weights of the gradient norms in the cost, with commas between them; of several,
    the one with the least validation loss is reported."""
    encoder: Path | None = None
    """Sentence encoder for embeddings: a BERT, RoBERTa or MPNet folder; without it the
    LLM embeds."""
    duplicates: Duplicates = "refuse"
    """Refuse or keep training examples that repeat another's texts."""


@dataclass(frozen=True, kw_only=True)
class _Protocol:
    """What the seeds of a comparison draw, and what is equal or tuned in it."""

    group: ClassVar[str] = "protocol"

    draw_train: int | None = None
    """Number of examples of --train that each seed draws as its pool; without it all
    are the pool of every seed."""
    draw_valid: int | None = None
    """Number of validation examples that each seed draws, with --split-valid from the
    half that is the target; without it all are taken."""
    split_valid: bool = False
    """Cut validation in two by users: one half is the target and decides all that
    validation decides, the other is judged together with --test."""
    tune_learning_rate: Annotated[
        tuple[float, ...] | None, Flag(each=float, metavar="FLOAT")
    ] = None
    """Learning rates, with commas between them: for each budget all methods are trained
    at the one with which random has the least mean validation loss; full is tuned for
    itself."""
    tuning_seeds: int = 2
    """Number of seeds of --tune-learning-rate, counted down from --seed, so that they
    are not those of the trials."""
    tokens: int | None = None
    """Number of tokens, without padding, that each model is trained on to within a
    batch, in place of --steps or --epochs."""


@dataclass(frozen=True, kw_only=True)
class Compare(
    _Selections, Searched, Rows, Leaks, Records, _Protocol, Training, Judging, Settings
):
    """Compare methods: which selection fine-tunes the best model, and at what cost.

    A trial is one method, budget, lambda and seed: select, finetune, evaluate. Trials
    are stored in --out/cells under the hash of all that they depend on: one that is
    done is not done again, whatever else is compared later and wherever the folder is
    copied. Embeddings are computed once, gradient norms for each fresh adapter.
    """

    group: ClassVar[str] = "trials"

    methods: Annotated[
        tuple[str, ...], Flag(more=list_compared, each=str, metavar="NAME")
    ]
    """Methods to compare, of those below, with commas between them; each with :by-label
    behind it, @SPACE, or @SPACE@REWARD, as goracs@gradient/whiten/cosine@alignment:
    see --space, --transform, --metric and --reward in goracs select --help."""
    budgets: Budgets
    """Numbers n of examples to choose, with commas between them."""
    train: Path
    """Training pool: Alpaca records or chats as JSON, JSONL, CSV, Parquet or Arrow."""
    out: CompareOut
    """Folder for table.md, table.csv, comparison.json, comparison.png and the
    trials."""
    seeds: int = 3
    """Number of seeds, counted up from --seed: of the search, of training and, without
    --adapter, of the fresh adapter that gradient norms are taken with."""
    full_seeds: int = 1
    """Number of these seeds that full is trained with, since it costs most."""
    finished: bool = False
    """Make the table of the trials that are finished, without running the others."""
