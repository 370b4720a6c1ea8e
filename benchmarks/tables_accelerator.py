"""The tables of accelerator.py, one for each device that it ran on."""

from typing import Any

from common import RESULTS
from figures import load, markdown

PERCENT = ("floor_share", "peak_share")


def accelerators() -> str:
    """Return the tables of all devices."""
    names = sorted(path.stem for path in RESULTS.glob("accelerator_*.json"))
    tables = [device(name) for name in names if not name.endswith("_tiny")]
    return "\n\n".join(tables) or "No device has been measured yet."


def device(name: str) -> str:
    """Return every figure of a device: seconds, floors, shares, and what is missing."""
    found = load(name)
    rows = [
        row(part, step, figures)
        for part, steps in found["parts"].items()
        for step, figures in steps.items()
        if (part, step) != ("selection", "data") and part != "ceilings"
    ]
    head = ["part", "s", "first call, s", "floor, s", "floor / s, %"]
    head += ["peak, %", "tokens/s", "further"]
    by = found["parts"]["ceilings"]["floors are by"]
    data = found["parts"]["selection"]["data"]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\n{found['device']}, jax {found['versions']['jax']}, {found['cores']} "
            f"cores. Peaks ({by['source']}): {by['float32'] / 1e12:.3g} TFLOP/s in "
            f"float32, {by['bfloat16'] / 1e12:.3g} in bfloat16, "
            f"{by['bandwidth'] / 1e9:.0f} GB/s. The selection is on "
            f"{data['train']:,} x {data['valid']:,} rows (n = {data['budget']:,}, "
            f"{data['source']}); models read examples of {found['sizes']['time']} "
            "tokens in bfloat16 (`benchmarks/accelerator.py`).",
        ]
    )


def row(part: str, step: str, figures: Any) -> list[str]:
    """Return the cells of one figure."""
    if not isinstance(figures, dict):  # why a part ended early
        return [part, *[""] * 6, figures]
    if "entries" in figures:  # of transport.py
        return [f"{part}, {step}", *[""] * 6, transport(figures)]
    value = lambda name, form: form.format(figures[name]) if name in figures else ""
    share = lambda name: f"{100 * figures[name]:.0f}" if name in figures else ""
    return [
        f"{part}, {step}",
        *(value(name, "{:.3g}") for name in ("seconds", "first_seconds")),
        value("floor_seconds", "{:.2g}"),
        *map(share, PERCENT),
        value("tokens_per_second", "{:,.0f}"),
        further(figures),
    ]


def further(figures: dict[str, Any]) -> str:
    """Return what has no column of its own."""
    words = {
        "not_done": "not done: {}",
        "goal_seconds": "goal {:g} s",
        "goal_peak_share": "goal {:.0%} of the peak",
        "ratio": "{:.2f} times",
        "goal_ratio": "goal {:g} times",
        "spearman": "Spearman {:.3f}",
        "excess": "{:.2%} above the exact value",
        "sweeps": "{} sweeps",
        "epochs": "{} epochs follow the first",
        "compile_seconds": "{:.0f} s to compile",
        "weights": "weights: {}",
        "poo": "POO {:.4f}",
        "lower_bound": "bound {:.4f}",
    }
    return ", ".join(
        form.format(figures[name]) for name, form in words.items() if name in figures
    )


def transport(figures: dict[str, Any]) -> str:
    """Return both solvers' seconds, cold and from a similar subset's potentials."""
    seconds = (
        f"{name} {figures[f'{solver}_seconds']:.2g} s, "
        f"{figures[f'{solver}_tenth_seconds']:.2g} s after a tenth has changed"
        for solver, name in (("exact", "POT"), ("sinkhorn", "Sinkhorn"))
    )
    return "; ".join([*seconds, f"{figures['sinkhorn_excess']:.2%} above"])
