"""Read the language model out of a folder of a model that also reads pictures.

Its config.json has the text part in `text_config`, its weights have longer names, and
beside them those of the other parts. All of that is left out, so what remains is the
model that transformers calls Gemma3ForCausalLM.
"""

import re
from collections.abc import Mapping
from typing import Any

from goracs_jax.models.fields import Fields
from goracs_jax.models.hf_fields import harmless, mapping
from goracs_jax.models.tensors import Tensors, renamed

#: What the text part of a published file may leave out: the defaults of transformers'
#: Gemma3TextConfig.
GEMMA3_TEXT = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
#: Fields that only pictures need.
PICTURES = (
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "mm_tokens_per_image",
    "vision_config",
)
#: Beginnings of the names of weights that only pictures need.
OTHER_PARTS = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")


def text_config(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the config.json of the text part; any other file as it is.

    Args:
        raw: The parsed file.
        where: Its path, for messages.

    Raises:
        InputError: The file has a field that is not known.

    >>> raw = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    >>> text_config(raw, "config.json")["hidden_size"]
    2304
    """
    if raw.get("model_type") != "gemma3" or raw.get("text_config") is None:
        return raw
    field = Fields(raw, where)
    wanted = "Gemma3ForConditionalGeneration"
    field.only("architectures", {wanted}, default=wanted, listed=True)
    field.only("model_type", {"gemma3"})
    stated = mapping(field, "text_config")
    outer = {
        name: raw[name]
        for name in ("quantization_config", "tie_word_embeddings")
        if raw.get(name) is not None
    }
    field.ignore(*PICTURES, *outer)
    harmless(field)
    text = {**GEMMA3_TEXT, **stated, **outer}
    return text | {"architectures": ["Gemma3ForCausalLM"]}


def text_tensors(tensors: Tensors) -> Tensors:
    """Return the weights of the text part, by the names of a language model.

    Args:
        tensors: The tensors of a folder whose config.json has a `text_config`.

    Raises:
        InputError: Two tensors would have the same name.
    """
    kept = {n: s for n, s in tensors.shapes.items() if not OTHER_PARTS.match(n)}
    return renamed(tensors._replace(shapes=kept), _text_name)


def _text_name(name: str) -> str:
    """Return a name without the part that names the language model.

    It stands first in older files, and behind "model." in newer ones.
    """
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return name.removeprefix("language_model.")
