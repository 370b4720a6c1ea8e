"""Settings of the verbs that make data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from goracs_jax.choices import MAX_BAD, FormatName, Order, Task
from goracs_jax.settings.common import Leaks, Settings
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.outputs import DemoOut, ExamplesOut

_by_format = lambda csv: Flag(metavar="FIELD", default=f"by format; csv: {csv}")
_size = Flag(metavar="NUMBER", default="5000")


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """How the raw files are read."""

    group: ClassVar[str] = "raw data"

    format: Literal["auto", FormatName] = "auto"
    """What the fields are called and where the titles are; auto finds it out where the
    files leave no doubt. csv, jsonl and parquet take fields of your own."""
    metadata: Annotated[
        Path | None,
        Flag(default="where the format keeps it; csv, jsonl, parquet: the input"),
    ] = None
    """File of titles."""
    encoding: Annotated[
        str | None, Flag(metavar="NAME", default="UTF-8, or as the format prescribes")
    ] = None
    """Encoding of CSV and other separated text, such as latin-1 or gbk, where no mark
    at its start tells it."""
    user_column: Annotated[str | None, _by_format("user_id")] = None
    """Name of the field that holds users, or its number, from 1, in a CSV file without
    a header line."""
    item_column: Annotated[str | None, _by_format("item_id")] = None
    """Name of the field that holds items."""
    metadata_item_column: Annotated[
        str | None, Flag(metavar="FIELD", default="as in the input")
    ] = None
    """Name of the field that holds items in the file of titles."""
    rating_column: Annotated[str | None, _by_format("rating")] = None
    """Name of the field that holds ratings, which seqrec does not need."""
    time_column: Annotated[str | None, _by_format("timestamp")] = None
    """Name of the field that holds times, as numbers or as ISO 8601 dates."""
    order: Order = "time"
    """What orders interactions: their time; their place in the file, where later ones
    count as newer; or chance (random), which gives a random split."""
    title_column: Annotated[
        str | None, _by_format("title, or the only one that ends in title")
    ] = None
    """Name of the field that holds titles."""
    max_bad: float = MAX_BAD
    """Largest share of a file's lines that may be unreadable."""


@dataclass(frozen=True, kw_only=True)
class _Examples:
    """Which interactions become examples."""

    group: ClassVar[str] = "examples"

    repeats: Literal["drop", "keep"] = "drop"
    """Drop or keep later interactions of a user with the same item."""
    core: int = 1
    """Drop users and items with fewer than this many interactions, until no such user
    or item is left."""
    history: int = 10
    """Largest number of items in a history; the latest ones are kept."""
    min_history: int = 3
    """Number of earlier interactions that a user needs for an example."""
    like_above: float = 3.0
    """Rating above which the answer is Yes, for ctr."""
    negatives: int = 99
    """Number of items that the user never had, drawn for each validation and test
    example of seqrec."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Which examples validate and test."""

    group: ClassVar[str] = "split"

    split: Literal["global", "leave-one-out"] = "global"
    """Test on the newest examples of all and validate on those before them (global), or
    test on each user's newest example and validate on the one before it
    (leave-one-out)."""
    valid: Annotated[int | float | None, _size] = None
    """Validation examples of a global split: a number, or a share below 1."""
    test: Annotated[int | float | None, _size] = None
    """Test examples of a global split: a number, or a share below 1."""


@dataclass(frozen=True, kw_only=True)
class _Prompts:
    """The words of the prompts."""

    group: ClassVar[str] = "prompts"

    noun: Annotated[
        str | None, Flag(metavar="WORD", default="movie, product and so on, by format")
    ] = None
    """What the prompt calls an item."""
    template: Path | None = None
    """File of your own wording instead of the built-in one, YAML or JSON: instruction,
    input and output with {history}, {target}, {noun}, and for ctr also {liked},
    {disliked}, {answer}."""


@dataclass(frozen=True, kw_only=True)
class Prepare(_Raw, _Examples, _Split, Leaks, _Prompts, Settings):
    """Turn raw interactions into train.jsonl, valid.jsonl, test.jsonl and items.jsonl.

    Where a user has several interactions with an item, the oldest counts. Items without
    a title are dropped. Interactions of equal time are ordered by user, then as in the
    file. Examples carry the ids user and target, the timestamp and, for seqrec in
    validation and test, negatives.
    """

    task: Task
    """Name the next title (seqrec), or answer Yes or No to whether the user will like
    it (ctr)."""
    input: Path
    """File of interactions (JSON, CSV, Parquet or Arrow, packed or not), or the folder
    of a MovieLens, MIND, KuaiRec or RecBole data set."""
    out: ExamplesOut
    """Folder for the four files and manifest.json."""


@dataclass(frozen=True, kw_only=True)
class Demo(Settings):
    """Run the whole chain on real data: MovieLens-100K, MiniLM and SmolLM2-135M."""

    group: ClassVar[str] = "data and search"

    out: DemoOut = Path("demo")
    """Folder for the data and the files that goracs select writes."""
    train: int = 320
    """Number of training examples to draw."""
    valid: int = 1000
    """Number of validation examples to draw."""
    budget: int = 64
    """Number n of examples to choose."""
    lambda_: float = 0.1
    """Weight of the gradient norms in the cost."""
