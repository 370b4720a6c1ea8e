"""What the families of decoders have that Llama has not, in words of config.json.

Windows are smaller than the tests' sequences, and caps small enough to bend what they
cap.
"""

import json
from pathlib import Path
from typing import Any

import tiny

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 300.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Pairs of all three kinds: kept, between, and slowed by the whole factor.
    "original_max_position_embeddings": 32,
}
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
LINEAR = {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}
PLAIN = {"rope_type": "default", "rope_theta": 300.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 300.0,
    "factor": 4.0,
    # Pairs of all three kinds: kept, between, and slowed by the whole factor.
    "beta_fast": 3.0,
    "beta_slow": 0.3,
    "original_max_position_embeddings": 16,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 300.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 300.0,
    "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [4.0, 5.0, 6.0, 7.0],
    "original_max_position_embeddings": 40,
}
BOTH = {"full_attention": LINEAR, "sliding_attention": PLAIN | {"rope_theta": 30.0}}
GEMMA = {
    "head_dim": 12,
    "query_pre_attn_scalar": 20,
    "sliding_window": 7,
    "final_logit_softcapping": 4.0,
    "tie_word_embeddings": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-linear": {"model_type": "llama", "rope_parameters": LINEAR},
    "llama-3": {"model_type": "llama", "rope_parameters": LLAMA3},
    "llama-yarn": {"model_type": "llama", "rope_parameters": YARN},
    "llama-yarn-mscale": {
        "model_type": "llama",
        "rope_parameters": YARN
        | {"mscale": 2.0, "mscale_all_dim": 0.5, "truncate": False},
    },
    "llama-dynamic": {"model_type": "llama", "rope_parameters": DYNAMIC},
    "llama-longrope": {"model_type": "llama", "rope_parameters": LONGROPE},
    "llama-bias": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 7},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "head_dim": 12,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 20,
        "norm_topk_prob": True,
    },
    "qwen3-moe-plain": {
        "model_type": "qwen3_moe",
        "head_dim": 12,
        "num_experts": 4,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 20,
        "norm_topk_prob": False,
    },
    "mixtral": {
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 7,
    },
    "gemma2": GEMMA | {"model_type": "gemma2", "attn_logit_softcapping": 3.0},
    "gemma3": GEMMA
    | {
        "model_type": "gemma3_text",
        "sliding_window_pattern": 2,
        "rope_parameters": BOTH,
    },
    "smollm3": {
        "model_type": "smollm3",
        "no_rope_layer_interval": 2,
        "tie_word_embeddings": True,
    },
    "smollm3-window": {
        "model_type": "smollm3",
        "num_hidden_layers": 2,
        "no_rope_layers": [0, 1],
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 7,
    },
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.5,
        "residual_multiplier": 0.4,
        "logits_scaling": 0.7,
    },
    "olmo2": {"model_type": "olmo2"},
    "olmo3": {
        "model_type": "olmo3",
        "num_hidden_layers": 2,
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": YARN, "sliding_attention": PLAIN},
    },
    "phi3": {"model_type": "phi3"},
    "phi3-window": {"model_type": "phi3", "sliding_window": 7},
    "phi4-mini": {
        "model_type": "phi3",
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 40,
        "rope_parameters": LONGROPE
        | {"short_factor": [1.0, 1.5, 2.0], "long_factor": [4.0, 5.0, 6.0]},
    },
}


CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}


def raw_config(family: str, **changes) -> dict[str, Any]:
    """The config.json of a tiny model, all that is needed and nothing else."""
    raw = tiny.LLAMA | {"vocab_size": 96, "max_position_embeddings": 64}
    raw |= FAMILIES[family] | changes
    raw["architectures"] = [CLASSES[raw["model_type"]]]
    if "gemma" in family:
        raw["hidden_activation"] = "gelu_pytorch_tanh"
        del raw["hidden_act"]
    return raw


def old_spelling(folder: Path):
    """Writes config.json as transformers 4 did, before `rope_parameters`."""
    file = folder / "config.json"
    raw = json.loads(file.read_text())
    rope = raw.pop("rope_parameters")
    if "full_attention" in rope:
        if raw["model_type"].startswith("gemma"):
            raw["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    raw["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    raw["rope_scaling"] = None if kind == "default" else rope | {"type": kind}
    file.write_text(json.dumps(raw))
