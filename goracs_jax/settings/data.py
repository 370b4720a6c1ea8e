"""Settings of the verbs that make data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from goracs_jax.data.formats import FormatName
from goracs_jax.data.interactions import MAX_BAD
from goracs_jax.llm.prompts import Task
from goracs_jax.settings.common import Settings


@dataclass(frozen=True, kw_only=True)
class Prepare(Settings):
    """Raw interactions to train.jsonl, valid.jsonl, test.jsonl and items.jsonl.

    Of a user's interactions with an item the oldest counts; items without a title are
    dropped; ties in time are ordered by user, then as in the file. Examples carry the
    ids user and target, the timestamp and, for seqrec in valid and test, negatives.
    """

    task: Task
    """seqrec: name the next title. ctr: will the user like it, Yes or No."""
    input: Path
    """File of interactions, gzipped or not, or the folder of a MovieLens or RecBole
    data set."""
    out: Path
    """Folder for the four files and manifest.json."""
    format: Literal["auto"] | FormatName = "auto"
    """Format of the input; auto: found out, where the files leave no doubt."""
    metadata: Path | None = None
    """File of titles; where left out, the one that the format has beside the input,
    or, for csv and jsonl, the input itself."""
    user_column: str | None = None
    """Name of the field of users, where it is not the format's (csv: user_id)."""
    item_column: str | None = None
    """Likewise of items (csv: item_id)."""
    rating_column: str | None = None
    """Likewise of ratings (csv: rating; may be missing for seqrec)."""
    time_column: str | None = None
    """Likewise of times (csv: timestamp): numbers, or dates as in ISO 8601."""
    title_column: str | None = None
    """Likewise of titles (csv: title, or the only one that ends in title)."""
    max_bad: float = MAX_BAD
    """Largest share of lines of a file that may be unreadable."""
    repeats: Literal["drop", "keep"] = "drop"
    """Later interactions of a user with the same item."""
    core: int = 1
    """k: drop users and items with fewer than k interactions until none is left."""
    history: int = 10
    """Most items in a history, the latest ones."""
    min_history: int = 3
    """Fewest earlier interactions that make an example."""
    split: Literal["global", "leave-one-out"] = "global"
    """global: the newest examples test, those before validate. leave-one-out: each
    user's newest tests, the one before validates."""
    valid: int | float | None = None
    """Validation examples of a global split: a number, or a share below 1 (5000)."""
    test: int | float | None = None
    """Test examples of a global split, likewise (5000)."""
    negatives: int = 99
    """seqrec: items that the user never had, drawn for each example of valid and
    test."""
    like_above: float = 3.0
    """ctr: a rating above it is a Yes."""
    noun: str | None = None
    """What the prompt calls an item (movie, product or item, by format)."""
    template: Path | None = None
    """Own wording, YAML or JSON: instruction, input and output with {history},
    {target}, {noun}; for ctr also {liked}, {disliked}, {answer}."""


@dataclass(frozen=True, kw_only=True)
class Demo(Settings):
    """The whole chain on real data: MovieLens-100K, MiniLM and SmolLM2-135M."""

    out: Path = Path("demo")
    """Folder for the data and the files that `select` writes."""
    train: int = 320
    """Training examples to draw."""
    valid: int = 1000
    """Validation examples to draw."""
    budget: int = 64
    """n, the number of examples to choose."""
    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = 0.1
    """Weight of the gradient term."""
