"""The settings of every verb: each field is a flag of the command line.

The same names, with dashes, are the keys of a `--config` file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from goracs_jax.data.formats import FormatName
from goracs_jax.data.interactions import MAX_BAD
from goracs_jax.gradients import Which
from goracs_jax.prompts import Task
from goracs_jax.tokens import LabelMode


def _listed(kind: Callable[[str], float | str], name: str) -> PrimitiveConstructorSpec:
    """Numbers or names with commas between them, each once."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{name}[,{name}...]",
        instance_from_str=lambda texts: tuple(
            dict.fromkeys(map(kind, texts[0].split(",")))
        ),
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [
            ",".join(map(str, value)) if value else "None"
        ],
    )


Dtype = Literal["float32", "bfloat16"]
Budgets = Annotated[tuple[int, ...], _listed(int, "INT")]
Lambdas = Annotated[
    tuple[float, ...] | None, tyro.conf.arg(name="lambda"), _listed(float, "FLOAT")
]
Names = Annotated[tuple[str, ...], _listed(str, "NAME")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all verbs share."""

    config: Path | None = None
    """YAML file with flags of this verb, as `budget: 64`; flags given here win."""
    dry_run: bool = False
    """Check the inputs, print the plan (stages, sizes, what is done already), stop."""
    seed: int = 0
    """Seed of everything random: a fresh adapter, sampling."""


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
class Devices(Settings):
    """What verbs share that run on many devices: all that JAX sees are used."""

    model_devices: int = 1
    """Devices over which one copy of the LLM goes; the others take other examples."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes; or auto, under SLURM, MPI, TPU."""
    processes: int | None = None
    """How many processes there are, unless auto; all see the same files."""
    process: int | None = None
    """Which of them this is, from 0, unless auto."""


@dataclass(frozen=True, kw_only=True)
class Embed(Devices):
    """One vector per example: float32 [n, dim], in the order of the file."""

    data: Path
    """Alpaca records, JSON or JSONL."""
    out: Path
    """The .npy file to write."""
    model: Path | None = None
    """LLM: a Hugging Face folder or a .gguf file; its mean-pooled hidden states."""
    adapter: Path | None = None
    """PEFT folder of a LoRA adapter that the LLM is to have."""
    encoder: Path | None = None
    """Sentence encoder instead: a BERT, RoBERTa or MPNet folder."""
    labels: LabelMode = "all"
    """all: embed prompt and answer. answer: embed the prompt alone."""
    dtype: Dtype = "float32"
    """Precision of the LLM's weights and activations; sums are float32."""


@dataclass(frozen=True, kw_only=True)
class Grads(Devices):
    """One gradient norm per example: float32 [n], in the order of the file."""

    data: Path
    """Alpaca records, JSON or JSONL."""
    model: Path
    """LLM: a Hugging Face folder or a .gguf file."""
    out: Path
    """The .npy file to write."""
    adapter: Path | None = None
    """PEFT folder of a LoRA adapter; a fresh one (r 8, alpha 16) when left out."""
    which: Which = "last_v_lora_b"
    """Gradient with respect to lora_B of the last v_proj, or to all of LoRA."""
    labels: LabelMode = "all"
    """Tokens in the loss: prompt and answer, or the answer alone."""
    dtype: Dtype = "float32"
    """Precision of the LLM's weights and activations; norms are float32."""
    losses: Path | None = None
    """Also write the loss of each example, float32 [n] .npy, from the same pass."""
    errors: Path | None = None
    """Also write its prediction error (EL2N: mean over the scored tokens of the length
    of softmax minus one-hot), float32 [n] .npy, from the same pass."""
    projections: Path | None = None
    """Also write each gradient, randomly projected: [n, projection-dim] .npy, from the
    same pass; inner products are kept on average."""
    projection_dim: int = 1024
    """Numbers to keep of a gradient."""
    projection_dtype: Literal["float32", "float16"] = "float32"
    """Type of these numbers."""


@dataclass(frozen=True, kw_only=True)
class Select(Settings):
    """Choose the n examples to fine-tune on.

    From texts: --train, --valid and --model (or, with --lambda 0, --encoder alone).
    From arrays: --train-embeddings, --valid-embeddings and, for lambda > 0,
    --grad-norms; with --train beside them, coreset.jsonl is written too.
    Several budgets or lambdas: each pair gets its own folder in --out, as
    budget-64-lambda-0.1, and a summary stands beside them.
    """

    budget: Budgets
    """n, the number of examples to choose; several with commas."""
    out: Path
    """Folder for indices.npy, coreset.jsonl, scores.npz, manifest.json, report.png."""
    lambda_: Lambdas = None
    """Weight of the gradient term (0.1; without gradient norms, 0); several with
    commas."""
    method: str = "goracs"
    """goracs; to compare with: greedy, itra (the paper's single swaps), random,
    stratified, k-center, k-means, herding, nearest, grad-norm or error."""
    solver: Literal["auto", "exact", "sinkhorn"] = "auto"
    """Transport inside the search; auto: exact on CPUs and unless very large. What is
    reported is exact."""
    train: Path | None = None
    """Training pool: Alpaca records, JSON or JSONL."""
    valid: Path | None = None
    """Validation examples: Alpaca records, JSON or JSONL."""
    model: Path | None = None
    """LLM for gradient norms, and for embeddings where no encoder is given."""
    encoder: Path | None = None
    """Sentence encoder for embeddings: a BERT, RoBERTa or MPNet folder."""
    adapter: Path | None = None
    """PEFT folder of a LoRA adapter; a fresh one (r 8, alpha 16) when left out."""
    labels: LabelMode = "all"
    """all: prompt and answer are trained on and embedded (SeqRec). answer: the loss
    sees the answer alone and the prompt alone is embedded (CTR)."""
    dtype: Dtype = "float32"
    """Precision of the LLM's weights and activations; sums and norms are float32."""
    duplicates: Literal["refuse", "keep"] = "refuse"
    """What to do with training examples that repeat another's texts."""
    train_embeddings: Path | None = None
    """x, .npy of floats [N, dim]."""
    valid_embeddings: Path | None = None
    """y, .npy of floats [M, dim]."""
    grad_norms: Path | None = None
    """g, .npy of floats [N]."""
    errors: Path | None = None
    """Prediction error of each training example, .npy of floats [N]: what --method
    error ranks by; from texts, by default the LLM's (EL2N)."""
    by_label: bool = False
    """Label-aware: every output is a class (Yes, No), the method runs inside each, and
    budgets follow the classes' shares of validation."""
    train_labels: Path | None = None
    """Label-aware: classes of the training rows, .npy of integers or strings [N]."""
    valid_labels: Path | None = None
    """The classes of the validation rows, likewise [M]."""


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """How an adapter is trained; the defaults are those of the paper for both tasks."""

    model: Path
    """LLM: a Hugging Face folder or a .gguf file."""
    valid: Path
    """Validation examples, whose loss stops training: Alpaca records, JSON or JSONL."""
    task: Task = "seqrec"
    """seqrec: 50 epochs, learning rate 1e-4, loss of prompt and answer. ctr: 200
    epochs, 1e-5, loss of the answer. The three flags below replace these."""
    epochs: int | None = None
    """Most passes over the training examples."""
    learning_rate: float | None = None
    """The largest, after the warm-up; from there it falls to 0 on a line."""
    labels: LabelMode | None = None
    """Tokens in the loss: all of prompt and answer, or the answer alone."""
    adapter: Path | None = None
    """PEFT folder to start from, with its rank, alpha and targets; fresh otherwise."""
    r: int = 8
    """Rank of a fresh adapter."""
    alpha: float = 16.0
    """A fresh adapter's update is scaled by alpha / r."""
    targets: Names = ("q_proj", "v_proj")
    """Linear layers that get a fresh adapter: q_proj, k_proj, v_proj, o_proj,
    gate_proj, up_proj, down_proj."""
    dropout: float = 0.05
    """Share of an adapter's inputs that are zero in training."""
    batch_size: int = 128
    """Examples of one step."""
    warmup_steps: int = 20
    """Steps until the largest learning rate; the first has learning rate 0."""
    patience: int = 5
    """Validations without a new least loss after which training stops."""
    valid_every: int = 1
    """Epochs from one validation to the next."""
    weight_decay: float = 0.0
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled to this norm."""
    dtype: Dtype = "float32"
    """Of the frozen weights and activations; adapters, sums and scores are float32."""
    micro_batch_tokens: int = 2048
    """Padded tokens at one time: memory and speed, not the result."""


@dataclass(frozen=True, kw_only=True)
class Finetune(Training):
    """Train a LoRA adapter: AdamW, warm-up, early stopping; the best one is kept.

    The loss of a step is the mean over all scored tokens of its batch. --out becomes a
    PEFT folder. The defaults are those of the paper for both tasks.
    """

    data: Path
    """Training examples (a coreset): Alpaca records, JSON or JSONL."""
    out: Path
    """Folder for adapter_config.json, adapter_model.safetensors, metrics.jsonl and
    manifest.json."""
    tensorboard: bool = False
    """Write event files to --out/tensorboard too: needs goracs_jax[tensorboard]."""


@dataclass(frozen=True, kw_only=True)
class Merge(Settings):
    """Merge an adapter into its model: a plain Hugging Face folder."""

    model: Path
    """LLM: a Hugging Face folder or a .gguf file."""
    adapter: Path
    """PEFT folder of a LoRA adapter of this model."""
    out: Path
    """Folder for config.json, safetensors and the tokenizer."""
    dtype: Dtype = "float32"
    """Of the weights that are written; bfloat16 halves the files and rounds."""


@dataclass(frozen=True, kw_only=True)
class Judging(Settings):
    """How a model is judged on test examples."""

    test: Path
    """Test examples as goracs prepare writes them, JSON or JSONL."""
    items: Path | None = None
    """seqrec: items.jsonl (item_id, title); the one beside --test when left out."""
    rank_by: Literal["both", "generation", "likelihood"] = "both"
    """seqrec: which rankings; likelihood needs no generation."""
    beams: int = 2
    """seqrec: texts that beam search follows at one time."""
    max_new_tokens: int = 128
    """seqrec: most tokens of a generated title."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Judging):
    """How good a fine-tuned model is: AUC, or HR and NDCG, with 95 % intervals.

    ctr: the probability of Yes against No. seqrec: each target is ranked among its
    negatives, by the distance of titles to a generated one (and among all items), and
    by the likelihood of its title, per token and in total. Of several examples of one
    `user` the interval knows that they are not independent.
    """

    task: Task
    """seqrec: next items. ctr: Yes or No."""
    model: Path
    """LLM: a Hugging Face folder or a .gguf file."""
    out: Path
    """The .json file of metrics to write; predictions.jsonl goes beside it."""
    adapter: Path | None = None
    """PEFT folder of the LoRA adapter; the model as it is when left out."""
    resamples: int = 1000
    """Bootstrap resamples of the intervals."""
    dtype: Dtype = "float32"
    """Of the weights and activations; scores are float32."""


@dataclass(frozen=True, kw_only=True)
class Compare(Training, Judging):
    """Which selection fine-tunes the best model, and at what cost.

    A cell is one method, budget, lambda and seed: select, finetune, evaluate. Cells are
    stored in --out/cells under the hash of all that they depend on: one that is done is
    not done again, whatever else is compared later and wherever the folder is copied.
    Embeddings and gradient norms are computed once.
    """

    methods: Names
    """Names as in `select --method`, and full: all of --train; with commas."""
    budgets: Budgets
    """Values of n, with commas."""
    train: Path
    """Training pool: Alpaca records, JSON or JSONL."""
    out: Path
    """Folder for table.md, table.csv, comparison.json, comparison.png and the cells."""
    encoder: Path | None = None
    """Sentence encoder for embeddings: a BERT, RoBERTa or MPNet folder."""
    lambdas: Annotated[tuple[float, ...] | None, _listed(float, "FLOAT")] = None
    """Weights of the gradient term (0.1), for goracs, greedy and itra; with commas.
    Of several, the least mean validation loss chooses."""
    seeds: int = 3
    """How many seeds, from --seed on; gradient norms are those of the first."""
    full_seeds: int = 1
    """How many of them for full, which costs most."""
    duplicates: Literal["refuse", "keep"] = "refuse"
    """What to do with training examples that repeat another's texts."""


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
