"""Read the configuration of a decoder from a Hugging Face config.json, by family.

We read the raw file, not a library's config class. Libraries fill missing fields with
defaults, and a wrong default would change the model in silence. For the same reason, a
field that is neither read nor known to be harmless is refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from goracs_jax.errors import located
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.fields import MOST_LAYERS, WIDEST_HEAD, Fields
from goracs_jax.models.hf_fields import harmless
from goracs_jax.models.hf_layers import (
    read_mixture,
    turned_layers,
    window_everywhere,
    windows_by_layer,
)
from goracs_jax.models.hf_multimodal import text_config
from goracs_jax.models.hf_rope import read_rope, read_two_ropes
from goracs_jax.models.quantised import quantisation

QKV = ("q_proj", "k_proj", "v_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
Traits = dict[str, Any]  # fields of a DecoderConfig


def read_decoder_config(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """Read the config.json of a language model.

    Args:
        raw: The parsed file.
        where: Path of the file, for messages.

    Returns:
        The configuration.

    Raises:
        InputError: The family, activation or RoPE type is not supported, or a field is
            missing or unknown.
    """
    raw = text_config(raw, where)
    field = Fields(raw, where)
    family = FAMILIES[field.only("model_type", FAMILIES)]
    wanted = family.architecture
    field.only("architectures", {wanted}, default=wanted, listed=True)
    num_heads = field("num_attention_heads", int)
    hidden_size = field("hidden_size", int)
    # The defaults of transformers differ between families: few fields may be missing.
    default = lambda name, value: value if name in family.may_lack else None
    num_kv_heads = field(
        "num_key_value_heads", int, default("num_key_value_heads", num_heads)
    )
    field.divides("num_key_value_heads", num_kv_heads, num_heads, "attention heads")
    if raw.get("head_dim") is None:
        field.divides(
            "num_attention_heads", num_heads, hidden_size, "numbers of a token"
        )
    sizes = {
        "vocab_size": field("vocab_size", int),
        "hidden_size": hidden_size,
        "intermediate_size": field("intermediate_size", int),
        "num_layers": field("num_hidden_layers", int, most=MOST_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": field(
            "head_dim",
            int,
            default("head_dim", hidden_size // num_heads),
            most=WIDEST_HEAD,
        ),
        "max_positions": field("max_position_embeddings", int),
        "norm_eps": field("rms_norm_eps", float),
    }
    traits = family.traits(field, sizes)
    quantisation(raw, where)  # refuses what is not read
    field.ignore("quantization_config")
    harmless(field)
    with located(where):
        return DecoderConfig(**(sizes | traits))


def _llama(field: Fields, sizes: Traits, theta: float = 1e4) -> Traits:
    # A field of SmolLM2: False means that RoPE rotates pairs (x_i, x_{i + head_dim /
    # 2}).
    field.only("rope_interleaved", {False}, default=False)
    mlp = MLP if field.flag("mlp_bias") else ()
    return _plain(field, sizes, theta) | {"biases": _attention_bias(field) + mlp}


def _granite(field: Fields, sizes: Traits) -> Traits:
    return _llama(field, sizes) | {
        "embed_scale": field("embedding_multiplier", float),
        "attention_scale": field("attention_multiplier", float),
        "residual_scale": field("residual_multiplier", float),
        "hidden_scale": 1 / field("logits_scaling", float),
    }


def _smollm3(field: Fields, sizes: Traits) -> Traits:
    field.ignore("max_window_layers")  # of Qwen, without an effect here
    turned = turned_layers(field, sizes["num_layers"])
    used = field.flag("use_sliding_window")
    window = field.nullable("sliding_window", int) if used else None
    field.ignore("sliding_window")
    rule = [window is not None and not turns for turns in turned]
    return {
        **_llama(field, sizes, theta=2e6),
        "tie_embeddings": field.flag("tie_word_embeddings", default=True),
        "no_rope": tuple(not turns for turns in turned),
        **windows_by_layer(field, window, rule),
    }


def _olmo2(field: Fields, sizes: Traits) -> Traits:
    return _plain(field, sizes) | _olmo(field)


def _olmo3(field: Fields, sizes: Traits) -> Traits:
    field.only("hidden_act", {"silu"})
    theta = field("rope_theta", float, default=5e5)
    rule = [(i + 1) % 4 != 0 for i in range(sizes["num_layers"])]
    return {
        "tie_embeddings": field.flag("tie_word_embeddings"),
        **_olmo(field),
        **read_two_ropes(field, sizes, theta=theta, local_theta=theta),
        **windows_by_layer(field, field.nullable("sliding_window", int), rule),
    }


def _olmo(field: Fields) -> Traits:
    """Read the fields that OLMo 2 and 3 share."""
    return {
        "biases": _attention_bias(field),
        "pre_norms": False,
        "post_norms": True,
        "wide_qk_norm": True,
    }


def _mistral(field: Fields, sizes: Traits, theta: float = 1e4) -> Traits:
    window = field.nullable("sliding_window", int)
    return _plain(field, sizes, theta) | window_everywhere(window, sizes["num_layers"])


def _phi3(field: Fields, sizes: Traits) -> Traits:
    # transformers has this family of its own, so the code that auto_map names is not
    # needed. Dropout of embeddings and of the residual stream is for training alone.
    field.ignore("auto_map", "embd_pdrop", "resid_pdrop")
    field.only("hidden_act", {"silu"})
    for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
        field.only(name, {False}, default=False)
    for name in ("full_attn_mod", "interpolate_factor"):
        field.only(name, {1}, default=1)
    window = field.get("sliding_window") and field("sliding_window", int)
    if window is not None and window >= sizes["max_positions"]:
        window = None
    return {
        "tie_embeddings": field.flag("tie_word_embeddings"),
        "fused": True,
        **read_rope(field, sizes, partial=True),
        **window_everywhere(window, sizes["num_layers"]),
    }


def _qwen2(field: Fields, sizes: Traits) -> Traits:
    return _qwen(field, sizes) | {"biases": QKV}


def _qwen3(field: Fields, sizes: Traits) -> Traits:
    biases = _attention_bias(field)
    return _qwen(field, sizes) | {"biases": biases, "qk_norm": True}


def _qwen(field: Fields, sizes: Traits) -> Traits:
    """Read the fields that Qwen 2 and 3 share; only their last layers have a window."""
    field.only("use_mrope", {False}, default=False)
    num_layers = sizes["num_layers"]
    if field.flag("use_sliding_window"):
        window = field("sliding_window", int)
        first = field("max_window_layers", int, positive=False)
    else:
        # Most files contain both fields, although they have no effect.
        field.ignore("sliding_window", "max_window_layers")
        window, first = None, num_layers
    rule = [i >= first for i in range(num_layers)]
    return _plain(field, sizes) | windows_by_layer(field, window, rule)


def _qwen3_moe(field: Fields, sizes: Traits) -> Traits:
    # Layers with one MLP between those with experts would have other weights.
    field.only("mlp_only_layers", [[]], default=[])
    field.only("decoder_sparse_step", {1}, default=1)
    field.only("use_sliding_window", {False}, default=False)
    return {
        **_qwen3(field, sizes),
        "intermediate_size": field("moe_intermediate_size", int),
        "mixture": read_mixture(
            field, "num_experts", normalised=field("norm_topk_prob", bool)
        ),
    }


def _mixtral(field: Fields, sizes: Traits) -> Traits:
    names = {"block": "block_sparse_moe", "parts": ("w1", "w3", "w2")}
    mixture = read_mixture(field, "num_local_experts", **names)
    return _mistral(field, sizes, theta=1e6) | {"mixture": mixture}


def _gemma2(field: Fields, sizes: Traits) -> Traits:
    alternate = [i % 2 == 0 for i in range(sizes["num_layers"])]
    window = field.nullable("sliding_window", int)
    return {
        **_gemma(field, sizes),
        **read_rope(field, sizes),
        "attention_softcap": field.nullable("attn_logit_softcapping", float),
        "logit_softcap": field.nullable("final_logit_softcapping", float),
        **windows_by_layer(field, window, alternate),
    }


def _gemma3(field: Fields, sizes: Traits) -> Traits:
    # transformers reads this field but does not use it.
    field.only("attn_logit_softcapping", {None})
    cap = field.get("final_logit_softcapping")
    period = field(
        "sliding_window_pattern", int, field("_sliding_window_pattern", int, 6)
    )
    default = [(i + 1) % period != 0 for i in range(sizes["num_layers"])]
    theta = field("rope_theta", float, default=1e6)
    local = field("rope_local_base_freq", float, default=1e4)
    return {
        **_gemma(field, sizes),
        "qk_norm": True,
        **read_two_ropes(field, sizes, theta=theta, local_theta=local),
        "logit_softcap": cap and field("final_logit_softcapping", float),
        **windows_by_layer(field, field.nullable("sliding_window", int), default),
    }


def _plain(field: Fields, sizes: Traits, theta: float = 1e4) -> Traits:
    """Read the fields that Llama, Mistral, Qwen and OLMo 2 share."""
    field.only("hidden_act", {"silu"})
    return {
        "tie_embeddings": field.flag("tie_word_embeddings"),
        **read_rope(field, sizes, theta=theta),
    }


def _gemma(field: Fields, sizes: Traits) -> Traits:
    """Read the fields that Gemma 2 and 3 share."""
    field.only("hidden_activation", {"gelu_pytorch_tanh"})
    field.only("hidden_act", {"gelu_pytorch_tanh"}, default="gelu_pytorch_tanh")
    field.only("use_bidirectional_attention", {False}, default=False)
    return {
        "activation": "gelu_tanh",
        "biases": _attention_bias(field),
        "norm_offset": 1.0,
        "post_norms": True,
        "embed_scale": sizes["hidden_size"] ** 0.5,
        "attention_scale": field("query_pre_attn_scalar", float) ** -0.5,
        "tie_embeddings": field.flag("tie_word_embeddings", default=True),
    }


class Family(NamedTuple):
    """How the config.json of one model_type is read."""

    architecture: str  # its class in transformers
    traits: Callable[[Fields, Traits], Traits]  # reads the fields that only it has
    may_lack: tuple[str, ...] = ()  # fields that may be missing


FAMILIES = {
    "llama": Family("LlamaForCausalLM", _llama, ("num_key_value_heads", "head_dim")),
    "mistral": Family("MistralForCausalLM", _mistral, ("head_dim",)),
    "qwen2": Family("Qwen2ForCausalLM", _qwen2, ("head_dim",)),
    "qwen3": Family("Qwen3ForCausalLM", _qwen3),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", _qwen3_moe, ("head_dim",)),
    "mixtral": Family("MixtralForCausalLM", _mixtral, ("head_dim",)),
    "gemma2": Family("Gemma2ForCausalLM", _gemma2),
    "gemma3_text": Family("Gemma3ForCausalLM", _gemma3),
    "smollm3": Family("SmolLM3ForCausalLM", _smollm3, ("head_dim",)),
    "granite": Family("GraniteForCausalLM", _granite, ("head_dim",)),
    "olmo2": Family("Olmo2ForCausalLM", _olmo2, ("head_dim", "num_key_value_heads")),
    "olmo3": Family("Olmo3ForCausalLM", _olmo3, ("head_dim", "num_key_value_heads")),
    "phi3": Family("Phi3ForCausalLM", _phi3, ("head_dim", "num_key_value_heads")),
}


def _attention_bias(field: Fields) -> tuple[str, ...]:
    return (*QKV, "o_proj") if field.flag("attention_bias") else ()
