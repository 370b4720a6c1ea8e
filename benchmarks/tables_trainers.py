"""The table of docs/trainers.md: what was tried of which trainer."""

from typing import Any

from figures import load, markdown, pinned

TUNIX = {
    "Qwen3 float32": "hidden states are sown with output_hidden_states=True",
    "Qwen3 bfloat16": "NF4 base weights were not tried",
    "Llama 3 float32": "returns no hidden states: wrap its final norm",
}
#: Modules that tests/trainers compares with a loop of jax.grad, by package.
MODULES = {"plain nnx": "flax", "linen": "flax", "Equinox": "equinox"}
#: What was read of trainers that were not run.
NOT_TRIED = {
    "MaxText": "needs Python 3.12 or newer",
    "gemma": "needs Python 3.12 or newer; linen",
    "easydel": "pins another flax; exchange adapters as files",
    "levanter": "Equinox and haliax",
}


def trainers() -> str:
    """Return trainers, what was run with which version, and what to know of each."""
    figures = load("trainers")
    tunix, qwix = (figures["trainers"][name] for name in ("google-tunix", "qwix"))
    rows = [
        [
            f"tunix, {', '.join(name.rsplit(' ', 1))}",
            f"google-tunix {tunix}, qwix {qwix}",
            _differences(figures[name]),
            _training(figures[name]),
            note,
        ]
        for name, note in TUNIX.items()
    ]
    rows += [
        [name, f"{package} {pinned(package)}", "within 1e-6, in tests", "", ""]
        for name, package in MODULES.items()
    ]
    rows += [[name, "not tried", "", "", note] for name, note in NOT_TRIED.items()]
    head = ["trainer or module", "version", "gradient norms", "trained on", "to know"]
    text = "\n".join(markdown(head, rows))
    jax, flax = (figures["versions"][name] for name in ("jax", "flax"))
    also = ", ".join(f"{name} {of}" for name, of in figures["also"].items())
    return (
        f"{text}\n\nThe differences are the largest relative ones, over "
        f"{figures['examples']} examples, to the trainer's own loss under "
        "`nnx.value_and_grad`, one example at a time; first for all adapters, then for "
        f"lora_B of the last v_proj. Models are tiny and random; jax {jax}, "
        f"flax {flax}, {also} (`benchmarks/trainers.py`, `make tunix`)."
    )


def _differences(case: dict[str, Any]) -> str:
    parts = (case[name] for name in ("all adapters", "last v_proj B"))
    return ", ".join(f"{part['norm, relative']:.0e}" for part in parts)


def _training(case: dict[str, Any]) -> str:
    if not (done := case.get("training")):
        return ""
    before, after = (
        done[f"loss of the coreset {when}"] for when in ("before", "after")
    )
    return (
        f"{len(done['rows chosen'])} rows, {done['steps']} steps: loss {before:.2f} to "
        f"{after:.2f}"
    )
