"""Read model configurations from a Hugging Face config.json, family by family.

We read the raw file, not a library's config class. Libraries fill missing fields with
defaults, and a wrong default would change the model in silence. For the same reason, a
field that is neither read nor known to be harmless is refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from goracs_jax.errors import InputError, located
from goracs_jax.models.bitsandbytes import stored_bits
from goracs_jax.models.config import DecoderConfig, EncoderConfig, Pooling
from goracs_jax.models.fields import MOST_LAYERS, WIDEST_HEAD, Fields
from goracs_jax.models.rope import RopeConfig, llama3_divisors

# Fields that do not change a forward pass in evaluation mode: dropout, ids of special
# tokens, initialisation of weights, the program that wrote the file.
HARMLESS = frozenset(
    [
        "_attn_implementation_autoset",
        "_name_or_path",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "cls_token_id",
        "directionality",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "gradient_checkpointing",
        "hidden_dropout_prob",
        "id2label",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "mask_token_id",
        "max_sequence_length",
        "output_past",
        "pad_token_id",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "pretraining_tp",
        "problem_type",
        "sep_token_id",
        "task_specific_params",
        "tie_word_embeddings",
        "tokenizer_class",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unk_token_id",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
    ]
)
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
    stored_bits(raw, where)  # refuses what is not read
    field.ignore("quantization_config")
    _harmless(field)
    with located(where):
        return DecoderConfig(**(sizes | traits))


def _llama(field: Fields, sizes: Traits) -> Traits:
    # A field of SmolLM2: False means that RoPE rotates pairs (x_i, x_{i + head_dim /
    # 2}).
    field.only("rope_interleaved", {False}, default=False)
    mlp = MLP if field.flag("mlp_bias") else ()
    return _plain(field, sizes) | {"biases": _attention_bias(field) + mlp}


def _mistral(field: Fields, sizes: Traits) -> Traits:
    window = field.nullable("sliding_window", int)
    sliding = () if window is None else (True,) * sizes["num_layers"]
    return _plain(field, sizes) | {"window": window, "sliding": sliding}


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
    return _plain(field, sizes) | _windows(field, window, rule)


def _gemma2(field: Fields, sizes: Traits) -> Traits:
    alternate = [i % 2 == 0 for i in range(sizes["num_layers"])]
    window = field.nullable("sliding_window", int)
    return {
        **_gemma(field, sizes),
        "rope": _rope(field, sizes),
        "attention_softcap": field.nullable("attn_logit_softcapping", float),
        "logit_softcap": field.nullable("final_logit_softcapping", float),
        **_windows(field, window, alternate),
    }


def _gemma3(field: Fields, sizes: Traits) -> Traits:
    # transformers reads this field but does not use it.
    field.only("attn_logit_softcapping", {None})
    cap = field.get("final_logit_softcapping")
    period = field(
        "sliding_window_pattern", int, field("_sliding_window_pattern", int, 6)
    )
    default = [(i + 1) % period != 0 for i in range(sizes["num_layers"])]
    nested = _mapping(field, "rope_parameters")
    kinds = Fields(nested, f"{field.where}: rope_parameters")
    full = {**_mapping(field, "rope_scaling"), **_mapping(kinds, "full_attention")}
    theta = field("rope_theta", float, default=1e6)
    local = field("rope_local_base_freq", float, default=1e4)
    sliding_rope = _one_rope(_mapping(kinds, "sliding_attention"), local, field, sizes)
    kinds.nothing_else()
    return {
        **_gemma(field, sizes),
        "qk_norm": True,
        "rope": _one_rope(full, theta, field, sizes),
        "sliding_rope": sliding_rope,
        "logit_softcap": cap and field("final_logit_softcapping", float),
        **_windows(field, field.nullable("sliding_window", int), default),
    }


def _plain(field: Fields, sizes: Traits) -> Traits:
    """Read the fields that Llama, Mistral and Qwen share."""
    field.only("hidden_act", {"silu"})
    return {
        "tie_embeddings": field.flag("tie_word_embeddings"),
        "rope": _rope(field, sizes),
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
    "gemma2": Family("Gemma2ForCausalLM", _gemma2),
    "gemma3_text": Family("Gemma3ForCausalLM", _gemma3),
}


def _attention_bias(field: Fields) -> tuple[str, ...]:
    return (*QKV, "o_proj") if field.flag("attention_bias") else ()


def _windows(field: Fields, window: int | None, default: list[bool]) -> Traits:
    """Read which layers have a window; `default` is used if the file does not say."""
    kinds = {"sliding_attention": True, "full_attention": False}
    stated = field.get(
        "layer_types", [k for d in default for k in kinds if kinds[k] == d]
    )
    if not isinstance(stated, list) or len(stated) != len(default):
        raise InputError(
            f"{field.where}: field 'layer_types' must name {len(default)} layers, got "
            f"{stated!r}: take the file that was published with the weights."
        )
    for kind in stated:
        if kind not in list(kinds):  # a list, because `kind` may not be hashable
            raise InputError(
                f"{field.where}: layer_types {kind!r} is not supported: use a model "
                f"of {' and '.join(kinds)}."
            )
    sliding = tuple(kinds[kind] for kind in stated)
    if any(sliding) and window is None:
        raise InputError(
            f"{field.where}: layer_types has sliding_attention without a "
            "sliding_window: take the file that was published with the weights."
        )
    return {"sliding": sliding, "window": window} if any(sliding) else {}


def _rope(field: Fields, sizes: Traits) -> RopeConfig:
    """Read the rotation in its old or new spelling.

    transformers 5 moved `rope_theta` into `rope_parameters`. Earlier versions had the
    scaling in `rope_scaling`, with `type` or `rope_type`. If a file has both, the new
    spelling takes precedence.
    """
    rope = {**_mapping(field, "rope_scaling"), **_mapping(field, "rope_parameters")}
    # Llama's value, which all readers assume if an old config.json lacks it.
    theta = field("rope_theta", float, default=10000.0)
    return _one_rope(rope, theta, field, sizes)


def _one_rope(
    raw: Mapping[str, Any], theta: float, top: Fields, sizes: Traits
) -> RopeConfig:
    field = Fields(raw, f"{top.where}: rope_parameters")
    kinds = {"default", "linear", "llama3"}
    kind = field.only("rope_type", kinds, default=field.get("type", "default"))
    theta = field("rope_theta", float, default=theta)
    for place in (top, field):
        place.only("partial_rotary_factor", {1.0}, default=1.0)
    name = "original_max_position_embeddings"
    inside = field(name, int, default=sizes["max_positions"])
    # Like in transformers, a field outside of rope_parameters takes precedence.
    original = top(name, int, default=inside)
    divisors = None
    if kind == "linear":
        divisors = (field("factor", float),) * (sizes["head_dim"] // 2)
    if kind == "llama3":
        divisors = llama3_divisors(
            theta,
            sizes["head_dim"],
            factor=field("factor", float),
            low_freq_factor=field("low_freq_factor", float),
            high_freq_factor=field("high_freq_factor", float),
            original_positions=original,
        )
    field.nothing_else()
    return RopeConfig(theta=theta, divisors=divisors)


def _harmless(field: Fields) -> None:
    """Check that all other fields are harmless, and the ids of tokens integers."""
    for name in sorted(HARMLESS):
        if name.endswith("_token_id"):
            field.ids(name, several=name == "eos_token_id")
    field.nothing_else(HARMLESS)


def _mapping(field: Fields, name: str) -> Mapping[str, Any]:
    part = field.get(name, {})
    if not isinstance(part, Mapping):
        raise InputError(
            f"{field.where}: field {name!r} must be an object, got {part!r}: take the "
            "file that was published with the weights."
        )
    return part


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
    for name in ("is_decoder", "add_cross_attention"):
        field.only(name, {False}, default=False)
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
    _harmless(field)
    return config
