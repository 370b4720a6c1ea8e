"""Settings of the verbs that score and select."""

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
    Which,
)
from goracs_jax.settings.common import (
    Backward,
    BudgetsOrAuto,
    Hub,
    Leaks,
    Machine,
    Processes,
    Records,
    Settings,
)
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.methods import list_methods, list_weighed
from goracs_jax.settings.outputs import ArrayOut, MoreOut, SelectOut
from goracs_jax.settings.wishes import WishFlags

ROWS_FILE = (
    r"[^+]+?\.(?:npz|safetensors)"  # of a source of rows, in the name of a space
)
BY_FORM = Flag(default="all; answer for chats")
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
class Embed(Records, Machine, Hub, Processes, Settings):
    """Embed examples: one vector for each, float32 [n, dim], in the order of the file.

    Give either --model or --encoder.
    """

    group: ClassVar[str] = "model"

    data: Path
    """Examples to embed: Alpaca records or chats as JSON, JSONL, CSV, Parquet or
    Arrow."""
    out: ArrayOut
    """The .npy file to write."""
    model: Path | None = None
    """LLM whose mean-pooled hidden states are the embeddings: a Hugging Face folder, a
    .gguf file, or organisation/model on the hub."""
    adapter: Path | None = None
    """PEFT folder of a LoRA adapter to put into the LLM; without it the LLM stays as it
    is."""
    encoder: Path | None = None
    """Sentence encoder to use instead of an LLM: a BERT, RoBERTa or MPNet folder."""
    labels: Scored = "all"
    """Embed prompt and answer (all), or the prompt alone (answer)."""


@dataclass(frozen=True, kw_only=True)
class _Gradient:
    """The gradient that is taken."""

    group: ClassVar[str] = "model and loss"

    adapter: Path | None = None
    """PEFT folder of a LoRA adapter; without it a fresh one is drawn, with r 8 and
    alpha 16."""
    which: Which = "last_v_lora_b"
    """Take the gradient with respect to lora_B of the last layer's v_proj, or to all
    LoRA weights."""
    labels: Annotated[Scored | None, BY_FORM] = None
    """Tokens that the loss scores: prompt and answer (all), or the answer alone; of a
    chat, the assistant's turns."""


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """What else the pass over the gradients can write."""

    group: ClassVar[str] = "further outputs of the same pass"

    losses: MoreOut = None
    """The .npy file for the loss of each example, float32 [n]."""
    errors: MoreOut = None
    """The .npy file for the prediction error of each example (EL2N), float32 [n]: the
    norm of softmax minus one-hot, averaged over the scored tokens."""
    projections: MoreOut = None
    """The .npy file for a random projection of each gradient, [n, projection-dim],
    which keeps inner products in expectation."""
    projection_dim: int = 1024
    """Number of dimensions of a projected gradient."""
    projection_dtype: Literal["float32", "float16"] = "float32"
    """Type of the projected numbers."""


@dataclass(frozen=True, kw_only=True)
class Grads(_Gradient, _Outputs, Records, Backward, Machine, Hub, Processes, Settings):
    """Take each example's gradient norm: float32 [n], in the order of the file."""

    data: Path
    """Examples to take gradients of: Alpaca records or chats as JSON, JSONL, CSV or
    Parquet."""
    model: Path
    """LLM: a Hugging Face folder, a .gguf file, or organisation/model on the hub."""
    out: ArrayOut
    """The .npy file of norms to write."""


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
    examples are Parquet. With several budgets or lambdas
    each pair gets its own folder in --out, such as budget-64-lambda-0.1, with a summary
    beside them.
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
    time_limit: Annotated[str | None, Flag(metavar="TIME")] = None
    """Time of each search, as in 90s or 10m, after which the best subset so far is
    written, as it is after Ctrl-C or SIGTERM. It is marked stopped in manifest.json,
    and the same command searches anew. The greedy start is finished in any case."""
