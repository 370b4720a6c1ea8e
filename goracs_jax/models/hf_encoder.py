"""Read the configuration of a sentence encoder from a Hugging Face config.json."""

from collections.abc import Mapping
from typing import Any

from goracs_jax.errors import InputError
from goracs_jax.models.config import EncoderConfig, Pooling
from goracs_jax.models.fields import MOST_LAYERS, Fields
from goracs_jax.models.hf_fields import harmless


def read_encoder_config(
    raw: Mapping[str, Any],
    where: str,
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    lowercase: bool = False,
    max_tokens: int | None = None,
) -> EncoderConfig:
    """Read the config.json of a BERT, RoBERTa or MPNet encoder.

    Args:
        raw: The parsed file.
        where: Path of the file, for messages.
        pooling: Whether a text's vector is the mean or the maximum over its tokens, or
            the hidden state of its first token.
        normalize: Whether vectors are scaled to length 1.
        lowercase: Whether texts are lower-cased before they are tokenized.
        max_tokens: Longer texts are cut to this number of tokens; None means the number
            of positions.

    Returns:
        The configuration.

    Raises:
        InputError: The model type, activation or position embedding is not supported,
            or a field is missing or unknown.
    """
    field = Fields(raw, where)
    model_type = field.only("model_type", {"bert", "roberta", "xlm-roberta", "mpnet"})
    field.ignore("architectures")  # they differ in the head, which is not used
    field.only("position_embedding_type", {"absolute"}, default="absolute")
    field.only("is_decoder", {False}, default=False)
    act = field.only("hidden_act", {"gelu", "gelu_new", "gelu_pytorch_tanh"})
    num_positions = field("max_position_embeddings", int)
    num_heads, hidden_size = (
        field("num_attention_heads", int),
        field("hidden_size", int),
    )
    field.divides("num_attention_heads", num_heads, hidden_size, "of hidden_size")
    first, buckets = 0, 0
    if model_type in ("roberta", "xlm-roberta"):
        first = field("pad_token_id", int, default=1, positive=False) + 1
    if model_type == "mpnet":
        # transformers uses these two numbers, whatever the file says.
        first, buckets = 2, field.only("relative_attention_num_buckets", {32})
    if num_positions <= first:
        raise InputError(
            f"{where}: field 'max_position_embeddings' must be more than {first}, the "
            f"positions that are not used, got {num_positions}: take the file that was "
            "published with the weights."
        )
    config = EncoderConfig(
        vocab_size=field("vocab_size", int),
        hidden_size=hidden_size,
        intermediate_size=field("intermediate_size", int),
        num_layers=field("num_hidden_layers", int, most=MOST_LAYERS),
        num_heads=num_heads,
        num_positions=num_positions,
        first_position=first,
        num_types=0 if model_type == "mpnet" else field("type_vocab_size", int),
        norm_eps=field("layer_norm_eps", float),
        gelu="exact" if act == "gelu" else "tanh",
        pooling=pooling,
        normalize=normalize,
        lowercase=lowercase,
        max_tokens=min(max_tokens or num_positions, num_positions - first),
        relative_buckets=buckets,
    )
    harmless(field)
    return config
