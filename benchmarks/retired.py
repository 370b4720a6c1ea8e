"""What the retired studies measured: counting, popularity and chance.

    python benchmarks/retired.py

Seven studies compared selections by the models that they fine-tune. Here all that is
kept of them is judged once more: what one reaches without a model, how reliable the
outcome of a training is, and what is left of the differences to random. MovieLens is
prepared as it was then; the examples must have the SHA-256 that each trial recorded, or
the popularity that a study did. The script writes results/retired.json.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from common import RESULTS, goracs, write
from scipy.stats import rankdata

from goracs_jax.check.reliability import reliability
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.entries import Entry, Outcome, entries_of, pairs_of
from goracs_jax.comparison.intervals import holm
from goracs_jax.data.demo import fetch
from goracs_jax.data.examples import read_records
from goracs_jax.evaluate.baselines import Baselines, ctr_baselines, seqrec_baselines
from goracs_jax.evaluate.catalogue import Catalogue, read_catalogue
from goracs_jax.evaluate.metrics import auc_values, tied_ranking_values
from goracs_jax.evaluate.outcomes import CALIBRATED, LIKELY, margins_of, values_of

#: The studies and their splits; the data of games is not at hand.
CTR = {"ctr": "global", "ctr_users": "leave-one-out", "ctr_long": "leave-one-out"}
SEQREC = ("seqrec", "seqrec_answer", "seqrec_long")
#: Keys that examples did not have then.
NEWER = ("history", "liked")

Records = list[dict[str, Any]]


class Cell(NamedTuple):
    """A trial of click prediction: what it was, and what its model said."""

    trial: Trial
    device: str  # that trained it
    outcome: Outcome
    margins: np.ndarray

    @property
    def area(self) -> float:
        """Return the AUC."""
        return float(self.outcome.values["AUC"].mean())


def data_of(task: str, split: str, drawn: dict[str, int], out: Path) -> dict:
    """Prepare MovieLens as a study did, and draw its examples."""
    prepare = ["prepare", "--task", task, "--split", split, "--history", 5]
    goracs(*prepare, "--input", fetch().interactions.parent, "--out", out)
    rng, found = np.random.default_rng(0), {}
    for part, size in drawn.items():
        examples = read_records(out / f"{part}.jsonl")
        rows = np.sort(rng.choice(len(examples), size, replace=False))
        found[part] = [examples[row].record for row in rows]
    return found


def hash_of(records: Records) -> str:
    """Return the SHA-256 of the file that these examples made at the time."""
    former = [{k: v for k, v in r.items() if k not in NEWER} for r in records]
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in former)
    return hashlib.sha256(lines.encode()).hexdigest()


def cells_of(study: str, data: dict[str, Records], units: np.ndarray) -> list[Cell]:
    """Read the trials of a study back, and check that they saw this data."""
    hashes = {part: hash_of(records) for part, records in data.items()}
    frame, found = pl.read_parquet(RESULTS / f"experiment_{study}.parquet"), []
    for row in frame.iter_rows(named=True):
        record = json.loads(row["record"])
        if any(record["inputs"][part] != sha for part, sha in hashes.items()):
            raise ValueError(f"{study}: the data is not that of trial {row['trial']}.")
        said = row["predictions"]
        outcome = Outcome(
            values_of("ctr", said, units),
            record["valid_loss"],
            record["seconds"],
            record["flops"],
        )
        kind = record["device"]["kind"]
        found.append(Cell(Trial(**record["cell"]), kind, outcome, margins_of(said)))
    return found


def ctr(study: str, split: str, folder: Path) -> dict[str, Any]:
    """Judge a study of click prediction by all predictions that are kept."""
    record = json.loads((RESULTS / f"experiment_{study}.json").read_text())
    data = data_of("ctr", split, record["drawn"], folder)
    test = data["test"]
    _, units = np.unique([r["user"] for r in test], return_inverse=True)
    cells = cells_of(study, data, units)
    yes = np.array([r["output"] == "Yes" for r in test])
    count = np.array([sum(r["liked"]) for r in test], np.float64)
    among = lambda score: within(count, yes, score)
    known = read_catalogue(folder / "items.jsonl")
    # Outcomes of different devices are not compared: only one kind counts here.
    kind = next(cell.device for cell in cells if cell.trial.method == "random")
    same = [cell for cell in cells if cell.device == kind]
    spearman = lambda z: np.corrcoef(rankdata(z), rankdata(count))[0, 1]
    areas = np.array([cell.area for cell in same])
    counted = np.array([spearman(cell.margins) for cell in same])
    entries = entries_of({cell.trial: cell.outcome for cell in same})
    return {
        "drawn": record["drawn"],
        "users": int(units.max()) + 1,
        "device": kind,
        "cells": len(same),
        "cells_of_other_devices": len(cells) - len(same),
        "baselines": means_of(ctr_baselines(test, yes, known, units)),
        "rating_within_equal_counts": among(rating_of(test, known)),
        "AUC_against_ranking_by_count": float(np.corrcoef(areas, counted)[0, 1]),
        "full": [
            {"AUC": cell.area, "within_equal_counts": among(cell.margins)}
            for cell in same
            if not cell.trial.selects
        ],
        "budgets": [
            of_budget(n, entries)
            | {
                "within_equal_counts": float(
                    np.mean([among(c.margins) for c in same if c.trial.budget == n])
                )
            }
            for n in sorted({c.trial.budget for c in same if c.trial.selects})
        ],
        "against_random": against_random(cells, units),
    }


def within(count: np.ndarray, yes: np.ndarray, score: np.ndarray) -> float:
    """Return the AUC over those pairs of Yes and No whose counts are equal."""
    right = pairs = 0.0
    for value in np.unique(count):
        rows = count == value
        size = float(yes[rows].sum() * (~yes[rows]).sum())
        if size:
            right += size * auc_values(yes[rows], score[rows]).mean()
            pairs += size
    return right / pairs


def rating_of(test: Records, known: Catalogue) -> np.ndarray:
    """Return the mean rating of each target; of one without ratings, the usual one."""
    ratings = known.mean_rating
    assert ratings is not None, "MovieLens has ratings"
    filled = np.nan_to_num(ratings, nan=float(np.nanmean(ratings)))
    return filled[[known.row_of[r["target"]] for r in test]]


def of_budget(budget: int, entries: Sequence[Entry]) -> dict[str, Any]:
    """Judge the arms of a budget by their means and by their reliability."""
    arms = [e for e in entries if e.budget == budget and e.choice != "by validation"]
    mean = {arm.name: float(arm.values("AUC").mean()) for arm in arms}
    best = max(mean, key=lambda name: mean[name])
    found: dict[str, Any] = {
        "budget": budget,
        "random": mean["random"],
        "best": {"name": best, "AUC": mean[best]},
        "reliability": {},
    }
    repeated = [arm for arm in arms if len(arm.outcomes) > 1]
    if len(repeated) > 1:
        seeds = min(len(arm.outcomes) for arm in repeated)
        found |= {"arms": len(repeated), "seeds": seeds}
        for metric in ("AUC", LIKELY, CALIBRATED):
            # An arm stands for a subset, although some arms draw anew for each seed.
            table = np.stack([a.values(metric).mean(axis=1)[:seeds] for a in repeated])
            icc = reliability(table)
            found["reliability"][metric] = {
                "icc": icc.icc,
                "low": icc.low,
                "high": icc.high,
                "sd_of_seeds": float(np.sqrt(icc.within)),
            }
    return found


def against_random(cells: Sequence[Cell], units: np.ndarray) -> Records:
    """Compare all methods and budgets with random, as one family of each metric."""
    entries = entries_of({c.trial: c.outcome for c in cells})
    device = {(c.trial.method, c.trial.budget, c.trial.seed): c.device for c in cells}
    pairs, found = pairs_of(entries, units), []
    for metric in ("AUC", CALIBRATED):
        family = [p for p in pairs if p.holm_p is not None and p.metric == metric]
        corrected = holm([pair.p for pair in family if pair.p is not None])
        for pair, p in zip(family, corrected, strict=True):
            sign = 1 if pair.second == "random" else -1
            name = pair.first if sign > 0 else pair.second
            both = (name.split(",")[0], "random")
            kinds = {device[m, pair.budget, s] for m in both for s in pair.seeds}
            found.append(
                {
                    "budget": pair.budget,
                    "method": name,
                    "one_kind_of_device": len(kinds) == 1,
                    "metric": metric,
                    "difference": sign * pair.difference.value,
                    "p": pair.p,
                    "holm": p,
                }
            )
    return found


def seqrec(study: str, folder: Path) -> dict[str, Any]:
    """Judge a study of next-item prediction by the means that it recorded."""
    record = json.loads((RESULTS / f"experiment_{study}.json").read_text())
    data = data_of("seqrec", "leave-one-out", record["drawn"], folder)
    train, test = data["train"], data["test"]
    known = read_catalogue(folder / "items.jsonl")
    if not np.isclose(in_pool(train, test, known), record["popularity"]["NDCG@10"]):
        raise ValueError(f"{study}: the data is not that of the record.")
    return {
        "users": record["users"],
        "baselines": means_of(seqrec_baselines(train, test, known)),
    }


def in_pool(train: Records, test: Records, known: Catalogue) -> float:
    """Return NDCG@10 of how often the training examples have a title as target."""
    title = lambda item: known.title_of[known.row_of[item]]
    times, values = Counter(title(r["target"]) for r in train), []
    for record in test:
        own = title(record["target"])
        rivals = [times[t] for i in record["negatives"] if (t := title(i)) != own]
        found = tied_ranking_values(float(times[own]), np.array(rivals))
        values.append(found["NDCG@10"])
    return float(np.mean(values))


def means_of(found: Baselines) -> dict[str, dict[str, float]]:
    """Return the metrics of each baseline."""
    return {
        name: {metric: float(np.mean(v)) for metric, v in values.items()}
        for name, values in found.items()
    }


def main() -> None:
    """Judge all studies and write the figures."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        clicks = {s: ctr(s, split, out / s) for s, split in CTR.items()}
        titles = {s: seqrec(s, out / s) for s in SEQREC}
    print(write("retired", {"ctr": clicks, "seqrec": titles}))


if __name__ == "__main__":
    main()
