"""The fields of an adapter_config.json: what each does, and which are refused.

The reader allows the fields of these tables. Any other field must be neutral: None,
False or empty. docs/adapters.md is made from the same tables.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from goracs_jax.errors import InputError

#: The version of PEFT whose adapters the parity tests read and write.
VERSION = "0.21.2"

#: Fields that change what is computed, and how an adapter with them is read.
READ = {
    "r": "the rank",
    "lora_alpha": "the numerator of the scale",
    "lora_dropout": "dropout in training",
    "target_modules": 'names, ends of names, a regular expression or "all-linear"; '
    "not of lm_head or embed_tokens, whose adapters are refused",
    "exclude_modules": "names, ends of names or a regular expression",
    "layers_to_transform": "numbers of layers",
    "layers_pattern": "names of the list of layers",
    "rank_pattern": "ranks by regular expression",
    "alpha_pattern": "numerators of the scale by regular expression",
    "use_rslora": "the scale is alpha / sqrt(r)",
    "use_dora": "DoRA: the norm of each column is trained",
    "lora_bias": "the update has a bias",
    "modules_to_save": "lm_head and embed_tokens, trained whole",
    "trainable_token_indices": "rows of embed_tokens and lm_head",
    "init_lora_weights": "see below",
}

#: Fields that change nothing in a model of linear layers whose adapter is trained.
NO_EFFECT = (
    "peft_type",  # checked by the reader
    "task_type",
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "auto_mapping",
    "inference_mode",
    "fan_in_fan_out",  # PEFT sets it to False for a Linear
    "megatron_core",  # the name of a module
    "runtime_config",
    # Settings of an initialisation, or of another field, which decides.
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
)

#: Values of init_lora_weights that leave the base as it is. PEFT ignores case in some.
BASE_KEPT = ("gaussian", "eva", "orthogonal")


class Refusal(NamedTuple):
    """Something that is not read: what it is, and what to do instead."""

    what: str
    cure: str


MERGE = "merge it with PEFT's merge_and_unload and give the merged model"
CONVERT = (
    "save the adapter again with PEFT's save_pretrained(..., "
    "path_initial_model_for_weight_conversion=FIRST), where FIRST is the adapter saved "
    "before training; or " + MERGE
)

#: Values of init_lora_weights, by how they start, that are refused.
INITS = {
    "pissa": Refusal("PiSSA changes the base weights", CONVERT),
    "olora": Refusal("OLoRA changes the base weights", CONVERT),
    "corda": Refusal("CorDA changes the base weights", CONVERT),
    "lora_ga": Refusal("LoRA-GA changes the base weights", CONVERT),
    "loftq": Refusal("LoftQ changes the base weights", MERGE),
    "mica": Refusal(
        "MiCA trains A alone",
        "set init_lora_weights to true, which trains B as well, or " + MERGE,
    ),
}

WITHOUT = "train an adapter without it, or " + MERGE

#: Fields that are refused unless they are neutral, with what they are.
REFUSED = {
    "bias": Refusal("biases of the base are trained", WITHOUT),
    "ensure_weight_tying": Refusal("tied tables are trained as one", WITHOUT),
    "layer_replication": Refusal("layers are repeated", WITHOUT),
    "target_parameters": Refusal("adapters of single parameters", WITHOUT),
    "alora_invocation_tokens": Refusal("activated LoRA", WITHOUT),
    "use_qalora": Refusal("QALoRA", WITHOUT),
    "use_bdlora": Refusal("block-diagonal LoRA", WITHOUT),
    "arrow_config": Refusal("Arrow, a mixture of adapters", WITHOUT),
    "kasa_config": Refusal("KaSA changes the base weights", WITHOUT),
    "velora_config": Refusal("VeLoRA", WITHOUT),
    "monteclora_config": Refusal("MonteCLoRA", WITHOUT),
    "megatron_config": Refusal("layers of Megatron", WITHOUT),
}

#: Neutral values besides None, False and what is empty.
NEUTRAL = {"bias": "none"}


def check_fields(raw: Mapping[str, Any], where: str) -> None:
    """Refuse an adapter that has a field with an effect that the reader does not know.

    Args:
        raw: The fields of adapter_config.json.
        where: The file, for messages.

    Raises:
        InputError: A field is not known and not neutral, or it is refused.

    >>> check_fields({"peft_type": "LORA", "use_new": None, "bias": "none"}, "a.json")
    >>> check_fields({"peft_type": "LORA", "use_new": True}, "a.json")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: a.json: use_new True is not known: train an adapter \
without it, or merge it with PEFT's merge_and_unload and give the merged model.
    """
    if raw.get("peft_type") != "LORA":
        raise InputError(
            f"{where}: peft_type {raw.get('peft_type')!r} is not supported: use LORA, "
            f"or {MERGE}."
        )
    for name, value in raw.items():
        if name in READ or name in NO_EFFECT:
            continue
        if value in (None, "", [], {}) or value is False:
            continue
        if value == NEUTRAL.get(name):
            continue
        why, cure = REFUSED.get(name, Refusal("", WITHOUT))
        reason = f"is not supported ({why})" if why else "is not known"
        raise InputError(f"{where}: {name} {value!r} {reason}: {cure}.")
    _check_init(raw.get("init_lora_weights", True), where)
    _check_pairs(raw, where)


def _check_pairs(raw: Mapping[str, Any], where: str) -> None:
    """Refuse fields that PEFT refuses side by side, so that it trained no such adapter.

    >>> raw = {"target_modules": ".*q_proj", "layers_to_transform": 0}
    >>> _check_pairs(raw, "a.json")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: a.json: layers_to_transform 0 has no meaning beside \
target_modules '.*q_proj': give the file that PEFT saved with the adapter.
    """
    by_expression = isinstance(raw.get("target_modules"), str)
    other_init = isinstance(raw.get("init_lora_weights"), str)
    no_layers = raw.get("layers_to_transform") is None
    pairs = [
        ("lora_bias", "use_dora", bool(raw.get("use_dora"))),
        ("lora_bias", "init_lora_weights", other_init),
        ("layers_to_transform", "target_modules", by_expression),
        ("layers_pattern", "target_modules", by_expression),
        ("layers_pattern", "layers_to_transform", no_layers),
    ]
    for name, other, both in pairs:
        value = raw.get(name)
        # 0 is the number of a layer.
        if both and value not in (None, "", [], {}) and value is not False:
            raise InputError(
                f"{where}: {name} {value!r} has no meaning beside {other} "
                f"{raw.get(other)!r}: give the file that PEFT saved with the adapter."
            )


def _check_init(value: Any, where: str) -> None:
    name = value.lower() if isinstance(value, str) else ""
    if isinstance(value, bool) or value is None or name in BASE_KEPT:
        return
    matching = (r for start, r in INITS.items() if name.startswith(start))
    refusal = next(matching, None)
    if refusal is None:
        refusal = Refusal("it may change the base weights", MERGE)
    raise InputError(
        f"{where}: init_lora_weights {value!r} is not supported ({refusal.what}): "
        f"{refusal.cure}."
    )
