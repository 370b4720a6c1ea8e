"""Settings of the verbs that score examples: embeddings and gradient norms."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from goracs_jax.choices import Scored, Which
from goracs_jax.settings.common import (
    BY_FORM,
    Backward,
    Hub,
    Machine,
    Processes,
    Records,
    Settings,
)
from goracs_jax.settings.outputs import ArrayOut, MoreOut


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
