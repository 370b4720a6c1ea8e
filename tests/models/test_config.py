"""Fields of config.json, in every spelling; what is none is refused by its name."""

import re

import families
import pytest

from goracs_jax.errors import InputError
from goracs_jax.models.hf_config import read_decoder_config
from goracs_jax.models.hf_encoder import read_encoder_config
from goracs_jax.models.rope import RopeConfig

BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 500000},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 5e5}},
        # The new spelling wins where both stand.
        {"rope_theta": 1.0, "rope_parameters": {"rope_theta": 5e5}},
    ],
)
def test_every_spelling_of_rope_theta(llama_config, spelling):
    del llama_config["rope_theta"]
    config = read_decoder_config(llama_config | spelling, "config.json")
    assert config.rope == RopeConfig(theta=5e5)


def test_old_configs_without_rope_theta_and_kv_heads(llama_config):
    for name in ("rope_theta", "num_key_value_heads"):
        del llama_config[name]
    config = read_decoder_config(llama_config, "config.json")
    assert config.rope == RopeConfig(theta=10000.0)
    assert config.num_kv_heads == config.num_heads == 4
    assert config.head_dim == 32 // 4


def test_head_dim_need_not_be_hidden_over_heads(llama_config):
    config = read_decoder_config(llama_config | {"head_dim": 16}, "config.json")
    assert config.head_dim == 16


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "SequenceClassif"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": "yes"}, "'attention_bias' must be true or false"),
        ({"rope_scaling": {"type": "linear"}}, "'factor' is missing"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "'factor' must be pos"),
        ({"rope_scaling": {"rope_type": "axial"}}, "rope_type 'axial'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "'factor' is missing"),
        ({"rope_scaling": {"rope_type": "dynamic"}}, "'factor' is missing"),
        ({"rope_scaling": {"type": "longrope"}}, "'short_factor' is missing"),
        ({"rope_parameters": families.YARN | {"rope_theta": 1}}, "must be more than 1"),
        ({"rope_parameters": families.YARN | {"a": 1}}, "field 'a' (1) is not known"),
        (
            {"rope_parameters": families.LONGROPE | {"short_factor": [1.0]}},
            "short_factor must have 4 numbers, got 1",
        ),
        (
            {"rope_parameters": families.LONGROPE | {"long_factor": [1, 1, 1, "1"]}},
            "long_factor: field '3' must be a finite number, got '1'",
        ),
        ({"rope_parameters": {"rope_type": "llama3"}}, "'factor' is missing"),
        ({"rope_parameters": {"beta_fast": 32}}, "'beta_fast' (32) is not known"),
        ({"rope_parameters": {"full_attention": {}}}, "'full_attention' ({}) is not"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"quantization_config": {"bits": 4}}, "of 'no quant_method' is not supp"),
        ({"quantization_config": {"quant_method": "gptq"}}, "of 'gptq' is not supp"),
        ({"quantization_config": [4]}, "quantization_config must be an object"),
        ({"quantization": {"bits": 4}}, "quantization by MLX is not supported: give"),
        ({"quantization_config": BITS | {"a": 1}}, "field 'a' (1) is not known"),
        ({"partial_rotary_factor": True}, "partial_rotary_factor True"),
        ({"rms_norm_eps": True}, "'rms_norm_eps' must be a finite number"),
        ({"rms_norm_eps": float("nan")}, "'rms_norm_eps' must be a number"),
        ({"rope_theta": float("inf")}, "'rope_theta' must be a number"),
        ({"rms_norm_eps": 1e300}, "'rms_norm_eps' must be a number of float32"),
        ({"rms_norm_eps": 1e-300}, "'rms_norm_eps' must be a number of float32"),
        ({"model_type": ["llama"]}, "model_type ['llama'] is not supported"),
        ({"rope_theta": 10**400}, "'rope_theta' is too large"),
        ({"hidden_size": 10**20}, "'hidden_size' is too large"),
        ({"auto_map": {"AutoModel": "x" * 99}}, "'auto_map' ({'AutoModel': 'xxx"),
        ({"sliding_window": 7}, "'sliding_window' (7) is not known"),
        ({"rope_interleaved": True}, "rope_interleaved True"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary"),
        ({"rope_parameters": "default"}, "'rope_parameters' must be an object"),
        ({"rms_norm_eps": None}, "'rms_norm_eps' is missing"),
        ({"hidden_size": "32"}, "'hidden_size' must be an integer"),
        ({"num_hidden_layers": True}, "'num_hidden_layers' must be an integer"),
        ({"vocab_size": -1}, "'vocab_size' must be positive, got -1"),
        ({"num_key_value_heads": 3}, "must divide the 4 attention heads"),
        ({"hidden_size": 34}, "num_attention_heads 4 must divide the 34 numbers of a"),
        ({"num_attention_heads": 0}, "'num_attention_heads' must be positive"),
        ({"head_dim": 15}, "config.json: the width of a head must be even, got 15: c"),
    ],
)
def test_refuses_by_name(llama_config, change, named):
    with pytest.raises(InputError, match=re.escape(named)) as error:
        read_decoder_config(llama_config | change, "m/config.json")
    assert "m/config.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [{"is_encoder_decoder": True}, {"pruned_heads": {"0": [1]}}]
)
def test_what_older_versions_added_is_refused_if_it_changes_the_model(
    llama_config, change
):
    (name,) = change
    with pytest.raises(InputError, match=f"{name} .* is not supported"):
        read_decoder_config(llama_config | change, "config.json")


IDS_OF_TOKENS = [
    ("eos_token_id", "1", "an integer or a list of integers, got '1'"),
    ("eos_token_id", True, "an integer or a list of integers, got True"),
    ("eos_token_id", [1, True], r"an integer or a list of integers, got \[1, True\]"),
    ("eos_token_id", [None], "an integer or a list of integers"),
    ("pad_token_id", 1.5, r"an integer, got 1\.5"),
    ("bos_token_id", [1], r"an integer, got \[1\]"),
]


@pytest.mark.parametrize(("name", "value", "message"), IDS_OF_TOKENS)
def test_ids_of_special_tokens(llama_config, name, value, message):
    match = f"field '{name}' must be {message}"
    with pytest.raises(InputError, match=match):
        read_decoder_config(llama_config | {name: value}, "config.json")
    if name != "pad_token_id":
        with pytest.raises(InputError, match=match):
            read_encoder_config(families.BERT | {name: value}, "config.json")


@pytest.mark.parametrize("ids", [None, 2, -1, [], [1, 2]])
def test_ids_that_published_models_have(llama_config, ids):
    raw = llama_config | {"eos_token_id": ids}
    read_decoder_config(raw, "config.json")


@pytest.mark.parametrize("name", ["tie_word_embeddings", "mlp_bias", "attention_bias"])
def test_flags_are_not_null(llama_config, name):
    message = f"field '{name}' must be true or false, got null"
    with pytest.raises(InputError, match=message):
        read_decoder_config(llama_config | {name: None}, "config.json")
