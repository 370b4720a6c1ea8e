"""The table of docs/models.md: which families of models are read, and how they look."""

import sys
from pathlib import Path

from figures import markdown, pinned

from goracs_jax.models.gguf_config import ARCHITECTURES
from goracs_jax.models.hf_config import FAMILIES

ROOT = Path(__file__).parent.parent
#: What people call the models of a family.
MODELS = {
    "llama": "Llama 2, 3, 3.1 to 3.3; SmolLM2",
    "mistral": "Mistral 7B",
    "qwen2": "Qwen 2, 2.5",
    "qwen3": "Qwen 3",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3, of text; the text part of type gemma3",
    "smollm3": "SmolLM3",
    "granite": "Granite 3",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "phi3": "Phi-3 mini and medium, Phi-4, Phi-4-mini",
}
#: The architecture in GGUF files, where it has another name.
GGUF = {"mistral": "llama", "gemma3_text": "gemma3"}
#: Families that people ask for, and why they are not read.
OTHERS = {
    "mixtral": "mixture of experts",
    "qwen3_moe": "mixture of experts",
    "gpt_oss": "mixture of experts, in MXFP4",
    "deepseek_v3": "mixture of experts, another attention",
    "llama4": "mixture of experts",
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
            MODELS[name],
            "read",
            "read" if GGUF.get(name, name) in ARCHITECTURES else "refused",
            ", ".join(tried[name]),
        ]
        for name in FAMILIES
    ]
    rows += [[f"`{n}`", why, _refused(n), "refused", ""] for n, why in OTHERS.items()]
    head = ["model_type", "models", "folder", "GGUF", "tried"]
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
