"""The table of docs/models.md: which families of models are read, and how they look."""

import sys
from pathlib import Path
from typing import NamedTuple

from figures import markdown, pinned

from goracs_jax.models.gguf_config import ARCHITECTURES
from goracs_jax.models.hf_config import FAMILIES

ROOT = Path(__file__).parent.parent


class Published(NamedTuple):
    """What the models of a family are called, and what they come with."""

    models: str
    tokenizer: str
    template: str  # how chats look


BYTES, PIECES = "byte-level BPE", "SentencePiece BPE"
CHATML = "ChatML"
MODELS = {
    "llama": Published(
        "Llama 2, 3, 3.1 to 3.3; SmolLM2",
        f"{PIECES} (2), {BYTES}",
        f"[INST] (2), headers (3), {CHATML} (SmolLM2)",
    ),
    "mistral": Published("Mistral 7B", f"{PIECES}, {BYTES} (Tekken)", "[INST]"),
    "qwen2": Published("Qwen 2, 2.5", BYTES, CHATML),
    "qwen3": Published("Qwen 3", BYTES, f"{CHATML} with thoughts"),
    "qwen3_moe": Published(
        "Qwen 3 30B-A3B, 235B-A22B", BYTES, f"{CHATML} with thoughts"
    ),
    "mixtral": Published("Mixtral 8x7B, 8x22B", PIECES, "[INST]"),
    "gemma2": Published("Gemma 2", PIECES, "turns of Gemma"),
    "gemma3_text": Published(
        "Gemma 3, of text; the text part of type gemma3", PIECES, "turns of Gemma"
    ),
    "smollm3": Published("SmolLM3", BYTES, f"{CHATML} with thoughts"),
    "granite": Published("Granite 3", BYTES, "roles of Granite"),
    "olmo2": Published("OLMo 2", BYTES, "roles of Tulu"),
    "olmo3": Published("OLMo 3", BYTES, CHATML),
    "phi3": Published(
        "Phi-3 mini and medium, Phi-4, Phi-4-mini",
        f"{PIECES} (3), {BYTES} (4)",
        f"roles of Phi, {CHATML} with separators (Phi-4)",
    ),
}
#: The architecture in GGUF files, where it has another name.
GGUF = {"mistral": "llama", "gemma3_text": "gemma3"}
#: Families that people ask for, and why they are not read.
OTHERS = {
    "gpt_oss": "mixture of experts, in MXFP4",
    "deepseek_v3": "mixture of experts, another attention",
    "glm4_moe": "mixture of experts",
    "nemotron_h": "other layers",
    "llama4": "mixture of experts",
    "qwen2_moe": "mixture of experts, some for all tokens",
    "qwen3_5": "other layers",
    "cohere2": "other layers",
    "gemma": "other scales",
    "gemma3n": "other layers",
    "qwen3_next": "other layers",
    "granitemoehybrid": "other layers",
    "gpt2": "other layers",
    "phi": "other layers",
}


def families() -> str:
    """Return the families, whether they are read, and what they were tried with."""
    sys.path.insert(0, str(ROOT / "tests"))
    import families as cases  # pyright: ignore[reportMissingImports]

    tried: dict[str, list[str]] = {}
    for name, raw in cases.FAMILIES.items():
        tried.setdefault(raw["model_type"], []).append(name)
    rows = [
        [
            f"`{name}`",
            *MODELS[name],
            "read",
            "read" if GGUF.get(name, name) in ARCHITECTURES else "refused",
            ", ".join(tried[name]),
        ]
        for name in FAMILIES
    ]
    rows += [
        [f"`{n}`", why, "", "", _refused(n), "refused", ""] for n, why in OTHERS.items()
    ]
    head = ["model_type", "models", "tokenizer", "template", "folder", "GGUF", "tried"]
    version = pinned("transformers")
    return (
        "\n".join(markdown(head, rows))
        + "\n\nWhat was tried are tiny random models of `tests/families.py`: their "
        f"logits are those of transformers {version} within 1e-4 of the largest one "
        "(`make parity`)."
    )


def _refused(model_type: str) -> str:
    """Check that a family is not read; its name is what is refused first."""
    if model_type in FAMILIES:
        raise ValueError(f"{model_type} is read: write it into MODELS.")
    return "refused"
