"""Sizes of the models and the differences between their families."""

from dataclasses import dataclass
from typing import Any, Literal

from goracs_jax.errors import InputError
from goracs_jax.models.rope import RopeConfig

Pooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """A mixture of experts in place of each MLP.

    Args:
        experts: Number of experts, each an MLP of its own.
        active: Number of experts that a token goes through.
        normalised: Whether the weights of a token's experts are divided by their sum.
        block: Name of the mixture in a checkpoint, within a layer.
        parts: Names there of an expert's gate_proj, up_proj and down_proj.

    Raises:
        InputError: There are fewer experts than a token goes through.
    """

    experts: int
    active: int
    normalised: bool = True
    block: str = "mlp"
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")

    def __post_init__(self):
        if self.active > self.experts:
            raise InputError(
                f"num_experts_per_tok is {self.active}, but there are {self.experts} "
                "experts: take the file that was published with the weights."
            )


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a Llama-family decoder; the defaults are those of Llama.

    Args:
        vocab_size: Number of token ids, which is the number of rows of the embedding.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the MLP, or of each expert.
        num_layers: Number of layers.
        num_heads: Number of query heads.
        num_kv_heads: Number of key and value heads, a divisor of `num_heads`.
        head_dim: Width of a head.
        max_positions: Largest number of tokens in a sequence.
        norm_eps: Epsilon of the norms.
        tie_embeddings: Whether the output head is the embedding.
        rope: Rotation of queries and keys.
        activation: Activation function of the MLP's gate.
        biases: Names of the linear layers that have a bias.
        qk_norm: Whether queries and keys are normalised, head by head.
        wide_qk_norm: Whether they are normalised over all heads together instead.
        norm_offset: Number added to the weights of the norms.
        pre_norms: Whether the inputs of attention and MLP are normalised.
        post_norms: Whether the outputs of attention and MLP are normalised before they
            are added to the residual stream.
        embed_scale: Factor of the token embeddings.
        residual_scale: Factor of what attention and MLP add to the residual stream.
        attention_scale: Factor of the attention scores; None stands for head_dim^-1/2.
        attention_softcap: Soft cap of the attention scores; None means no cap.
        logit_softcap: Soft cap of the logits; None means no cap.
        hidden_scale: Factor of the final hidden states, and so of the logits.
        sliding: Whether each layer sees only the last `window` tokens; empty if no
            layer does.
        window: Number of tokens that a sliding layer sees, the token itself included.
        sliding_rope: Rotation in sliding layers; None means `rope`.
        no_rope: Whether each layer has no rotation; empty if all have one.
        fused: Whether a checkpoint stores q_proj, k_proj and v_proj as one matrix, and
            gate_proj and up_proj as another one.
        mixture: The mixture of experts that each layer has; None means one MLP.

    Raises:
        InputError: The length of `sliding` or `no_rope` is neither 0 nor the number of
            layers, or what is rotated of a head cannot be halved.

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
    wide_qk_norm: bool = False
    norm_offset: float = 0.0
    pre_norms: bool = True
    post_norms: bool = False
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    hidden_scale: float = 1.0
    sliding: tuple[bool, ...] = ()
    window: int | None = None
    sliding_rope: RopeConfig | None = None
    no_rope: tuple[bool, ...] = ()
    fused: bool = False
    mixture: MixtureConfig | None = None

    def __post_init__(self):
        for name in ("sliding", "no_rope"):
            if (count := len(getattr(self, name))) not in (0, self.num_layers):
                raise InputError(
                    f"{name} must name {self.num_layers} layers, got {count}: "
                    "correct it."
                )
        if self.head_dim % 2:
            raise InputError(
                f"the width of a head must be even, got {self.head_dim}: correct it."
            )
        if (rotated := int(self.head_dim * self.rope.share)) % 2 or not rotated:
            raise InputError(
                "what is rotated of a head must be even and not empty, got "
                f"{rotated} of {self.head_dim}: correct partial_rotary_factor."
            )

    @property
    def query_scale(self) -> float:
        """The factor of the attention scores."""
        return self.attention_scale or self.head_dim**-0.5

    @property
    def mlp_weights(self) -> int:
        """The weights of a layer's MLP that a token meets: its experts, and the router.

        >>> DecoderConfig.tiny(mixture=MixtureConfig(experts=5, active=2)).mlp_weights
        9376
        """
        one = 3 * self.hidden_size * self.intermediate_size
        if self.mixture is None:
            return one
        return self.mixture.active * one + self.mixture.experts * self.hidden_size

    @classmethod
    def tiny(cls, **changes: Any) -> "DecoderConfig":
        """Return the sizes of a model with some thousand weights, for tests.

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
    """Sizes of a BERT-like encoder, and how it makes one vector of a text.

    `first_position` is 0 for BERT. It is padding_idx + 1 for RoBERTa and MPNet, whose
    position tables start with unused rows. MPNet has no token types (`num_types` is 0)
    and adds to the attention scores of each head a bias that depends on the distance of
    two tokens, of which there are `relative_buckets` classes.
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
