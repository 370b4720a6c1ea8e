"""Statistics of the trials of a study that `goracs compare` does not report."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, logit
from scipy.stats import rankdata

from goracs_jax.comparison.intervals import interval
from goracs_jax.evaluate.metrics import ranking_values
from goracs_jax.evaluate.outcomes import values_of
from goracs_jax.llm.prompts import Task

RECENTRED = "log likelihood, recentred"


def records_of(path: Path) -> list[dict[str, Any]]:
    """Read the records of a JSONL file."""
    return list(map(json.loads, path.read_text().splitlines()))


def recentred(
    yes: Bool[np.ndarray, " examples"],
    score: Float[np.ndarray, " examples"],
    users: Int[np.ndarray, " examples"],
) -> Float[np.ndarray, " examples"]:
    """Return log likelihoods after the model's share of Yes is corrected.

    One number is added to all logits. It is fitted on one half of the users and applied
    to the other half.
    """
    half, z = users % 2 == 0, logit(np.clip(score, 1e-7, 1 - 1e-7))
    likely = lambda rows, b: log_expit(np.where(yes, 1, -1) * (z + b))[rows]
    found = np.empty(len(z))
    for judged in (half, ~half):
        loss = lambda b, fitted=~judged: -likely(fitted, b).mean()
        found[judged] = likely(judged, minimize_scalar(loss).x)
    return found


def cells_of(task: Task, compared: Path, record: dict[str, Any], out: Path) -> list:
    """Return one record per trial: POO of its selection, and its metrics.

    A ctr trial has the share of Yes in its selection as well, the share of Yes that the
    model predicts minus the true one, and the recentred log likelihoods. A seqrec trial
    has the mean logarithm of how often the pool has the title of a selected example.
    """
    outputs = np.array([r["output"] for r in records_of(out / "train.jsonl")])
    times, users = Counter(outputs.tolist()), users_of(out)
    found = []
    for cell in record["cells"]:
        folder = compared / cell["folder"]
        predictions = records_of(folder / "metrics.predictions.jsonl")
        values = values_of(task, predictions)
        figures = {name: cell[name] for name in ("poo", "valid_loss", "epochs")}
        chosen = folder / "selection" / "indices.npy"
        learnt = outputs[np.load(chosen)] if chosen.exists() else outputs
        if task == "seqrec":
            often = [times[title] for title in learnt.tolist()]
            figures["log_popularity"] = float(np.mean(np.log(often)))
        else:
            figures["yes"] = float(np.mean(learnt == "Yes"))
            yes = np.array([p["label"] == "Yes" for p in predictions])
            score = np.array([p["score"] for p in predictions])
            figures["excess_yes"] = float(score.mean() - yes.mean())
            values[RECENTRED] = recentred(yes, score, users)
            figures["recentred"] = values[RECENTRED].tolist()
        metrics = {name: float(np.mean(value)) for name, value in values.items()}
        found.append(cell["cell"] | figures | {"metrics": metrics})
    return found


def machines_of(cells: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Name the devices that selected and trained, whose seconds cannot be compared."""
    kinds = lambda key: sorted({cell[key]["kind"] for cell in cells if cell.get(key)})
    return {"chosen on": kinds("chosen_on"), "trained on": kinds("device")}


def users_of(out: Path) -> Int[np.ndarray, " examples"]:
    """Return the user of each test example as a number."""
    names = [record["user"] for record in records_of(out / "test.jsonl")]
    return np.unique(names, return_inverse=True)[1]


def over_seeds(cells: list[dict], users: np.ndarray) -> list[dict[str, Any]]:
    """Return each method's recentred log likelihood and its difference to random."""
    values: dict[tuple, dict[int, list[float]]] = {}
    for cell in cells:
        key = (cell["method"], cell["lambda_"], cell["budget"])
        values.setdefault(key, {})[cell["seed"]] = cell["recentred"]
    found = []
    for (method, lambda_, budget), mine in values.items():
        row: dict[str, Any] = {"method": method, "lambda": lambda_, "budget": budget}
        row["value"] = interval(np.array(list(mine.values())), users)._asdict()
        theirs = values.get(("random", None, budget), {})
        both = sorted(mine.keys() & theirs.keys())
        if both and method != "random":
            apart = np.array([np.subtract(mine[s], theirs[s]) for s in both])
            row["over_random"] = interval(apart, users)._asdict()
        found.append(row)
    return found


def ranks(cells: list[dict]) -> dict[str, Any]:
    """Correlate the ranks of POO at lambda 0 with those of the trained models."""
    plain = [c for c in cells if c["poo"] is not None and not c["lambda_"]]
    found = against_outcomes(plain, lambda cell: cell["poo"])
    return {"cells": len(plain), **found}


def against_outcomes(
    cells: list[dict], x: Callable[[dict], float]
) -> dict[str, dict[str, float | None]]:
    """Correlate a property of a selection with the metrics of its trained model."""
    columns = {"valid_loss": lambda cell: cell["valid_loss"]}
    for name in cells[0]["metrics"] if cells else ():
        columns[name] = lambda cell, name=name: cell["metrics"][name]
    return {name: correlation(cells, x, column) for name, column in columns.items()}


def correlation(
    cells: list[dict],
    x: Callable[[dict], float],
    y: Callable[[dict], float],
) -> dict[str, float | None]:
    """Return Spearman's correlation of ranks within a budget, or None without ranks.

    It has no p-value, because trials of one method are too similar to count as
    independent observations.
    """
    budgets: dict[int, list[dict]] = {}
    for cell in cells:
        budgets.setdefault(cell["budget"], []).append(cell)

    def column(of: Callable[[dict], float]) -> Float[np.ndarray, " cells"]:
        by_budget = ([of(cell) for cell in mine] for mine in budgets.values())
        ranked = [scaled_ranks(values) for values in by_budget if len(values) > 1]
        return np.concatenate([*ranked, np.zeros(0)])

    one, two = column(x), column(y)
    spread = np.sqrt(np.sum(one**2) * np.sum(two**2))
    return {"rho": float(one @ two / spread) if spread > 0 else None}


def scaled_ranks(values: list[float]) -> Float[np.ndarray, " cells"]:
    """Return ranks around zero, between -1/2 and 1/2 for any number of values."""
    ranked = rankdata(values) - (len(values) + 1) / 2
    return ranked / len(values)


def bias_against(cells: list[dict]) -> dict[str, Any]:
    """Correlate the absolute error in the share of Yes with the log likelihood."""
    bias = lambda cell: abs(cell["excess_yes"])
    return correlation(cells, bias, lambda cell: cell["metrics"]["log likelihood"])


def popularity(out: Path) -> dict[str, float]:
    """Return HR and NDCG when candidates are ranked by their counts in the pool.

    Candidates with equal counts come in random order; the result is the expectation.
    """
    title = {r["item_id"]: r["title"] for r in records_of(out / "data" / "items.jsonl")}
    times = Counter(title[r["target"]] for r in records_of(out / "train.jsonl"))
    found = []
    for example in records_of(out / "test.jsonl"):
        target = title[example["target"]]
        others = [title[item] for item in example["negatives"]]
        right = times[target]
        rivals = np.array([times[other] for other in others if other != target])
        places = np.sum(rivals > right) + np.arange(np.sum(rivals == right) + 1)
        found.append(ranking_values(places))
    mean = lambda name: float(np.mean([values[name].mean() for values in found]))
    return {name: mean(name) for name in found[0]}
