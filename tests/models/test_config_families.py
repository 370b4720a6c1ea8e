"""What each family of models reads of config.json, its defaults and what it refuses."""

import json
import math
import re

import families
import pytest
from transformers import AutoConfig

from goracs_jax.errors import InputError
from goracs_jax.models.hf_config import read_decoder_config
from goracs_jax.models.rope import RopeConfig

FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize("kind", families.CLASSES)
def test_a_base_of_rotations_that_is_missing_is_that_of_the_family(kind):
    rope = AutoConfig.for_model(kind).rope_parameters
    usual = rope.get("full_attention", rope)["rope_theta"]
    name = next(n for n, raw in families.FAMILIES.items() if raw["model_type"] == kind)
    raw = families.raw_config(name)
    less = {key: value for key, value in raw.items() if "rope_" not in key}
    assert read_decoder_config(less, "config.json").rope.theta == usual


def test_the_original_context_of_phi_has_a_default():
    raw = families.raw_config("phi4-mini", max_position_embeddings=8192)
    del raw["original_max_position_embeddings"]
    found = read_decoder_config(raw, "config.json")
    theirs = AutoConfig.for_model(**raw)
    original = theirs.rope_parameters["original_max_position_embeddings"]
    assert found.max_positions == original == 4096
    grown = math.sqrt(1 + math.log(8192 / 4096) / math.log(4096))
    assert found.rope.magnitude == pytest.approx(grown)


def test_a_mixture_of_qwen_may_lack_head_dim():
    """transformers takes hidden_size / num_attention_heads then; Qwen 3 says 128."""
    raw = families.raw_config("qwen3-moe")
    del raw["head_dim"]
    config = read_decoder_config(raw, "config.json")
    assert config.head_dim * config.num_heads == config.hidden_size
    raw = families.raw_config("qwen3")
    del raw["head_dim"]
    with pytest.raises(InputError, match="head_dim"):
        read_decoder_config(raw, "config.json")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_no_field_of_a_family_may_be_missing(family):
    raw = families.raw_config(family)
    whole = read_decoder_config(raw, "config.json")
    # What transformers, too, takes for granted where it does not stand.
    optional = {"architectures", "tie_word_embeddings", "rope_theta", "rope_parameters"}
    optional |= {"attention_bias", "mlp_bias", "use_sliding_window", "rope_scaling"}
    optional |= {"sliding_window_pattern", "no_rope_layer_interval", "no_rope_layers"}
    optional |= {"partial_rotary_factor", "original_max_position_embeddings"}
    optional |= {"layer_types"}
    if family.startswith(("llama", "olmo", "phi")):
        optional.add("num_key_value_heads")
    if family.startswith("qwen3-moe"):
        optional.add("head_dim")
    if family == "phi3-window":
        optional.add("sliding_window")
    if family == "gemma3":
        optional.add("final_logit_softcapping")
    for name in raw:
        less = {key: value for key, value in raw.items() if key != name}
        if name in optional or (
            family in ("qwen2-window", "smollm3-window") and "window" in name
        ):
            continue
        with pytest.raises(InputError, match=f"{name!r} is missing|{name} None"):
            read_decoder_config(less, "config.json")
    for name in ("architectures", "tie_word_embeddings"):
        less = {key: value for key, value in raw.items() if key != name}
        assert read_decoder_config(less, "config.json") == whole


@pytest.mark.parametrize(
    ("family", "changes", "sliding", "window"),
    [
        ("llama", {}, (), None),
        ("mistral", {}, (True, True), 7),
        ("mistral", {"sliding_window": None}, (), None),
        ("qwen2", {"sliding_window": 4096, "max_window_layers": 1}, (), None),
        ("qwen2-window", {}, (False, True), 7),
        ("qwen2-window", {"layer_types": [SLIDING, FULL]}, (True, False), 7),
        ("qwen3", {"layer_types": [FULL, FULL], "sliding_window": 9}, (), None),
        ("gemma2", {}, (True, False), 7),
        ("gemma2", {"layer_types": [FULL, SLIDING]}, (False, True), 7),
        ("gemma3", {}, (True, False), 7),
        ("gemma3", {"sliding_window_pattern": 6}, (True, True), 7),
        ("gemma3", {"sliding_window_pattern": 1}, (), None),
        ("smollm3", {"sliding_window": 9}, (), None),
        ("smollm3-window", {"no_rope_layers": [0, 1]}, (True, False), 7),
        ("olmo3", {"layer_types": None}, (True, True), 7),
        ("phi3", {}, (), None),
        ("phi3-window", {}, (True, True), 7),
        ("phi3", {"sliding_window": 64}, (), None),  # as many as there are positions
    ],
)
def test_windows(family, changes, sliding, window):
    config = read_decoder_config(families.raw_config(family, **changes), "c.json")
    assert (config.sliding, config.window) == (sliding, window)


# As published, with the fields that say nothing about the forward pass.
@pytest.mark.parametrize(
    ("family", "published"),
    [
        (
            "llama-3",
            {
                "bos_token_id": 128000,
                "eos_token_id": [128001, 128008],
                "attention_dropout": 0.0,
                "initializer_range": 0.02,
                "pretraining_tp": 1,
                "torch_dtype": "bfloat16",
                "transformers_version": "4.45.0.dev0",
                "use_cache": True,
                "rope_scaling": None,
            },
        ),
        (
            "llama",
            {
                "is_llama_config": True,
                "rope_interleaved": False,
                "pad_token_id": 2,
                "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
            },
        ),
        ("qwen2", {"use_mrope": False, "max_window_layers": 21}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 32768}),
        (
            "qwen3-moe",
            {
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
                "max_window_layers": 48,
                "num_local_experts": 6,
                "output_router_logits": False,
                "router_aux_loss_coef": 0.001,
                "sliding_window": None,
                "use_sliding_window": False,
            },
        ),
        ("mixtral", {"router_aux_loss_coef": 0.02, "router_jitter_noise": 0.0}),
        ("gemma2", {"cache_implementation": "hybrid", "_name_or_path": "x"}),
        ("gemma2", {"hidden_act": "gelu_pytorch_tanh"}),
        ("gemma3", {"attn_logit_softcapping": None, "attention_bias": False}),
        ("gemma3", {"use_bidirectional_attention": False}),
        ("smollm3", {"max_window_layers": 28, "pretraining_tp": 2}),
        ("granite", {"attention_bias": False, "mlp_bias": False}),
        ("olmo2", {"clip_qkv": None}),
        ("phi3", {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}),
        ("phi3", {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attention_bias": False}),
        ("phi4-mini", {"full_attn_mod": 1, "interpolate_factor": 1}),
        ("phi4-mini", {"lm_head_bias": False, "mlp_bias": False}),
    ],
)
def test_harmless_fields_change_nothing(family, published):
    raw = families.raw_config(family)
    config = read_decoder_config(raw | published, "config.json")
    assert config == read_decoder_config(raw, "config.json")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_config_that_was_written_in_full_is_the_same(family):
    """As `to_json_file(use_diff=False)` writes it, with what older versions added."""
    raw = families.raw_config(family)
    theta = {} if "rope_parameters" in raw else {"rope_theta": raw["rope_theta"]}
    full = AutoConfig.for_model(**raw | theta).to_dict() | {
        **dict.fromkeys(("is_decoder", "add_cross_attention", "output_scores"), False),
        **dict.fromkeys(("prefix", "bad_words_ids", "cross_attention_hidden_size")),
        **{"pruned_heads": {}, "temperature": 1.0, "max_length": 20, "num_beams": 1},
    }
    config = read_decoder_config(json.loads(json.dumps(full)), "config.json")
    assert config == read_decoder_config(raw, "config.json")


@pytest.mark.parametrize(
    ("family", "change", "named"),
    [
        ("mistral", {"layer_types": [FULL, FULL]}, "'layer_types' (['full_attention'"),
        ("qwen2", {"attention_bias": False}, "'attention_bias' (False) is not known"),
        ("qwen2", {"use_mrope": True}, "use_mrope True is not supported"),
        ("qwen2", {"layer_types": [FULL]}, "'layer_types' must name 2 layers"),
        ("qwen2", {"layer_types": [FULL, "chunked"]}, "layer_types 'chunked' is not"),
        ("qwen2", {"layer_types": [FULL, SLIDING]}, "without a sliding_window"),
        ("qwen2-window", {"sliding_window": None}, "'sliding_window' is missing"),
        ("qwen3-moe", {"mlp_only_layers": [1]}, "mlp_only_layers [1] is not"),
        ("qwen3-moe", {"decoder_sparse_step": 2}, "decoder_sparse_step 2 is not"),
        ("qwen3-moe", {"num_local_experts": 9}, "num_local_experts 9 is not"),
        ("qwen3-moe", {"num_experts_per_tok": 7}, "is 7, but there are 6 experts"),
        ("qwen3-moe", {"num_experts": 10**9}, "'num_experts' must be at most 4096"),
        ("mixtral", {"num_local_experts": 0}, "'num_local_experts' must be positive"),
        ("gemma2", {"use_bidirectional_attention": True}, "attention True is not"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "must be positive, got -1.0"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0"),
        ("gemma3", {"rope_parameters": families.PLAIN}, "'rope_type' ('default')"),
        ("gemma3", {"model_type": "gemma3"}, "model_type 'gemma3' is not supported"),
        ("smollm3", {"no_rope_layers": [1]}, "'no_rope_layers' must have 2 numbers"),
        ("smollm3", {"no_rope_layers": [1, True]}, "'no_rope_layers' must have 2 num"),
        ("smollm3", {"layer_types": [FULL, SLIDING]}, "without a sliding_window"),
        ("granite", {"logits_scaling": 0}, "'logits_scaling' must be positive, got 0"),
        ("granite", {"residual_multiplier": None}, "'residual_multiplier' is missing"),
        ("olmo2", {"clip_qkv": 8.0}, "'clip_qkv' (8.0) is not known"),
        ("olmo3", {"rope_parameters": families.PLAIN}, "'rope_type' ('default')"),
        ("phi3", {"lm_head_bias": True}, "lm_head_bias True is not supported"),
        ("phi3", {"full_attn_mod": 2}, "full_attn_mod 2 is not supported"),
        ("phi3", {"partial_rotary_factor": 0.1}, "must be even and not empty, got 0"),
        ("phi3", {"rope_scaling": families.YARN}, "rope_type 'yarn' is not supported"),
    ],
)
def test_a_family_refuses_by_name(family, change, named):
    raw = families.raw_config(family) | change
    with pytest.raises(InputError, match=re.escape(named)) as error:
        read_decoder_config(raw, "config.json")
    assert "\n" not in str(error.value)


def test_rope_of_each_kind_of_layer_in_both_spellings():
    raw = families.raw_config("gemma3", head_dim=4)
    config = read_decoder_config(raw, "config.json")
    assert config.rope == RopeConfig(theta=300.0, divisors=(3.0, 3.0))
    assert config.sliding_rope == RopeConfig(theta=30.0)
    del raw["rope_parameters"]
    defaults = read_decoder_config(raw | {"rope_theta": None}, "config.json")
    assert defaults.rope == RopeConfig(theta=1e6)
    assert defaults.sliding_rope == RopeConfig(theta=1e4)
    scaling = {"factor": 3.0, "rope_type": "linear"}
    raw |= {"rope_theta": 300.0, "rope_local_base_freq": 30, "rope_scaling": scaling}
    assert read_decoder_config(raw, "config.json") == config


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "num_hidden_layers"),
        ("gemma2", "num_hidden_layers"),
        ("qwen2", "num_hidden_layers"),
        ("llama-linear", "head_dim"),
        ("llama-3", "head_dim"),
    ],
)
def test_sizes_that_are_listed_are_bounded(family, name):
    """In no time, and before any list of this length is made."""
    raw = families.raw_config(family, **{name: 10**9})
    with pytest.raises(InputError, match=f"'{name}' must be at most"):
        read_decoder_config(raw, "config.json")


def test_texts_are_as_long_as_the_short_factors_of_longrope_allow():
    """A longer text would turn all of its tokens by other angles."""
    config = read_decoder_config(families.raw_config("phi4-mini"), "config.json")
    assert config.max_positions == 40
    assert config.rope.divisors == (1.0, 1.5, 2.0)
    assert config.rope.share == 0.75


def test_layers_without_rope():
    layers = {"num_hidden_layers": 8, "no_rope_layer_interval": None}
    config = read_decoder_config(families.raw_config("smollm3", **layers), "c.json")
    assert config.no_rope == (False, False, False, True) * 2  # the default is 4
