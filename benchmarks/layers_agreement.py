"""Whether adapters in the top layers alone rank subsets as adapters in all layers do.

    python benchmarks/layers_agreement.py [--states DIR]     an hour; can be stopped

SmolLM2-135M is trained on 20 subsets of the testbed of flipped answers
(testbeds_pools.py), of which 40 to 100 % are right, with adapters in all linear layers:
of all 30, of the last 6, and of the last 2. The outcome is the AUC on held rows. Each
way has one learning rate, which was not tuned here. Adapters in the top layers are
trained with two seeds, those in all layers, which cost ten times as much, with one.

results/layers_agreement.json has the outcomes, and for each way in the top layers
Spearman's rank correlation with all layers over the subsets (the mean over its seeds),
with a 95 % interval (percentiles of resamples of subsets), and that of its two seeds,
which tells how much of a rank is noise. Seconds are those of a training with its
judging, without compiling where the program was there; the layers below run once.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write
from jaxtyping import Float
from scipy.stats import spearmanr
from testbeds_pools import Universe, flips
from testbeds_questions import movielens
from testbeds_training import tokens_of

from goracs_jax.data.demo import fetch
from goracs_jax.data.examples import Example
from goracs_jax.evaluate.ctr import ask, yes_margins
from goracs_jax.evaluate.metrics import auc_values
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.tokens import take
from goracs_jax.models import LoraConfig
from goracs_jax.models.targets import LINEAR_NAMES, Rules
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, open_llm
from goracs_jax.training import FinetuneConfig, finetune

NAME = "layers_agreement"
SUBSETS, BUDGET, JUDGED, SHARES = 20, 200, 300, (0.4, 1.0)
PLAIN = "all layers"
#: The seeds of a way, the first layer that has adapters, and the learning rate.
WAYS = {
    PLAIN: ((0,), 0, 1e-3),
    "last:6": ((0, 1), 24, 3e-3),
    "last:2": ((0, 1), 28, 1e-2),
}
TRAINING: dict[str, Any] = {"steps": 50, "batch_size": 16, "warmup_steps": 5}
SETTINGS = {
    "training": TRAINING,
    "ways": {name: list(way) for name, (_, *way) in WAYS.items()},
    "budget": BUDGET,
    "judged": JUDGED,
    "shares": list(SHARES),
}
Subsets = Float[np.ndarray, " subsets"]


def opened(first: int, seed: int) -> Llm:
    """Open SmolLM2 with fresh adapters in its layers from one on."""
    rules = Rules(targets=LINEAR_NAMES, layers=tuple(range(first, 30)))
    lora = LoraConfig(rules=rules, dropout=0.0)
    return open_llm(fetch().model, None, seed, lora=lora)


def subset(universe: Universe, number: int) -> np.ndarray:
    """Draw rows of which a share is planted that rises with the number."""
    rng = np.random.default_rng(number)
    right = round(BUDGET * float(np.linspace(*SHARES, SUBSETS)[number]))
    draw = lambda mask, size: rng.choice(np.flatnonzero(mask), size, replace=False)
    planted = universe.planted
    return np.concatenate([draw(planted, right), draw(~planted, BUDGET - right)])


def run(folder: Path) -> None:
    """Train on every subset in every way; what is in the results is not done again."""
    found = earlier(RESULTS / f"{NAME}.json")
    universe, model = flips(movielens()), opened(0, 0)
    held = universe.held[:JUDGED]
    pool, judge = (tokens_of(part, model) for part in (universe.pool, held))
    examples = [Example(dict(record), "held") for record in held]
    context = model.decoder().config.max_positions
    questions = ask(examples, model.tokenizer(), context=context)
    yes = np.array([record["output"] == "Yes" for record in held])
    texts = [pool, judge, questions.tokens]
    lower: dict[str, LowerTable | None] = {
        name: keep_states(folder, opened(first, 0), texts, 100 * len(pool.lengths))
        for name, (_, first, _) in WAYS.items()
    }
    for number in range(SUBSETS):
        train = take(pool, subset(universe, number))
        for name, (seeds, first, rate) in WAYS.items():
            config = FinetuneConfig(learning_rate=rate, **TRAINING)
            for seed in seeds:
                cells = found.setdefault(f"{name}, seed {seed}", {})
                if str(number) in cells:
                    continue
                started = time.perf_counter()
                given: dict[str, Any] = {"seed": seed, "lower": lower[name]}
                start = opened(first, seed).decoder()
                done = finetune(start, train, take(judge, [0]), config, **given)
                z = yes_margins(done.model, questions, lower=lower[name])
                seconds = time.perf_counter() - started
                auc = float(auc_values(yes, z).mean())
                cells[str(number)] = {"AUC": auc, "seconds": seconds}
                record = {"settings": SETTINGS, "cells": found, **agreement(found)}
                write(NAME, record)
                print(name, seed, number, f"{auc:.3f} {seconds:.0f} s", flush=True)


Cells = Mapping[str, Mapping[str, Mapping[str, float]]]


def earlier(path: Path) -> dict[str, Any]:
    """Read the cells of a run that was stopped, if its settings were these."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    if record.get("settings") != SETTINGS:
        raise SystemExit(f"{path} has outcomes of other settings: remove it.")
    return record["cells"]


def agreement(found: Cells) -> Mapping[str, Any]:
    """Correlate the ranks of the subsets that are done in all ways."""
    names = [f"{name}, seed {seed}" for name, way in WAYS.items() for seed in way[0]]
    done = set.intersection(*(set(found.get(name, {})) for name in names))
    if len(done) < 4:
        return {"subsets": len(done)}
    column = lambda name, key: np.array(
        [found[name][subset][key] for subset in sorted(done, key=int)]
    )
    ways: dict[str, Any] = {}
    plain = column(f"{PLAIN}, seed 0", "AUC")
    for name, (seeds, *_) in WAYS.items():
        own = [f"{name}, seed {seed}" for seed in seeds]
        seconds = np.concatenate([column(each, "seconds") for each in own])
        ways[name] = {"seconds": float(np.median(seconds))}
        if name != PLAIN:
            mine = [column(each, "AUC") for each in own]
            ways[name]["with all layers"] = correlated([(plain, x) for x in mine])
            ways[name]["with itself"] = correlated([(mine[0], mine[1])])
    return {"subsets": len(done), "ways": ways}


def correlated(
    pairs: Sequence[
        tuple[Float[np.ndarray, " subsets"], Float[np.ndarray, " subsets"]]
    ],
    resamples: int = 2000,
) -> dict[str, float]:
    """Return the mean of Spearman's correlations of pairs with a 95 % interval."""
    mean = lambda rows: float(
        np.mean([np.asarray(spearmanr(x[rows], y[rows]))[0] for x, y in pairs])
    )
    rng, size = np.random.default_rng(0), len(pairs[0][0])
    values = [mean(rows) for rows in rng.integers(0, size, (resamples, size))]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    value = mean(np.arange(size))
    return {"value": value, "low": float(low), "high": float(high)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--states", type=Path, help="folder that keeps the states")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(options.states or Path(scratch))


if __name__ == "__main__":
    main()
