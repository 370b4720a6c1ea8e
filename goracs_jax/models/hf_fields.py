"""What all readers of a Hugging Face config.json share: fields that change nothing."""

from collections.abc import Mapping
from typing import Any

from goracs_jax.errors import InputError
from goracs_jax.models.fields import Fields

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


def harmless(field: Fields) -> None:
    """Check that all other fields are harmless, and the ids of tokens integers."""
    for name in sorted(HARMLESS):
        if name.endswith("_token_id"):
            field.ids(name, several=name == "eos_token_id")
    field.nothing_else(HARMLESS)


def mapping(field: Fields, name: str) -> Mapping[str, Any]:
    """Return a field that is an object; it may be missing.

    >>> mapping(Fields({}, "config.json"), "rope_scaling")
    {}
    """
    part = field.get(name, {})
    if not isinstance(part, Mapping):
        raise InputError(
            f"{field.where}: field {name!r} must be an object, got {part!r}: take the "
            "file that was published with the weights."
        )
    return part
