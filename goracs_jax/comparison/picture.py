"""The picture of a comparison: a metric against the budget and against its cost."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from goracs_jax.comparison.design import FULL
from goracs_jax.comparison.table import TableRow

AXES = {
    "budget": "budget (examples)",
    "total_seconds": "seconds of selection and training",
    "total_flops": "FLOPs of selection and training",
}


def comparison_figure(rows: Sequence[TableRow], metric: str) -> Figure:
    """Draw a line per method in three panels: by budget, by seconds, by FLOPs.

    Args:
        rows: The rows of `table.rows_of`. Where there are several lambdas, only the one
            that validation chose is drawn.
        metric: The metric of the vertical axis, with its intervals.

    Returns:
        The figure.

    >>> found = {"AUC": {"value": 0.5, "low": 0.4, "high": 0.6}}
    >>> costs = {"total_seconds": 3.0, "total_flops": 1e9, "lambda_choice": None}
    >>> row = {"name": "random", "method": "random", "budget": 8, "metrics": found}
    >>> len(comparison_figure([row | costs], "AUC").axes)
    3
    """
    drawn = [r for r in rows if r["lambda_choice"] != "fixed"]
    picture = Figure(figsize=(15, 4.6), layout="constrained")
    panels = picture.subplots(1, 3, sharey=True)
    names = list(dict.fromkeys(r["name"] for r in drawn))
    for panel, (key, label) in zip(panels, AXES.items(), strict=True):
        for i, name in enumerate(names):
            mine = [r for r in drawn if r["name"] == name]
            mine.sort(key=lambda r: r["budget"])
            x = np.array([r[key] for r in mine], float)
            full = mine[0]["method"] == FULL
            # Side by side, where intervals would hide each other.
            if key == "budget" and not full:
                x = x * 1.03 ** (i - (len(names) - 1) / 2)
            # None becomes NaN, of which no bar is drawn.
            value, low, high = (
                np.array([r["metrics"][metric][end] for r in mine], float)
                for end in ("value", "low", "high")
            )
            style = {"color": "black", "fmt": "s"} if full else {"fmt": "o-"}
            bars = [value - low, high - value]
            panel.errorbar(x, value, bars, capsize=3, label=name, **style)
        panel.set(xlabel=label, xscale="log")
        panel.grid(alpha=0.3)
    budgets = sorted({r["budget"] for r in drawn})
    panels[0].set_xticks(budgets, map(str, budgets))
    panels[0].minorticks_off()
    for panel in panels[1:]:  # within a decade the labels of minor ticks are wide
        panel.tick_params("x", which="both", labelrotation=30)
    panels[0].set_ylabel(metric)
    panels[1].set_title(f"{metric}, mean and 95 % interval")
    panels[0].legend(loc="best")
    return picture
