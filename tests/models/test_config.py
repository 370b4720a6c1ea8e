import re

import pytest

from goracs_jax.errors import InputError
from goracs_jax.models.hf_config import read_decoder_config, read_encoder_config
from goracs_jax.models.rope import RopeConfig

BERT = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


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
        ({"attention_bias": "yes"}, "'attention_bias' must be bool"),
        ({"rope_scaling": {"type": "linear"}}, "'factor' is missing"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "'factor' must be pos"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "'factor' is missing"),
        ({"rope_parameters": {"beta_fast": 32}}, "'beta_fast' (32) is not known"),
        ({"rope_parameters": {"full_attention": {}}}, "'full_attention' ({}) is not"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config' ({'bits': 4})"),
        ({"auto_map": {"AutoModel": "x" * 99}}, "'auto_map' ({'AutoModel': 'xxx"),
        ({"sliding_window": 7}, "'sliding_window' (7) is not known"),
        ({"rope_interleaved": True}, "rope_interleaved True"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary"),
        ({"rope_parameters": "default"}, "'rope_parameters' must be an object"),
        ({"rms_norm_eps": None}, "'rms_norm_eps' is missing"),
        ({"hidden_size": "32"}, "'hidden_size' must be int"),
        ({"num_hidden_layers": True}, "'num_hidden_layers' must be int"),
        ({"vocab_size": -1}, "'vocab_size' must be positive, got -1"),
        ({"num_key_value_heads": 3}, "must divide the 4 attention heads"),
        ({"num_attention_heads": 0}, "'num_attention_heads' must be positive"),
    ],
)
def test_refuses_by_name(llama_config, change, named):
    with pytest.raises(InputError, match=re.escape(named)) as error:
        read_decoder_config(llama_config | change, "m/config.json")
    assert "m/config.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "deberta"}, "model_type 'deberta'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"type_vocab_size": None}, "'type_vocab_size' is missing"),
    ],
)
def test_encoder_refuses_by_name(change, named):
    with pytest.raises(InputError, match=named):
        read_encoder_config(BERT | change, "config.json")


def test_roberta_starts_behind_the_padding_index():
    roberta = BERT | {"model_type": "roberta", "pad_token_id": 1}
    config = read_encoder_config(roberta, "config.json", max_tokens=512)
    assert config.first_position == 2
    assert config.max_tokens == 12 - 2
    assert read_encoder_config(BERT, "config.json").first_position == 0
