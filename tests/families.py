"""What the families of decoders have that Llama has not, in words of config.json.

Windows are smaller than the tests' sequences, and caps small enough to bend what they
cap.
"""

import json
from pathlib import Path
from typing import Any

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 300.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Pairs of all three kinds: kept, between, and slowed by the whole factor.
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}
PLAIN = {"rope_type": "default", "rope_theta": 300.0}
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
    "gemma2": GEMMA | {"model_type": "gemma2", "attn_logit_softcapping": 3.0},
    "gemma3": GEMMA
    | {
        "model_type": "gemma3_text",
        "sliding_window_pattern": 2,
        "rope_parameters": BOTH,
    },
}


def old_spelling(folder: Path):
    """Writes config.json as transformers 4 did, before `rope_parameters`."""
    file = folder / "config.json"
    raw = json.loads(file.read_text())
    rope = raw.pop("rope_parameters")
    if "full_attention" in rope:
        raw["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    raw["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    raw["rope_scaling"] = None if kind == "default" else rope | {"type": kind}
    file.write_text(json.dumps(raw))
