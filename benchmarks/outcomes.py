"""What came of the cells of an experiment, beyond the table of `goracs compare`."""

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
from goracs_jax.llm.prompts import Task
from goracs_jax.verbs.rankings import values_of

RECENTRED = "log likelihood, recentred"


def records_of(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    return list(map(json.loads, path.read_text().splitlines()))


def recentred(
    yes: Bool[np.ndarray, " examples"],
    score: Float[np.ndarray, " examples"],
    users: Int[np.ndarray, " examples"],
) -> Float[np.ndarray, " examples"]:
    """Log likelihoods when the model's share of Yes is set right.

    One number is added to all logits: the best for one half of the users is judged on
    the other half.
    """
    half, z = users % 2 == 0, logit(np.clip(score, 1e-7, 1 - 1e-7))
    likely = lambda rows, b: log_expit(np.where(yes, 1, -1) * (z + b))[rows]
    found = np.empty(len(z))
    for judged in (half, ~half):
        loss = lambda b, fitted=~judged: -likely(fitted, b).mean()
        found[judged] = likely(judged, minimize_scalar(loss).x)
    return found


def cells_of(task: Task, compared: Path, record: dict[str, Any], out: Path) -> list:
    """Every cell: POO of its choice, and what came of it.

    Of ctr also the share of Yes in the choice, how much more of it the model expects
    than there is, and log likelihoods without that. Of seqrec the mean logarithm of how
    often the pool has the title of a chosen example.
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
    """On what rows were chosen and models trained: seconds of two are no sum."""
    kinds = lambda key: sorted({cell[key]["kind"] for cell in cells if cell.get(key)})
    return {"chosen on": kinds("chosen_on"), "trained on": kinds("device")}


def users_of(out: Path) -> Int[np.ndarray, " examples"]:
    """The user of each test example, as a number."""
    names = [record["user"] for record in records_of(out / "test.jsonl")]
    return np.unique(names, return_inverse=True)[1]


def over_seeds(cells: list[dict], users: np.ndarray) -> list[dict[str, Any]]:
    """Of each method, its recentred log likelihood and what it has over random's."""
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
    """How POO at lambda 0 ranks choices, and how the trained models do (Spearman)."""
    plain = [c for c in cells if c["poo"] is not None and not c["lambda_"]]
    found = against_outcomes(plain, lambda cell: cell["poo"])
    return {"cells": len(plain), **found}


def against_outcomes(
    cells: list[dict], x: Callable[[dict], float]
) -> dict[str, dict[str, float | None]]:
    """Correlations of a property of a choice with what came of it."""
    columns = {"valid_loss": lambda cell: cell["valid_loss"]}
    for name in cells[0]["metrics"] if cells else ():
        columns[name] = lambda cell, name=name: cell["metrics"][name]
    return {name: correlation(cells, x, column) for name, column in columns.items()}


def correlation(
    cells: list[dict],
    x: Callable[[dict], float],
    y: Callable[[dict], float],
) -> dict[str, float | None]:
    """Spearman's, of ranks within a budget; None where there is nothing to rank.

    Without a p: cells of one method are too much alike to be counted one by one.
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
    """Ranks around zero, between -1/2 and 1/2 however many there are."""
    ranked = rankdata(values) - (len(values) + 1) / 2
    return ranked / len(values)


def bias_against(cells: list[dict]) -> dict[str, Any]:
    """How a wrong share of Yes, however it is wrong, goes with the log likelihood."""
    bias = lambda cell: abs(cell["excess_yes"])
    return correlation(cells, bias, lambda cell: cell["metrics"]["log likelihood"])


def popularity(out: Path) -> dict[str, float]:
    """HR and NDCG where candidates are ranked by how often the pool has their titles.

    Those of equal counts stand in random order: the mean over all places.
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
