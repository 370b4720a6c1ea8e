"""The picture of a check: planted mistakes, ranges of distance, and correlations."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from goracs_jax.check.examine import Examined
from goracs_jax.evaluate.metrics import Estimate


def check_figure(found: Examined) -> Figure:
    """Draw what was found; a part that was not reached is an empty panel.

    Args:
        found: What the check found.

    Returns:
        A figure with three panels.
    """
    picture = Figure(figsize=(15, 4.6), layout="constrained")
    planted, ranges, ranks = picture.subplots(1, 3)
    areas = {
        name: f.auc for named in found.planted.values() for name, f in named.items()
    }
    _bars(planted, areas, chance=0.5)
    planted.set(title="Planted mistakes", xlabel="AUC, with 95 % interval")
    for name, trend in found.trends.items():
        ranges.plot(np.arange(1, len(trend.losses) + 1), trend.losses, "o-", label=name)
    ranges.set(
        title=f"Loss by distance (ICC {found.reliability.icc:.2f})",
        xlabel="range of distance, nearest first",
        ylabel="loss",
    )
    if found.trends:
        ranges.legend(loc="best")
    agreeing = {
        name: a.corrected
        for named in found.agreements.values()
        for name, a in named.items()
    }
    _bars(ranks, agreeing, chance=0.0)
    ranks.set(
        title="Rank correlation with the losses",
        xlabel="corrected for noise, with 95 % interval",
    )
    return picture


def _bars(axes: Axes, values: dict[str, Estimate], chance: float) -> None:
    """Draw estimates below each other, with a line at what chance gives."""
    axes.axvline(chance, color="black", lw=1)
    for y, (value, low, high) in enumerate(values.values()):
        bar = np.array([[value - low], [high - value]])
        axes.errorbar([value], [y], xerr=bar, fmt="o", capsize=3, color="C0")
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
