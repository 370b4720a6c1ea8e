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

# Fields of a config.json that was written with all defaults, as transformers before 5
# had them for every model: what a call returns, and how texts are generated.
OF_CALLS = frozenset(
    [
        "bad_words_ids",
        "begin_suppress_tokens",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "is_decoder",  # of a decoder; for encoders it is read
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "prefix",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "tf_legacy_loss",
        "top_k",
        "top_p",
        "torchscript",
        "typical_p",
        "use_bfloat16",
        "use_return_dict",
    ]
)


def harmless(field: Fields) -> None:
    """Check that all other fields are harmless, and the ids of tokens integers."""
    for name in ("add_cross_attention", "is_encoder_decoder", "tie_encoder_decoder"):
        field.only(name, {False}, default=False)
    field.only("cross_attention_hidden_size", {None})
    field.only("pruned_heads", [{}], default={})
    for name in sorted(HARMLESS):
        if name.endswith("_token_id"):
            field.ids(name, several=name == "eos_token_id")
    field.nothing_else(HARMLESS | OF_CALLS)


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
