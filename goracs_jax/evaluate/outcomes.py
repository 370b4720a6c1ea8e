"""Values of the metrics per test example, from the predictions that are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logit

from goracs_jax.evaluate.calibration import cross_fitted, log_likelihoods
from goracs_jax.evaluate.metrics import Units, auc_values, ranking_values
from goracs_jax.llm.prompts import Task

#: The mean over examples of the log likelihood of the right answer (for a title, of all
#: its tokens together). Its negative is the log loss.
LIKELY = "log likelihood"
#: The same once the margins of Yes over No are calibrated.
CALIBRATED = "calibrated log likelihood"
#: The log likelihood of a title divided by its number of tokens.
PER_TOKEN = "log likelihood per token"
#: The mean share of the long tail among the ten titles that rank first.
TAIL = "long tail@10"
#: Columns of ranks, and what the names of their metrics start with.
RANKS = {
    "rank": "",
    "full_rank": "full ",
    "likelihood_rank": "likelihood ",
    "total_likelihood_rank": "total likelihood ",
}


def values_of(
    task: Task,
    predictions: Sequence[Mapping[str, Any]],
    units: Units | None = None,
) -> dict[str, Float[np.ndarray, " examples"]]:
    """Return for each metric one value per test example; the metric is their mean.

    Args:
        task: The task of the predictions.
        predictions: Records of predictions.jsonl.
        units: The user of each example. Predictions that were kept without a
            calibration are calibrated across the two halves of the users (by default,
            of the examples).

    Returns:
        One array for each metric.

    >>> prediction = {"rank": 2, "log_likelihoods": [-6.0], "tokens": [4]}
    >>> values = values_of("seqrec", [prediction])
    >>> values["NDCG@5"].item(), values[LIKELY].item(), values[PER_TOKEN].item()
    (0.5, -6.0, -1.5)
    """
    column = lambda name: np.array([record[name] for record in predictions])
    if task == "ctr":
        yes, margins = column("label") == "Yes", margins_of(predictions)
        if "calibrated_margin" in predictions[0]:
            calibrated = column("calibrated_margin")
        else:
            units = np.arange(len(yes)) if units is None else units
            calibrated, _ = cross_fitted(margins, yes, units)
        return {
            "AUC": auc_values(yes, margins),
            LIKELY: log_likelihoods(margins, yes),
            CALIBRATED: log_likelihoods(calibrated, yes),
        }
    found = {
        prefix + metric: value
        for name, prefix in RANKS.items()
        if name in predictions[0]
        for metric, value in ranking_values(column(name)).items()
    }
    if "long_tail" in predictions[0]:
        found[TAIL] = column("long_tail")
    target = lambda name: np.array([record[name][0] for record in predictions])
    total = target("log_likelihoods")
    return found | {LIKELY: total, PER_TOKEN: total / target("tokens")}


def margins_of(
    predictions: Sequence[Mapping[str, Any]],
) -> Float[np.ndarray, " examples"]:
    """Return the margins of Yes over No of ctr predictions, older ones too.

    Up to version 0.5.0 the probability of Yes was kept in their place, in float32. It
    is cut where float32 can no longer tell it from 0 or 1.

    >>> margins_of([{"score": 0.5}, {"score": 1.0}]).round(1).tolist()
    [0.0, 15.9]
    """
    if "margin" in predictions[0]:
        return np.array([record["margin"] for record in predictions])
    score = np.array([record["score"] for record in predictions], np.float64)
    eps = np.finfo(np.float32).eps
    return logit(np.clip(score, eps, 1 - eps))
