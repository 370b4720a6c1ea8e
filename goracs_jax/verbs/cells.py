"""The cells of `goracs select`: every budget with every lambda, a stage a method."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from goracs_jax.cost import Cost
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.selection.problem import Selection, Step
from goracs_jax.selection.sweep import chooser, ordered
from goracs_jax.settings import Select
from goracs_jax.verbs.sources import Source

BASELINE = "random"


class Inputs(NamedTuple):
    """What all cells select from, computed once."""

    arrays: Arrays  # x, y and, for lambda > 0, g
    cost: Cost  # for any lambda
    nearest: Float[np.ndarray, " train"]  # min_j D_ij
    seconds: dict[str, float]  # of the stages of x, y and g


class Cell(NamedTuple):
    """One budget with one lambda."""

    budget: int
    lambda_: float
    out: Path  # where its results go
    stages: dict[str, Stage]  # by method: the one asked for, then the baseline

    @property
    def name(self) -> str:
        """The name of its folder, where there are several."""
        return cell_name(self.budget, self.lambda_)


def cell_name(budget: int, lambda_: float) -> str:
    """A budget and a lambda as a folder's name.

    The shortest digits that mean this float: no two lambdas share a folder.

    >>> cell_name(64, 0.1)
    'budget-64-lambda-0.1'
    """
    return f"budget-{budget}-lambda-" + np.format_float_positional(lambda_, trim="-")


def make_cells(
    settings: Select, source: Source, inputs: Callable[[], Inputs]
) -> list[Cell]:
    """The cells in the order that shares most; one alone has --out for itself.

    Args:
        settings: Of the verb.
        source: What is selected from.
        inputs: Computes it, when the first cell needs it.
    """

    @cache
    def choose(method: str) -> Callable[[int, float], Selection]:
        return chooser(
            inputs().cost,
            settings.budget,
            key=jax.random.key(settings.seed),
            method=method,
            solver=settings.solver,
            grad_norms=inputs().arrays.get("g"),
            prediction_errors=inputs().arrays.get("e"),
            classes=source.labels,
        )

    def stage(method: str, budget: int, lambda_: float) -> Stage:
        depends_on = {
            **source.identity,
            "budget": budget,
            "lambda": lambda_,
            "method": method,
            "solver": settings.solver,
            "seed": settings.seed,
        }

        def compute(_: object) -> Arrays:
            found = choose(method)(budget, lambda_)
            return {name: np.asarray(value) for name, value in found._asdict().items()}

        return Stage(f"selection {method}", depends_on, compute)

    methods = dict.fromkeys([settings.method, BASELINE])
    cells = [
        Cell(n, lambda_, settings.out, {m: stage(m, n, lambda_) for m in methods})
        for n, lambda_ in ordered(settings.budget, source.lambdas)
    ]
    if len(cells) == 1:
        return cells
    return [cell._replace(out=settings.out / cell.name) for cell in cells]


def stored_selection(arrays: Arrays) -> Selection:
    """A selection from the arrays that its stage stored."""
    trace = (Step(poo, at, int(replaced)) for poo, at, replaced in arrays["trace"])
    return Selection(
        arrays["indices"],
        float(arrays["objective"]),
        float(arrays["lower_bound"]),
        tuple(trace),
        bool(arrays["converged"]),
    )
