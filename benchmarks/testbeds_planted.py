"""How well arms, spaces and rewards find what is planted; nothing is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from testbeds_arms import Choice
from testbeds_cells import t_interval
from testbeds_pools import Universe, draw

#: Numbers of rows of which the planted share is told.
BUDGETS = (64, 200)


def planted(
    universe: Universe,
    folder: Path,
    arms: Sequence[str],
    seeds: Sequence[int],
    lambda_: float,
) -> Iterator[dict[str, Any]]:
    """Let arms choose from the pools of some seeds.

    Yields:
        For each arm the share of planted rows among those that it chooses, and what
        `Choice.found` returns, with t intervals over seeds; and what it depends on.
    """
    for arm in arms:
        values: dict[str, list[float]] = {}
        for seed in seeds:
            choice = Choice(universe, draw(universe, seed), folder, lambda_)
            for budget in BUDGETS:
                rows = choice._replace(budget=budget).rows(arm, seed)
                share = float(universe.planted[rows].mean())
                values.setdefault(f"share of {budget}", []).append(share)
            for name, area in choice.found(arm, seed).items():
                values.setdefault(f"AUC by {name}", []).append(area)
        row = {"arm": arm} | choice.depends_on(arm, seeds[0])
        for name, each in values.items():
            row[name] = t_interval(np.array(each))._asdict()
        yield row
