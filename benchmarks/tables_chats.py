"""The tables of chat templates (docs/chat.md) and of tokenizers (docs/models.md)."""

import sys
from pathlib import Path

from figures import markdown, pinned

from goracs_jax.models.gguf_tokenizer import SPLITS

ROOT = Path(__file__).parent.parent


def templates() -> str:
    """Return the templates that are compared with TRL's variants of them."""
    sys.path.insert(0, str(ROOT / "tests"))
    import templates as cases  # pyright: ignore[reportMissingImports]

    rows = [
        [models, f"`{name}`", tools]
        for name, (models, tools) in cases.TEMPLATES.items()
    ]
    rows += [["SmolLM2, as published; Mistral, in its form", "none", "not compared"]]
    head = ["models", "in TRL", "chats with tools, scored in answers"]
    return (
        "\n".join(markdown(head, rows))
        + f"\n\nCompared with TRL {pinned('trl')} on tokens and mask (`make parity`)."
    )


def tokenizers() -> str:
    """Return the kinds of tokenizers, and whether they are read."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tokenizer_kinds as cases  # pyright: ignore[reportMissingImports]

    said = lambda make: str(make.__doc__).removesuffix(".")
    rows = [
        ["tokenizer.json", kind, said(make), "read"]
        for kind, make in cases.KINDS.items()
    ]
    splits = ", ".join(f"`{name}`" for name in SPLITS)
    refused = ", ".join(f"`{name}`" for name in cases.GGUF_REFUSED)
    rows += [
        ["GGUF", "`gpt2`: byte-level BPE", f"`tokenizer.ggml.pre` is {splits}", "read"],
        ["GGUF", "`gpt2`", "another `tokenizer.ggml.pre`", "refused"],
        ["GGUF", "`llama`: SentencePiece BPE", "with bytes or without", "read"],
        ["GGUF", refused, "", "refused"],
        ["vocab.json and merges.txt, vocab.txt", "by its class", "", "read"],
        ["tokenizer.model or tekken.json alone", "", "without its package", "refused"],
    ]
    head = ["file", "kind", "as in", "here"]
    return (
        "\n".join(markdown(head, rows))
        + f"\n\nIds are those of tokenizers {pinned('tokenizers')} for tokenizer.json."
    )
