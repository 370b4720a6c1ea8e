"""Settings of the verb that selects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from goracs_jax.choices import (
    BoundKind,
    Duplicates,
    Metric,
    Scale,
    Scored,
    SolverName,
)
from goracs_jax.settings.common import (
    BY_FORM,
    BudgetsOrAuto,
    Hub,
    Leaks,
    Machine,
    Records,
    Settings,
)
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.methods import list_methods, list_weighed
from goracs_jax.settings.outputs import SelectOut
from goracs_jax.settings.wishes import WishFlags

ROWS_FILE = (
    r"[^+]+?\.(?:npz|safetensors)"  # of a source of rows, in the name of a space
)
Lambdas = Annotated[
    tuple[float, ...] | None,
    Flag(
        default="0.1; 0 for arrays without gradient norms, and for texts if unused",
        more=list_weighed,
        each=float,
        metavar="FLOAT",
    ),
]


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """Texts to select from, and the models that score them."""

    group: ClassVar[str] = "texts and models"

    train: Path | None = None
    """Training pool: Alpaca records or chats as JSON, JSONL, CSV, Parquet, Arrow or a
    saved dataset."""
    valid: Path | None = None
    """Validation examples, likewise."""
    model: Path | None = None
    """LLM for gradient norms, and for embeddings where --encoder is not given: a
    Hugging Face folder, a .gguf file, or organisation/model on the hub."""
    encoder: Path | None = None
    """Sentence encoder for embeddings: a BERT, RoBERTa or MPNet folder."""
    adapter: Path | None = None
    """PEFT folder of a LoRA adapter; without it a fresh one is drawn, with r 8 and
    alpha 16."""
    labels: Annotated[Scored | None, BY_FORM] = None
    """Score and embed prompt and answer (all: for sequential recommendation), or score
    the answer alone and embed the prompt alone (answer: for click-through rates).
    Without it, chats are scored in the assistant's turns alone and embedded whole."""
    duplicates: Duplicates = "refuse"
    """Refuse or keep training examples that repeat another's texts."""


@dataclass(frozen=True, kw_only=True)
class _Arrays:
    """Arrays to select from."""

    group: ClassVar[str] = "arrays, instead of a model"

    train_embeddings: Path | None = None
    """Training embeddings [N, dim] of floats, int8 or uint8: .npy, .npz, safetensors,
    Parquet or Arrow; FILE:NAME of several arrays; a folder or a pattern of shards."""
    valid_embeddings: Path | None = None
    """Validation embeddings [M, dim], likewise."""
    grad_norms: Path | None = None
    """Gradient norms of the training examples, floats [N]."""
    rewards: Path | None = None
    """Rewards of the training examples in place of gradient norms, floats [N]
    of any sign, which are divided by the largest of their sizes."""
    errors: Path | None = None
    """Prediction errors of the training examples, floats [N], for methods that
    rank by them, such as error; from texts they are computed (EL2N) when left out."""


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """Classes of the rows."""

    group: ClassVar[str] = "classes, for a label-aware selection"

    by_label: bool = False
    """Take the outputs of --train and --valid (such as Yes and No) as classes: the
    method runs inside each class, with a budget in proportion to the class's share of
    validation."""
    train_labels: Path | None = None
    """Classes of the training rows from a file, integers or strings [N]."""
    valid_labels: Path | None = None
    """Classes of the validation rows from a file, integers or strings [M]."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How gradients become rows, and how distances are scaled."""

    group: ClassVar[str] = "rows and distances"

    scale: Scale = "max"
    """Divide distances by the largest of all, or by their median, so that one distant
    row does not shrink the others."""
    adapter_from_pool: Annotated[float | None, Flag(metavar="SHARE")] = None
    """Train the adapter whose gradients are taken on this share of --train first, such
    as 0.05, in place of --adapter; it is kept in --out."""
    preconditioner: Literal["adam", "none"] = "none"
    """Project the gradients of the training examples, or the direction of the step that
    Adam would take for each after --adapter-from-pool (adam)."""
    projection_dim: int = 1024
    """Number of dimensions of a projected gradient."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """How much work a search gets."""

    group: ClassVar[str] = "search"

    effort: float = 1.0
    """Multiplier on the work of the search, from 0.1 to 10, for methods that can search
    longer, such as goracs."""
    bound: Annotated[
        BoundKind | None, Flag(default="full, for methods that compute one")
    ] = None
    """How much work the lower bound gets; without one the search has no prices to start
    from, and takes longer to find as good a subset."""


@dataclass(frozen=True, kw_only=True)
class _Space:
    """The space in which distances are taken, and the reward beside them."""

    group: ClassVar[str] = "space and reward"

    space: Annotated[
        str | None,
        Flag(default="text, or the method's own", metavar="NAME", reads=ROWS_FILE),
    ] = None
    """Source of the rows whose distances count: embeddings of the texts (text), random
    projections of their LoRA gradients (gradient), those in the subspace of the
    validation gradients (subspace), hidden states of the LLM that weigh later tokens
    more (states) or are those of the prompt alone (prompts), an .npz file with arrays
    train and valid, or several with + between them and weights where they differ, as in
    text+gradient:0.5, which adds squared distances, each over its mean."""
    transform: Annotated[
        str | None, Flag(default="none, or the method's own", metavar="NAME")
    ] = None
    """Change the rows of both sets, by the mean and the principal directions of the
    validation set: none, center, whiten, subspace:K (keep the K leading directions) or
    drop:K (take them out)."""
    metric: Annotated[Metric | None, Flag(default="euclidean, or the method's own")] = (
        None
    )
    """Distance of two rows: that of the rows as they are, or of rows scaled to length
    1, sqrt(2 - 2 cos)."""
    reward: Annotated[
        str | None,
        Flag(
            default="grad-norm, or the method's own; none for arrays without norms",
            metavar="NAME",
        ),
    ] = None
    """What lambda weighs: the gradient norm (grad-norm), the inner product of an
    example's gradient with the mean gradient of the validation examples of its class
    (alignment, or alignment/drop:K without their K leading directions), the agreement
    of its answer with a linear classifier of the validation examples (probe), the share
    of its loss that a short training on the validation examples takes off (loss-drop),
    or nothing (none)."""


@dataclass(frozen=True, kw_only=True)
class Select(
    Searched,
    _Texts,
    _Arrays,
    _Space,
    Rows,
    _Classes,
    WishFlags,
    Leaks,
    Records,
    Machine,
    Hub,
    Settings,
):
    """Choose the n examples to fine-tune on.

    From texts: give --train, --valid and --model (or --encoder alone, where no gradient
    norms are needed, as with --lambda 0). From arrays: give --train-embeddings,
    --valid-embeddings and, for a lambda above 0, --grad-norms or --rewards; with
    --train beside them, coreset.jsonl is written too, and coreset.parquet where the
    examples are Parquet. With several budgets or lambdas each pair gets its own folder
    in --out, such as budget-64-lambda-0.1, with a summary beside them.
    """

    group: ClassVar[str] = "search"

    budget: BudgetsOrAuto
    """Number n of examples to choose; give several with commas between them. With auto
    it is the one from which on a held-out half of validation gains nothing."""
    out: SelectOut
    """Folder for indices.npy, coreset.jsonl, scores.npz, manifest.json and
    report.png."""
    method: Annotated[str, Flag(more=list_methods)] = "goracs"
    """Method that chooses the examples, one of those below."""
    lambda_: Lambdas = None
    """Weight of the reward, such as the gradient norm, in the cost; give several with
    commas between them."""
    solver: SolverName = "auto"
    """Transport solver inside the search; auto is exact on CPUs and for all but very
    large problems. The objective that is reported is exact either way."""
    coreset_formats: Annotated[
        tuple[str, ...] | None,
        Flag(default="parquet where the examples are", each=str, metavar="FORMAT"),
    ] = None
    """Files to write beside coreset.jsonl: parquet, array-record, or both with a comma
    between them. The latter holds tf.train.Example, as MaxText and Grain read it, and
    needs goracs_jax[array-record]."""
    time_limit: Annotated[str | None, Flag(metavar="TIME")] = None
    """Time of each search, as in 90s or 10m, after which the best subset so far is
    written, as it is after Ctrl-C or SIGTERM. It is marked stopped in manifest.json,
    and the same command searches anew. The greedy start is finished in any case."""
