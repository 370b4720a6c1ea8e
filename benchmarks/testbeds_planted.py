"""How well arms, spaces and rewards find what is planted; nothing is trained."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from testbeds_arms import Choice
from testbeds_cells import t_interval

#: Numbers of rows of which the planted share is told.
BUDGETS = (64, 200)


def planted(
    choice_of: Callable[[int], Choice], arms: Sequence[str], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Let arms choose from the pools of some seeds.

    Args:
        choice_of: Returns the choice of a seed.
        arms: The arms.
        seeds: The seeds.

    Yields:
        For each arm the share of planted rows among those that it chooses, and what
        `Choice.found` returns, with t intervals over seeds; and what it depends on.
    """
    for arm in arms:
        values: dict[str, list[float]] = {}
        for seed in seeds:
            choice = choice_of(seed)
            for budget in BUDGETS:
                rows = choice._replace(budget=budget).rows(arm, seed)
                share = float(choice.universe.planted[rows].mean())
                values.setdefault(f"share of {budget}", []).append(share)
            for name, area in choice.found(arm, seed).items():
                values.setdefault(f"AUC by {name}", []).append(area)
        row = {"arm": arm} | choice_of(seeds[0]).depends_on(arm, seeds[0])
        for name, each in values.items():
            row[name] = t_interval(np.array(each))._asdict()
        yield row
