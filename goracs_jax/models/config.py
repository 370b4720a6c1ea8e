"""Sizes of the models and what differs between their families."""

from dataclasses import dataclass
from typing import Any, Literal

from goracs_jax.models.rope import RopeConfig

Pooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a Llama-family decoder; the defaults are Llama's own choices.

    Args:
        vocab_size: Rows of the embedding.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the MLP.
        num_layers: Layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads, a divisor of `num_heads`.
        head_dim: Width of a head.
        max_positions: Tokens of the longest sequence.
        norm_eps: Epsilon of the norms.
        tie_embeddings: Whether the output head is the embedding.
        rope: Rotation of queries and keys.
        activation: Of the MLP's gate.
        biases: Names of the linear layers that have a bias.
        qk_norm: Whether queries and keys are normalised, head by head.
        norm_offset: Norms multiply by offset + w.
        post_norms: Whether what a layer adds is normalised before it is added.
        embed_scale: Factor of the embedded tokens.
        attention_scale: Factor of the scores; None stands for head_dim^-1/2.
        attention_softcap: Cap of the scores.
        logit_softcap: Cap of the logits.
        sliding: For each layer, whether it sees the last `window` tokens only; empty
            if none does.
        window: Tokens that a sliding layer sees, the token itself among them.
        sliding_rope: Rotation in sliding layers, if it is another one.

    >>> DecoderConfig.tiny().head_dim
    8
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    tie_embeddings: bool
    rope: RopeConfig
    activation: Literal["silu", "gelu_tanh"] = "silu"
    biases: tuple[str, ...] = ()
    qk_norm: bool = False
    norm_offset: float = 0.0
    post_norms: bool = False
    embed_scale: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    sliding: tuple[bool, ...] = ()
    window: int | None = None
    sliding_rope: RopeConfig | None = None

    @property
    def query_scale(self) -> float:
        """The factor of the attention scores."""
        return self.attention_scale or self.head_dim**-0.5

    @classmethod
    def tiny(cls, **changes: Any) -> "DecoderConfig":
        """A model of some thousand weights for examples and tests.

        >>> DecoderConfig.tiny(num_layers=3).num_layers
        3
        """
        sizes = {
            "vocab_size": 96,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 8,
            "max_positions": 64,
            "norm_eps": 1e-5,
            "tie_embeddings": True,
            "rope": RopeConfig(theta=10000.0),
        }
        return cls(**(sizes | changes))


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of a BERT-like encoder and how a text becomes one vector.

    `first_position` is 0 for BERT and padding_idx + 1 for RoBERTa and MPNet, whose
    position tables start with rows that are never used. MPNet has no token types
    (`num_types` 0) and adds a bias per head for each of `relative_buckets` distances.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_positions: int
    first_position: int
    num_types: int
    norm_eps: float
    gelu: Literal["exact", "tanh"]
    pooling: Pooling
    normalize: bool
    lowercase: bool
    max_tokens: int
    relative_buckets: int = 0
