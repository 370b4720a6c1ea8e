"""Settings of the verbs that train and evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from goracs_jax.choices import Dtype, Keep, Scored, Task
from goracs_jax.settings.common import (
    Backward,
    Hub,
    Machine,
    Names,
    Processes,
    Reading,
    Records,
    Settings,
)
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.outputs import AdapterOut, MetricsOut, ModelOut

_by_task = lambda seqrec, ctr: Flag(default=f"{seqrec} for seqrec, {ctr} for ctr")


@dataclass(frozen=True, kw_only=True)
class _Adapter:
    """The LoRA adapter that is trained."""

    group: ClassVar[str] = "adapter"

    adapter: Path | None = None
    """PEFT folder to start from, with its own rank, alpha and targets; without it
    training starts from a fresh adapter."""
    r: int = 8
    """Rank of a fresh adapter."""
    alpha: float = 16.0
    """Scale of a fresh adapter: its update is multiplied by alpha / r."""
    targets: Names = ("q_proj", "v_proj")
    """Linear layers that get a fresh adapter, with commas between them, from q_proj,
    k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj."""
    layers: Annotated[
        str | None, Flag(default="all of the model", metavar="last:K")
    ] = None
    """Layers that get a fresh adapter: the last K. What the layers below them make of
    the texts is then computed once and kept on the disk, which makes training
    faster."""
    dropout: float = 0.05
    """Probability that training sets an input of the adapter to zero."""


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """The memory of a training."""

    group: ClassVar[str] = "machine"

    micro_batch_tokens: Annotated[
        int | None,
        Flag(default="--tokens-per-batch; else 2048 on CPUs, or what fits"),
    ] = None
    """Padded tokens that a device trains on at one time, which changes memory and speed
    but not the result."""


@dataclass(frozen=True, kw_only=True)
class Training(_Adapter, _Memory, Reading, Backward, Machine, Hub):
    """How an adapter is trained; the defaults are those of the paper for both tasks."""

    group: ClassVar[str] = "training"

    model: Path
    """LLM: a Hugging Face folder, a .gguf file, or organisation/model on the hub."""
    valid: Path
    """Validation examples, whose loss is reported, and decides what is kept by --keep
    best: Alpaca records or chats as JSON, JSONL, CSV, Parquet or Arrow."""
    task: Task = "seqrec"
    """Sequential recommendation (seqrec) or click-through rate (ctr); the task decides
    the defaults of --epochs, --learning-rate and --labels."""
    epochs: Annotated[int | None, _by_task(50, 200)] = None
    """Number of passes over the training examples, the most of them with --keep
    best."""
    steps: int | None = None
    """Number of optimiser steps, in place of --epochs: over the training examples as
    often as it takes."""
    keep: Annotated[Keep | None, Flag(default="best, or last with --steps")] = None
    """Adapters to keep: those of the lowest validation loss (best), which stops by
    --patience; those of the last step (last); or their mean over the last tenth of the
    steps (average)."""
    learning_rate: Annotated[float | None, _by_task("1e-4", "1e-5")] = None
    """Learning rate at the end of the warm-up, from where it decays linearly to 0."""
    labels: Annotated[Scored | None, _by_task("all", "answer")] = None
    """Tokens that the loss scores: prompt and answer (all), or the answer alone; of
    chats, the assistant's turns, whatever the task."""
    batch_size: int = 128
    """Number of examples of one optimiser step."""
    warmup_steps: int = 20
    """Number of steps in which the learning rate rises linearly from 0."""
    patience: Annotated[int | None, Flag(default="5 with --keep best")] = None
    """Number of validations in a row without a lower loss after which training with
    --keep best stops."""
    valid_every: Annotated[
        int | None, Flag(default="1 with --keep best, else after the last step alone")
    ] = None
    """Number of epochs from one validation to the next."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Norm to which longer gradients are clipped."""


@dataclass(frozen=True, kw_only=True)
class _Events:
    """Records of a training for other programs."""

    group: ClassVar[str] = "output"

    tensorboard: bool = False
    """Write event files to --out/tensorboard too, which needs
    goracs_jax[tensorboard]."""


@dataclass(frozen=True, kw_only=True)
class Finetune(Training, Records, _Events, Processes, Settings):
    """Train a LoRA adapter with AdamW and warm-up; the best, last or average is kept.

    The loss of a step is the mean over all scored tokens of its batch. --out becomes a
    PEFT folder. The defaults are those of the paper for both tasks.
    """

    data: Path
    """Training examples, such as a coreset: Alpaca records or chats as JSON, CSV or
    Parquet."""
    out: AdapterOut
    """Folder for adapter_config.json, adapter_model.safetensors, metrics.jsonl and
    manifest.json."""


@dataclass(frozen=True, kw_only=True)
class Merge(Hub, Settings):
    """Merge an adapter into its model: the result is a plain Hugging Face folder."""

    group: ClassVar[str] = "output"

    model: Path
    """LLM: a Hugging Face folder, a .gguf file, or organisation/model on the hub."""
    adapter: Path
    """PEFT folder of a LoRA adapter of this model."""
    out: ModelOut
    """Folder for config.json, safetensors and the tokenizer."""
    dtype: Dtype = "float32"
    """Type of the weights that are written; bfloat16 halves the files and rounds."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a model is judged on test examples."""

    group: ClassVar[str] = "evaluation"

    test: Path
    """Test examples as goracs prepare writes them."""
    items: Annotated[Path | None, Flag(default="items.jsonl beside --test")] = None
    """File of all items (item_id, title, interactions, mean_rating), used for seqrec
    and for what goracs compare says is reached without a model."""
    rank_by: Literal["both", "generation", "likelihood"] = "both"
    """Ranking of the items for seqrec: by the distance of their titles to a generated
    one, by the likelihood of their titles, which generates nothing, or both."""
    beams: int = 2
    """Number of beams that generate a title for seqrec."""
    max_new_tokens: int = 128
    """Largest number of tokens of a title that is generated for seqrec."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """The model that is judged."""

    group: ClassVar[str] = "model"

    adapter: Path | None = None
    """PEFT folder of a LoRA adapter; without it the model is evaluated as it is."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Judging, _Judged, Records, Machine, Hub, Processes, Settings):
    """Measure how good a fine-tuned model is, with 95 % intervals.

    For ctr: AUC of the probability of Yes against No, and the log likelihood of the
    right answer (its negative is the log loss), as it is and calibrated: two numbers a
    and b turn the margin z = z_yes - z_no into a z + b. For seqrec: the log likelihood
    of the right title, in total and per token; HR and NDCG, where each target is ranked
    among its negatives by the distance of titles to a generated one (and among all
    items), and by the likelihood of its title, per token and in total; the share of
    items that are ever among the ten first (coverage), and that of the long tail among
    them. Examples of the same `user` are not independent, and the intervals take this
    into account.
    """

    group: ClassVar[str] = "evaluation"

    task: Task
    """Sequential recommendation (seqrec: name the next title), or click-through rate
    (ctr: answer Yes or No)."""
    model: Path
    """LLM: a Hugging Face folder, a .gguf file, or organisation/model on the hub."""
    out: MetricsOut
    """The .json file of metrics to write; m.predictions.jsonl is written beside
    m.json."""
    calibrate_on: Annotated[
        Path | None, Flag(default="one half of the test users, for the other half")
    ] = None
    """Examples that the two numbers of the calibration are fitted on, for ctr: others
    than those of --test."""
    resamples: int = 1000
    """Number of bootstrap resamples of the intervals."""
