"""Settings of the verbs that score and select."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from goracs_jax.llm.gradients import Which
from goracs_jax.llm.tokens import LabelMode
from goracs_jax.settings.common import Budgets, Devices, Dtype, Lambdas, Settings


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
    budgets follow the classes' shares of validation. Beside embeddings, the outputs of
    --train and --valid."""
    train_labels: Path | None = None
    """Label-aware: classes of the training rows, .npy of integers or strings [N]."""
    valid_labels: Path | None = None
    """The classes of the validation rows, likewise [M]."""
