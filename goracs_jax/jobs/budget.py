"""The budget of `--budget auto`, found before the search."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from goracs_jax.jobs.select import Loaded
from goracs_jax.jobs.select_config import SelectConfig
from goracs_jax.jobs.select_inputs import SelectInputs
from goracs_jax.jobs.selected import Curve
from goracs_jax.runs.say import waiting
from goracs_jax.runs.stages import Arrays, Stage, run_stage
from goracs_jax.selection.auto_budget import auto_budget


def found_budget(
    inputs: SelectInputs, config: SelectConfig, folder: Path, loaded: Loaded
) -> tuple[SelectConfig, Curve]:
    """Find the budget of `--budget auto`, and keep it as a stage.

    Args:
        inputs: What is selected from.
        config: A search without a budget.
        folder: Where stages are kept.
        loaded: The arrays and the cost.

    Returns:
        The search with its budget, and held-out POO by budget.
    """
    (lambda_,) = config.lambdas
    depends_on = {
        **inputs.identity,
        **config.identity,
        "lambda": lambda_,
        "seed": config.seed,
    }

    def compute(_: object) -> Arrays:
        key = jax.random.key(config.seed)
        cost, wishes = loaded.weighed(lambda_), loaded.wishes
        found = auto_budget(cost, key=key, wishes=wishes)
        return {"budget": np.array(found.budget), "curve": np.array(found.curve)}

    with waiting("the budget from which on held-out validation gains nothing"):
        arrays = run_stage(folder, Stage("budget", depends_on, compute)).arrays
    curve = [(int(n), float(value)) for n, value in arrays["curve"]]
    return replace(config, budgets=(int(arrays["budget"]),)), curve
