"""The picture of a selection with several budgets or lambdas."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from goracs_jax.report.picture import Row


def summary_figure(rows: Mapping[tuple[float, int], Row]) -> Figure:
    """Plot POO and its lower bound against the budget, with one line per lambda.

    Args:
        rows: Results of one method by (lambda, budget). Values of POO for different
            lambdas have different units, so a line is comparable only with its own
            bound.

    Returns:
        A figure with one panel.

    >>> row = Row("goracs", 0.5, 0.4, 1.0, 2.0, 0.1)
    >>> len(summary_figure({(0.1, 4): row, (0.1, 8): row}).axes[0].lines)
    2
    """
    picture = Figure(figsize=(7, 4.6), layout="constrained")
    axes = picture.subplots()
    for i, lambda_ in enumerate(dict.fromkeys(lambda_ for lambda_, _ in rows)):
        mine = {n: row for (of, n), row in sorted(rows.items()) if of == lambda_}
        budgets, colour = list(mine), f"C{i}"
        values = [row.objective for row in mine.values()]
        axes.plot(budgets, values, "o-", c=colour, label=f"lambda {lambda_:g}")
        floor = np.array([row.lower_bound for row in mine.values()])
        if np.isfinite(floor).all():
            axes.plot(budgets, floor, "v:", c=colour, label="no subset can be below")
    budgets = sorted({n for _, n in rows})
    axes.set_xscale("log")
    axes.set_xticks(budgets, map(str, budgets))
    axes.minorticks_off()
    axes.set(title="Objective POO, lower is better", xlabel="budget")
    axes.legend(loc="best")
    return picture
