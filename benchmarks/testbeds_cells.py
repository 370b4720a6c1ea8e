"""The cells of the testbeds, and what they say: outcomes, and shares of a gap.

A cell is one adapter, trained on the rows that an arm chose. For a click prediction it
keeps the margin z_yes - z_no of every row of target and judge. Its outcomes, on the
judge's rows, are the AUC, the log likelihood of the right answer against the other, as
the model gives it and after two numbers are fitted on the target (Platt), and the log
likelihood of the right answer among all texts. For the next movie they are the log
likelihood of the right title and NDCG@10 among the candidates.

results/testbeds_NAME.parquet has a row for every cell.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from gap import gap_share
from jaxtyping import Float
from scipy import stats

from goracs_jax.comparison.intervals import Interval
from goracs_jax.evaluate.calibration import fit, log_likelihoods
from goracs_jax.evaluate.metrics import auc_values, ranking_values
from goracs_jax.files import atomic

Cell = dict[str, Any]
Seeds = Float[np.ndarray, " seeds"]


def pack(
    folder: Path, path: Path, made: Mapping[str, Any], features: Iterable[str]
) -> None:
    """Write cells to a Parquet file, sorted by arm and seed.

    Args:
        folder: All cells.
        path: The file.
        made: The training and the data of those that are written.
        features: What these may have read; cells of features that changed stay behind.
    """
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    known = set(features)
    cells = [
        cell
        for cell in found
        if made.items() <= cell.items() and known.issuperset(cell["features"])
    ]
    margins = ("target_margins", "judge_margins")
    types = {name: pl.List(pl.Float32) for name in margins if name in cells[0]}
    types["features"] = pl.List(pl.String)
    frame = pl.DataFrame(cells, schema_overrides=types, infer_schema_length=None)
    with atomic(path) as file:
        frame.sort("arm", "lambda", "seed").write_parquet(file, compression="zstd")


def read(path: Path) -> list[Cell]:
    """Return the cells of a Parquet file."""
    return pl.read_parquet(path).to_dicts()


def outcomes(cell: Cell) -> dict[str, float]:
    """Return the outcomes of a cell; the larger, the better."""
    text = cell["judge_likelihood"]
    if "judge_margins" not in cell:
        rank = np.array(cell["judge_ranks"])
        ndcg = float(ranking_values(rank)["NDCG@10"].mean())
        return {"log likelihood": text, "NDCG@10": ndcg}
    target, z = (np.array(cell[f"{part}_margins"]) for part in ("target", "judge"))
    known, yes = (np.array(cell[f"{part}_yes"]) for part in ("target", "judge"))
    return {
        "AUC": float(auc_values(yes, z).mean()),
        "log likelihood": float(log_likelihoods(z, yes).mean()),
        "calibrated": float(log_likelihoods(fit(target, known)(z), yes).mean()),
        "among all texts": text,
    }


def by_arm(cells: Sequence[Cell]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the outcomes of each arm by seed; the name of an arm has its lambda."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for cell in cells:
        weight = "" if cell["lambda"] is None else f", lambda {cell['lambda']:g}"
        found.setdefault(cell["arm"] + weight, {})[cell["seed"]] = outcomes(cell)
    return found


def figures(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Compare each arm with random and the oracle, for each outcome.

    Returns:
        For each arm and outcome: the mean over seeds, the mean differences to random
        and to the full pool with t intervals over the seeds of both, and the share of
        the gap from random to the oracle with Fieller's interval over the seeds of all
        three.
    """
    arms, found = by_arm(cells), []
    for arm, mine in arms.items():
        for name in next(iter(mine.values())):
            take = lambda arm, seeds, name=name: np.array(
                [arms[arm][seed][name] for seed in seeds]
            )
            row: dict[str, Any] = {"arm": arm, "outcome": name, "seeds": len(mine)}
            row["mean"] = float(take(arm, mine).mean())
            for other in ("random", "full"):
                shared = sorted(mine.keys() & arms.get(other, {}).keys())
                if arm != other and shared:
                    apart = take(arm, shared) - take(other, shared)
                    row[f"over_{other}"] = t_interval(apart)._asdict()
            ends = [arms.get(end, {}).keys() for end in ("random", "oracle")]
            three = sorted(mine.keys() & ends[0] & ends[1])
            if arm not in ("random", "oracle", "full") and three:
                parts = [take(each, three) for each in (arm, "random", "oracle")]
                row["share_of_gap"] = gap_share(*parts)._asdict()
            found.append(row)
    return found


def t_interval(values: Seeds) -> Interval:
    """Return the mean of some seeds with its 95 % interval; none for one seed.

    >>> t_interval(np.array([0.1, 0.2, 0.3])).low.round(4)
    np.float64(-0.0484)
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, None, None)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Interval(mean, float(mean - half), float(mean + half))
