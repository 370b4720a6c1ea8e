"""Read model configurations from the metadata of a GGUF file, as llama.cpp does."""

from collections.abc import Mapping
from typing import Any

from goracs_jax.errors import InputError, located
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.fields import MOST_LAYERS, WIDEST_HEAD, Fields
from goracs_jax.models.rope import RopeConfig

# From our names of the linear layers to those of GGUF.
LINEAR = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
HARMLESS = ("vocab_size", "rope.scaling.original_context_length")
HARMLESS += ("rope.scaling.finetuned", "tensor_data_layout")


def read_gguf_config(
    raw: Mapping[str, Any],
    where: str,
    shapes: Mapping[str, tuple[int, ...]],
    rope_divisors: tuple[float, ...] | None = None,
) -> DecoderConfig:
    """Read the metadata of a language model.

    Args:
        raw: The metadata.
        where: Path of the file, for messages.
        shapes: Shapes of the file's tensors. They give the size of the vocabulary, the
            layers that have a bias, and whether the output head is the embedding.
        rope_divisors: The tensor "rope_freqs.weight", which contains Llama 3's scaling.

    Returns:
        The configuration.

    Raises:
        InputError: The architecture or RoPE type is not supported, or a key is missing
            or unknown.
    """
    arch = Fields(raw, where).only("general.architecture", ARCHITECTURES)
    field = Fields(raw, where, prefix=f"{arch}.")
    for name in ("expert_count", "expert_used_count"):
        field.only(name, {0}, default=0)
    num_heads = field("attention.head_count", int)
    num_kv_heads = field("attention.head_count_kv", int, default=num_heads)
    field.divides("attention.head_count_kv", num_kv_heads, num_heads, "attention heads")
    hidden_size = field("embedding_length", int)
    if field.get("attention.key_length", None) is None:
        field.divides(
            "attention.head_count", num_heads, hidden_size, "numbers of a token"
        )
    head_dim = field(
        "attention.key_length",
        int,
        default=hidden_size // num_heads,
        most=WIDEST_HEAD,
    )
    for name in ("attention.value_length", "rope.dimension_count"):
        field.only(name, {head_dim}, default=head_dim)
    sizes = {
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": hidden_size,
        "intermediate_size": field("feed_forward_length", int),
        "num_layers": field("block_count", int, most=MOST_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "max_positions": field("context_length", int),
        "norm_eps": field("attention.layer_norm_rms_epsilon", float),
    }
    has_bias = lambda name: f"blk.0.{LINEAR[name]}.bias" in shapes
    traits = {
        "tie_embeddings": "output.weight" not in shapes,
        "rope": RopeConfig(
            theta=field("rope.freq_base", float, default=10000.0),
            divisors=_divisors(field, head_dim, rope_divisors),
        ),
        "biases": tuple(filter(has_bias, LINEAR)),
        "qk_norm": arch in ("qwen3", "gemma3"),
    }
    if arch in ("gemma2", "gemma3"):
        traits |= _gemma(field, arch, sizes)
    field.nothing_else(HARMLESS)
    with located(field.where):
        return DecoderConfig(**sizes, **traits)


def _divisors(
    field: Fields, head_dim: int, stored: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    """Return the divisors of the RoPE frequencies: a stored tensor, or one factor."""
    kind = field.only("rope.scaling.type", {"none", "linear"}, default="none")
    if kind == "none":
        if stored and len(stored) != head_dim // 2:
            raise InputError(
                f"{field.where}: rope_freqs.weight has {len(stored)} numbers for heads "
                f"of {head_dim}, not {head_dim // 2}: fetch the file again."
            )
        return stored
    if stored:
        raise InputError(
            f"{field.where}: rope is scaled twice, by {field.prefix}rope.scaling.type "
            "linear and by rope_freqs.weight: use the model's Hugging Face folder."
        )
    return (field("rope.scaling.factor", float),) * (head_dim // 2)


def _gemma(field: Fields, arch: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Read Gemma's fields, and add values that are fixed in the code of llama.cpp."""
    num_layers, hidden_size = sizes["num_layers"], sizes["hidden_size"]
    # The largest model of each generation, recognised by its depth, scales differently.
    largest = num_layers == {"gemma2": 46, "gemma3": 62}[arch]
    divisor = hidden_size // sizes["num_heads"] if largest else sizes["head_dim"]
    period = {"gemma2": 2, "gemma3": 6}[arch]
    period = field("attention.sliding_window_pattern", int, default=period)
    cap = lambda name: field(name, float) if field.get(name) else None
    local = RopeConfig(theta=field("rope.freq_base_swa", float, default=10000.0))
    return {
        "activation": "gelu_tanh",
        "norm_offset": 1.0,
        "post_norms": True,
        "embed_scale": hidden_size**0.5,
        "attention_scale": divisor**-0.5,
        "attention_softcap": cap("attn_logit_softcapping"),
        "logit_softcap": cap("final_logit_softcapping"),
        "sliding": tuple(i % period < period - 1 for i in range(num_layers)),
        "window": field("attention.sliding_window", int),
        "sliding_rope": local if arch == "gemma3" else None,
    }
