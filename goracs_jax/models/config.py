"""Sizes of the models, read from config.json or GGUF metadata.

Raw metadata is read instead of a library's config class: libraries fill what is
missing with defaults, and a wrong default loads without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from goracs_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a Llama-family decoder.

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
    rope_theta: float
    norm_eps: float
    tie_embeddings: bool

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
            "rope_theta": 10000.0,
            "norm_eps": 1e-5,
            "tie_embeddings": True,
        }
        return cls(**(sizes | changes))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str) -> "DecoderConfig":
        """Reads a Hugging Face config.json.

        Args:
            raw: The parsed file.
            where: Its path, for messages.

        Returns:
            The sizes.

        Raises:
            InputError: If the architecture, activation, rope type or a bias is not
                supported, or a field is missing.
        """
        field = _Fields(raw, where)
        field.only("model_type", {"llama"})
        field.only("architectures", {"LlamaForCausalLM"}, default=["LlamaForCausalLM"])
        field.only("hidden_act", {"silu"})
        field.only("attention_bias", {False}, default=False)
        field.only("mlp_bias", {False}, default=False)
        num_heads = field("num_attention_heads", int)
        num_kv_heads = field("num_key_value_heads", int, default=num_heads)
        field.divides("num_key_value_heads", num_kv_heads, num_heads)
        hidden_size = field("hidden_size", int)
        return cls(
            vocab_size=field("vocab_size", int),
            hidden_size=hidden_size,
            intermediate_size=field("intermediate_size", int),
            num_layers=field("num_hidden_layers", int),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=field("head_dim", int, default=hidden_size // num_heads),
            max_positions=field("max_position_embeddings", int),
            rope_theta=_rope_theta(raw, where),
            norm_eps=field("rms_norm_eps", float),
            tie_embeddings=field("tie_word_embeddings", bool, default=False),
        )

    @classmethod
    def from_gguf(
        cls, raw: Mapping[str, Any], where: str, *, vocab_size: int, tied: bool
    ) -> "DecoderConfig":
        """Reads the metadata of a GGUF file.

        Args:
            raw: Metadata, key to value.
            where: Path of the file, for messages.
            vocab_size: Rows of the embedding: files may lack the number.
            tied: Whether the file has no output head of its own.

        Returns:
            The sizes.

        Raises:
            InputError: If the architecture or rope type is not supported, or a key is
                missing.
        """
        field = _Fields(raw, where)
        field.only("general.architecture", {"llama"})
        field.only("llama.rope.scaling.type", {"none"}, default="none")
        field.only("llama.expert_count", {0}, default=0)
        num_heads = field("llama.attention.head_count", int)
        num_kv_heads = field("llama.attention.head_count_kv", int, default=num_heads)
        field.divides("llama.attention.head_count_kv", num_kv_heads, num_heads)
        hidden_size = field("llama.embedding_length", int)
        head_dim = field(
            "llama.attention.key_length", int, default=hidden_size // num_heads
        )
        field.only("llama.rope.dimension_count", {head_dim}, default=head_dim)
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=field("llama.feed_forward_length", int),
            num_layers=field("llama.block_count", int),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            max_positions=field("llama.context_length", int),
            rope_theta=field("llama.rope.freq_base", float, default=10000.0),
            norm_eps=field("llama.attention.layer_norm_rms_epsilon", float),
            tie_embeddings=tied,
        )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of a BERT or RoBERTa encoder and how a text becomes one vector.

    `first_position` is 0 for BERT and padding_idx + 1 for RoBERTa, whose position
    table starts with rows that are never used.
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
    pooling: Literal["mean", "cls"]
    normalize: bool
    lowercase: bool
    max_tokens: int

    @classmethod
    def from_hf(
        cls,
        raw: Mapping[str, Any],
        where: str,
        *,
        pooling: Literal["mean", "cls"] = "mean",
        normalize: bool = False,
        lowercase: bool = False,
        max_tokens: int | None = None,
    ) -> "EncoderConfig":
        """Reads a Hugging Face config.json.

        Args:
            raw: The parsed file.
            where: Its path, for messages.
            pooling: Mean over the tokens, or the first token.
            normalize: Whether vectors are scaled to length 1.
            lowercase: Whether texts are lower-cased before the tokenizer.
            max_tokens: Longer texts are cut; by default as many as there are positions.

        Returns:
            The configuration.

        Raises:
            InputError: If the model type, activation or position embedding is not
                supported, or a field is missing.
        """
        field = _Fields(raw, where)
        model_type = field.only("model_type", {"bert", "roberta"})
        field.only("position_embedding_type", {"absolute"}, default="absolute")
        field.only("is_decoder", {False}, default=False)
        act = field.only("hidden_act", {"gelu", "gelu_new", "gelu_pytorch_tanh"})
        num_positions = field("max_position_embeddings", int)
        first = 0
        if model_type == "roberta":
            first = field("pad_token_id", int, default=1, positive=False) + 1
        return cls(
            vocab_size=field("vocab_size", int),
            hidden_size=field("hidden_size", int),
            intermediate_size=field("intermediate_size", int),
            num_layers=field("num_hidden_layers", int),
            num_heads=field("num_attention_heads", int),
            num_positions=num_positions,
            first_position=first,
            num_types=field("type_vocab_size", int),
            norm_eps=field("layer_norm_eps", float),
            gelu="exact" if act == "gelu" else "tanh",
            pooling=pooling,
            normalize=normalize,
            lowercase=lowercase,
            max_tokens=min(max_tokens or num_positions, num_positions - first),
        )


class _Fields:
    """Typed reads of a raw dictionary with messages that name file and field."""

    def __init__(self, raw: Mapping[str, Any], where: str):
        self.raw, self.where = raw, where

    def __call__(
        self, name: str, kind: type, default: Any = None, *, positive: bool = True
    ) -> Any:
        value = self.raw.get(name)
        value = default if value is None else value
        if value is None:
            raise InputError(
                f"{self.where}: field {name!r} is missing: take the file that was "
                "published with the weights."
            )
        # JSON writes 10000.0 as 10000; True is an int for Python, not for us.
        numeric = isinstance(value, int) and not isinstance(value, bool)
        if kind is float and numeric:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and not numeric):
            raise InputError(
                f"{self.where}: field {name!r} must be {kind.__name__}, got {value!r}."
            )
        if kind is not bool and (value < 0 or (value == 0 and positive)):
            raise InputError(
                f"{self.where}: field {name!r} must be positive, got {value!r}."
            )
        return value

    def divides(self, name: str, part: int, whole: int):
        if whole % part:
            raise InputError(
                f"{self.where}: {name} {part} must divide the {whole} attention heads: "
                "take the file that was published with the weights."
            )

    def only(self, name: str, supported: set, default: Any = None) -> Any:
        value = self.raw.get(name)
        value = default if value is None else value
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list | dict) or value not in supported:
            names = ", ".join(sorted(map(str, supported)))
            raise InputError(
                f"{self.where}: {name} {value!r} is not supported: use a model "
                f"with {name} {names}."
            )
        return value


def _rope_theta(raw: Mapping[str, Any], where: str) -> float:
    """The base of the rotary angles in either spelling.

    transformers 5 moved `rope_theta` into `rope_parameters`; before it, scaling stood
    in `rope_scaling` (with `type` or `rope_type`). Only unscaled positions are known.
    """
    rope: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        part = raw.get(name) or {}
        if not isinstance(part, Mapping):
            raise InputError(f"{where}: field {name!r} must be an object: {part!r}.")
        rope |= part
    fields = _Fields(
        {
            "rope_type": rope.get("rope_type", rope.get("type")),
            "partial_rotary_factor": rope.get(
                "partial_rotary_factor", raw.get("partial_rotary_factor")
            ),
            "rope_theta": rope.get("rope_theta", raw.get("rope_theta")),
        },
        where,
    )
    fields.only("rope_type", {"default"}, default="default")
    fields.only("partial_rotary_factor", {1.0}, default=1.0)
    # Llama's own value, and what every reader of an old config.json assumes.
    return fields("rope_theta", float, default=10000.0)
