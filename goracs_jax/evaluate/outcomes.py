"""Values of the metrics per test example, from the predictions that are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from goracs_jax.evaluate.metrics import auc_values, log_likelihoods, ranking_values
from goracs_jax.llm.prompts import Task

#: The mean over examples of the log likelihood of the right answer (for a title, per
#: token). Its negative is the log loss.
LIKELY = "log likelihood"
#: Columns of ranks, and what the names of their metrics start with.
RANKS = {
    "rank": "",
    "full_rank": "full ",
    "likelihood_rank": "likelihood ",
    "total_likelihood_rank": "total likelihood ",
}


def values_of(
    task: Task, predictions: Sequence[Mapping[str, Any]]
) -> dict[str, Float[np.ndarray, " examples"]]:
    """Return for each metric one value per test example; the metric is their mean.

    Args:
        task: The task of the predictions.
        predictions: Records of predictions.jsonl.

    Returns:
        One array for each metric.

    >>> prediction = {"rank": 2, "log_likelihoods": [-6.0], "tokens": [4]}
    >>> values = values_of("seqrec", [prediction])
    >>> values["NDCG@5"], values["log likelihood"]
    (array([0.5]), array([-1.5]))
    """
    column = lambda name: np.array([record[name] for record in predictions])
    if task == "ctr":
        yes, score = column("label") == "Yes", column("score")
        return {"AUC": auc_values(yes, score), LIKELY: log_likelihoods(yes, score)}
    found = {
        prefix + metric: value
        for name, prefix in RANKS.items()
        if name in predictions[0]
        for metric, value in ranking_values(column(name)).items()
    }
    target = lambda name: np.array([record[name][0] for record in predictions])
    return found | {LIKELY: target("log_likelihoods") / target("tokens")}
