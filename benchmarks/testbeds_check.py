"""Ask `goracs check` which spaces and rewards rank the losses in a testbed.

    python benchmarks/testbeds_check.py mixture --seeds 0 [--out DIR]

Half an hour a seed, the first time.

The pool is the one that a seed of testbeds.py draws, and the validation its target and
its judge together, which the check cuts in two by itself. SmolLM2 is trained on 40
subsets of 200 rows, and on 14 more to see how far a loss repeats. The learning rate is
a fifth of the testbeds': at theirs a loss says more of the seed than of the subset, and
the check stops.

The check keeps its trainings in DIR/NAME/check-SEED and goes on where it was stopped.
results/check_NAME.json has what its check.json says, by seed: the reliability of a
loss, the linear datamodelling score (LDS) of each space and reward with a 95 %
interval, the losses themselves, and the verdict.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import RESULTS, goracs, write
from testbeds import seeds_of
from testbeds import write as write_rows
from testbeds_pools import BUDGET, TESTBEDS
from testbeds_questions import movielens

from goracs_jax.data.demo import fetch
from goracs_jax.models.targets import LINEAR_NAMES

FLAGS: dict[str, Any] = {
    "task": "ctr",
    "labels": "answer",
    "layers": "last:2",
    "targets": ",".join(LINEAR_NAMES),
    "dropout": 0,
    "learning-rate": 2e-3,
    "warmup-steps": 10,
    "budget": BUDGET,
    "planted-rows": 100,
    "spaces": "text,gradient/none/cosine",
    "rewards": "grad-norm,alignment",
    "subsets": 40,
    "pairs": 10,
    "repeats": 4,
    "quantile-seeds": 0,
}
KEPT = ("sizes", "reliability", "spaces", "rewards", "verdict", "runs", "cost")


def check(rows: Path, out: Path) -> dict[str, Any]:
    """Run the check on the rows of a seed, and return what it found."""
    files = fetch()
    paths = {
        "train": rows / "pool.jsonl",
        "valid": rows / "valid.jsonl",
        "model": files.model,
        "encoder": files.encoder,
        "out": out,
    }
    named = (FLAGS | paths).items()
    goracs("check", *(word for name, value in named for word in (f"--{name}", value)))
    found = json.loads((out / "check.json").read_text())
    return {key: found[key] for key in KEPT}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("name", choices=TESTBEDS)
    parser.add_argument("--seeds", type=lambda s: list(seeds_of(s)), default=[0])
    parser.add_argument("--out", type=Path, default=Path("testbeds"))
    options = parser.parse_args()
    universe, folder = TESTBEDS[options.name](movielens()), options.out / options.name
    write_rows(universe, folder, options)
    found: dict[int, Any] = {}
    for seed in options.seeds:
        rows = folder / f"seed-{seed}"
        parts = [(rows / f"{part}.jsonl").read_text() for part in ("target", "judge")]
        (rows / "valid.jsonl").write_text("".join(parts))
        found[seed] = check(rows, folder / f"check-{seed}")
        print(write(f"check_{options.name}", {"flags": FLAGS, "seeds": found}, RESULTS))


if __name__ == "__main__":
    main()
