"""The table of steps with adapters in the last layers, and how these rank subsets."""

from figures import load, markdown


def layers() -> str:
    """Return the processor seconds of a step, with all adapters and with few."""
    found = load("layers")
    names = {
        "all layers": "all 30",
        "last:6": "the last 6; the layers below run in every step",
        "last:6, kept states": "the last 6; the layers below ran once",
    }
    rows = [
        [
            shown,
            f"{found['median'][name]:.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
            f"{found['times_faster'][name]:.1f}",
        ]
        for name, shown in names.items()
        for seconds in [found["processor_seconds"][name]]
    ]
    head = ["layers with an adapter", "processor s of a step", "times as fast"]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\nMedians of {len(found['processor_seconds']['all layers'])} steps of "
            f"{found['batch']} examples of {found['mean_tokens']:.0f} tokens, and the "
            "least and the most; SmolLM2-135M, the loss of the answer alone, "
            f"{found['cores']} cores (`benchmarks/layers.py`). The one pass through "
            "the layers below takes "
            f"{found['once_processor_seconds_per_text']:.2f} processor s an example, "
            f"compiling included, and keeps {found['bytes_per_text'] / 1024:.0f} KiB "
            "of each. " + agreement(),
        ]
    )


def agreement() -> str:
    """Return whether adapters in the top layers rank subsets as all layers do."""
    found = load("layers_agreement")
    shown = {
        name: [
            "{value:.2f} [{low:.2f}, {high:.2f}]".format(**way[other])
            for other in ("with all layers", "with itself")
        ]
        for name, way in found["ways"].items()
        if "with itself" in way
    }
    parts = [
        f"{name} with all layers {plain} (two seeds of {name} with each other {own})"
        for name, (plain, own) in shown.items()
    ]
    return (
        f"Correlations of the ranks of {found['subsets']} subsets of flips by the AUC "
        f"that training on them gives: {', '.join(parts)}, with intervals of 95 % "
        "(`benchmarks/layers_agreement.py`)."
    )
