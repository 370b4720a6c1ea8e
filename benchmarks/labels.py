"""Which loss fine-tunes better: that of the whole sequence or of the answer alone?

    python benchmarks/experiment.py seqrec --out ALL
    python benchmarks/experiment.py seqrec_answer --out ANSWER
    python benchmarks/labels.py ALL ANSWER

Both experiments have the same methods, seeds and test examples. A random selection has
the same examples in both; goracs and grad-norm select by the gradients of the loss that
is trained. The script writes results/labels.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from common import write
from outcomes import records_of, users_of

from goracs_jax.comparison.intervals import interval
from goracs_jax.evaluate.outcomes import values_of

Key = tuple[str, float | None]
METRICS = ("NDCG@10", "HR@10", "log likelihood")


def by_method(out: Path) -> dict[Key, dict[int, dict[str, np.ndarray]]]:
    """Return the values of every test example, by method and lambda, then by seed."""
    compared = out / "compare"
    found: dict[Key, dict[int, dict[str, np.ndarray]]] = {}
    for record in json.loads((compared / "comparison.json").read_text())["cells"]:
        cell = record["cell"]
        predictions = compared / record["folder"] / "metrics.predictions.jsonl"
        values = values_of("seqrec", records_of(predictions))
        found.setdefault((cell["method"], cell["lambda_"]), {})[cell["seed"]] = values
    return found


def main() -> None:
    """Subtract the values of paired trials and write the mean differences."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("all", type=Path, help="--out of experiment.py seqrec")
    parser.add_argument("answer", type=Path, help="--out of the other")
    folders = parser.parse_args()
    if len({(out / "test.jsonl").read_bytes() for out in vars(folders).values()}) > 1:
        parser.error(f"{folders.all} and {folders.answer} have different test examples")
    every, few = by_method(folders.all), by_method(folders.answer)
    users, rows = users_of(folders.all), []
    for key in few.keys() & every.keys():
        seeds = sorted(few[key].keys() & every[key].keys())
        over: dict[str, dict[str, float]] = {}
        for metric in METRICS:
            apart = [few[key][s][metric] - every[key][s][metric] for s in seeds]
            over[metric] = interval(np.array(apart), users)._asdict()
        rows.append({"method": key[0], "lambda": key[1], "seeds": seeds, "over": over})
    rows.sort(key=lambda row: (row["method"], row["lambda"] or 0))
    print(write("labels", {"users": len(set(users.tolist())), "rows": rows}))


if __name__ == "__main__":
    main()
