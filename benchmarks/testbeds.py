"""Fine-tune SmolLM2-135M on rows of a testbed that arms choose, and judge it.

    python benchmarks/testbeds.py run flips --arms random,oracle --seeds 0-9 [--out DIR]
    python benchmarks/testbeds.py planted flips --arms goracs,less --seeds 0-9
    python benchmarks/testbeds.py write flips --seeds 0 [--out DIR]
    python benchmarks/testbeds.py report flips --seeds 0-9

The testbeds are those of testbeds_pools.py. An arm is one of `goracs compare`,
METHOD[:by-label][@SPACE[@REWARD]], or `oracle`: random rows among the planted ones,
inside each class. It and `random` take rows in one random order, so that they share
rows. --lambda weighs the reward of the other arms.

The sources `text` (MiniLM) and `gradient` of spaces are computed once for all rows that
seeds draw from (testbeds_features.py), and so are `prompts`; loss drops for every seed,
by a training like that of a cell, but on the target itself. Other sources are read from
DIR/NAME/SOURCE.npz, with a row of `train` for each of DIR/NAME/pool.jsonl, and of
`valid` for each of held.jsonl.

Adapters are in all linear layers of the last two layers, and what the layers below
make of all rows is computed once. Every cell is kept in DIR/NAME/cells as it ends: a
run that was stopped goes on. A cell is named by its training and all that it read:
where rows or features of a testbed change, it is trained anew. The cells of today's
rows and features with this --learning-rate are packed into
results/testbeds_NAME.parquet. The default rate was chosen on the oracle's rows
of another seed of flips.

`planted` trains nothing: it writes how many of the rows that arms choose are planted,
and how well their spaces and rewards find these, to results/planted_NAME.json.
`write` writes the rows that seeds draw, for other tools. `report` writes
results/testbeds_NAME.json: what trivial models know, and the figures of the cells.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import RESULTS, commit
from common import write as write_figures
from testbeds_arms import ORACLE, RANDOM, Choice, data_of, named
from testbeds_baselines import baselines
from testbeds_cells import figures, pack, read
from testbeds_planted import planted
from testbeds_pools import BUDGET, DRAWN, TESTBEDS, Universe, draw
from testbeds_questions import movielens
from testbeds_training import LORA, Trainer

from goracs_jax.data.examples import write_jsonl
from goracs_jax.files import digest, write_json
from goracs_jax.training import FinetuneConfig

STEPS: dict[str, Any] = {"steps": 100, "batch_size": 16, "warmup_steps": 10}


def run(universe: Universe, folder: Path, options: argparse.Namespace) -> None:
    """Train and judge all arms with the first seed, then with the next."""
    trainer = trainer_of(universe, folder, options)
    choice_of = choices(universe, folder, options, trainer)
    how = {"training": asdict(config_of(options)), "adapter": digest(asdict(LORA))}
    made = {"budget": BUDGET, **how, **data_of(universe)}
    kept = RESULTS / f"testbeds_{folder.name}.parquet"
    for seed in options.seeds:
        choice = choice_of(seed)
        for arm in options.arms:
            cell: dict[str, Any] = {"arm": arm, "seed": seed, **made}
            cell |= choice.depends_on(arm, seed)
            path = folder / "cells" / f"{digest(cell)[:16]}.json"
            if not path.exists():
                started = time.perf_counter()
                rows = choice.rows(arm, seed)
                cell["planted"] = float(universe.planted[rows].mean())
                cell |= trainer().cell(rows, choice.drawn, seed)
                device = jax.devices()[0]
                cell["device"] = f"{device.platform} {device.device_kind}"
                seconds = time.perf_counter() - started
                write_json(path, cell | {"seconds": seconds, "commit": commit()})
                print(arm, seed, f"{seconds:.0f} s", flush=True)
            pack(folder / "cells", kept, made, map(named, folder.glob("*.npz")))


def trainer_of(
    universe: Universe, folder: Path, options: argparse.Namespace
) -> Callable[[], Trainer]:
    """Return what opens the model and runs the lower layers when it is first called."""
    return cache(lambda: Trainer.of(universe, config_of(options), folder))


def config_of(options: argparse.Namespace) -> FinetuneConfig:
    """Return the training of a cell."""
    return FinetuneConfig(learning_rate=options.learning_rate, **STEPS)


def choices(
    universe: Universe,
    folder: Path,
    options: argparse.Namespace,
    trainer: Callable[[], Trainer],
) -> Callable[[int], Choice]:
    """Return what makes the choice of a seed."""
    rest = {"features": folder, "lambda_": options.lambda_, "trainer": trainer}
    return lambda seed: Choice(universe, draw(universe, seed), **rest)


def write(universe: Universe, folder: Path, options: argparse.Namespace) -> None:
    """Write the rows that each seed draws, and which of its pool are planted."""
    for seed in options.seeds:
        drawn, out = draw(universe, seed), folder / f"seed-{seed}"
        out.mkdir(parents=True, exist_ok=True)
        for part, rows in drawn._asdict().items():
            records = universe.pool if part == "pool" else universe.held
            write_jsonl(out / f"{part}.jsonl", [records[row] for row in rows])
        np.save(out / "planted.npy", universe.planted[drawn.pool])


def find(universe: Universe, folder: Path, options: argparse.Namespace) -> None:
    """Write how well arms find the planted rows."""
    trainer = trainer_of(universe, folder, options)
    choice_of = choices(universe, folder, options, trainer)
    rows = []
    for row in planted(choice_of, options.arms, options.seeds):
        rows.append(row)
        print(row, flush=True)
    found = {"seeds": options.seeds, "arms": rows} | data_of(universe)
    print(write_figures(f"planted_{folder.name}", found, RESULTS))


def report(name: str, universe: Universe, seeds: list[int]) -> None:
    """Write what trivial models know, and the figures of the cells that there are."""
    draws = [draw(universe, seed) for seed in seeds]
    known = [baselines(universe, drawn) for drawn in draws]
    found: dict[str, Any] = {
        "planted": float(universe.planted.mean()),
        "sizes": DRAWN | {"budget": BUDGET},
        "seeds": seeds,
        "baselines": {key: [each[key] for each in known] for key in known[0]},
    }
    kept = RESULTS / f"testbeds_{name}.parquet"
    if kept.exists():
        found["figures"] = figures(read(kept))
    print(write_figures(f"testbeds_{name}", found, RESULTS))


def seeds_of(text: str) -> Iterator[int]:
    """Read seeds such as 0-9 or 3,5.

    >>> list(seeds_of("0-2,7"))
    [0, 1, 2, 7]
    """
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("what", choices=("run", "planted", "write", "report"))
    parser.add_argument("name", choices=TESTBEDS)
    parser.add_argument("--arms", type=lambda s: s.split(","), default=[RANDOM, ORACLE])
    parser.add_argument("--seeds", type=lambda s: list(seeds_of(s)), default=[0])
    parser.add_argument("--lambda", dest="lambda_", type=float, default=0.1)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--out", type=Path, default=Path("testbeds"))
    options = parser.parse_args()
    universe, folder = TESTBEDS[options.name](movielens()), options.out / options.name
    if options.what == "report":
        report(options.name, universe, options.seeds)
        return
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    works = {"run": run, "planted": find, "write": write}
    works[options.what](universe, folder, options)


if __name__ == "__main__":
    main()
