"""Settings of the verbs that train and evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from goracs_jax.llm.prompts import Task
from goracs_jax.llm.tokens import LabelMode
from goracs_jax.settings.common import Budgets, Dtype, Names, Settings, listed


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

    ctr: the probability of Yes against No, and the log likelihood of the right one
    (minus it is the log loss). seqrec: each target is ranked among its
    negatives, by the distance of titles to a generated one (and among all items), and
    by the likelihood of its title, per token and in total; and the log likelihood of
    the right title, per token. Of several examples of one `user` the interval knows
    that they are not independent.
    """

    task: Task
    """seqrec: next items. ctr: Yes or No."""
    model: Path
    """LLM: a Hugging Face folder or a .gguf file."""
    out: Path
    """The .json file of metrics to write; beside m.json goes m.predictions.jsonl."""
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
    """Names as in `select --method`, and full: all of --train; with commas. As in
    goracs:by-label, any but full inside every class: see `select --by-label`."""
    budgets: Budgets
    """Values of n, with commas."""
    train: Path
    """Training pool: Alpaca records, JSON or JSONL."""
    out: Path
    """Folder for table.md, table.csv, comparison.json, comparison.png and the cells."""
    encoder: Path | None = None
    """Sentence encoder for embeddings: a BERT, RoBERTa or MPNet folder."""
    lambdas: Annotated[tuple[float, ...] | None, listed(float, "FLOAT")] = None
    """Weights of the gradient term (0.1), for goracs, greedy and itra; with commas.
    Of several, the least mean validation loss chooses."""
    seeds: int = 3
    """How many seeds, from --seed on; gradient norms are those of the first."""
    full_seeds: int = 1
    """How many of them for full, which costs most."""
    duplicates: Literal["refuse", "keep"] = "refuse"
    """What to do with training examples that repeat another's texts."""
    finished: bool = False
    """The table of the cells that are done, without doing the rest."""
