"""What adapters in the top layers alone save, and whether they rank subsets alike.

    python benchmarks/layers.py                 seconds of a step, three minutes
    python benchmarks/layers.py --agreement     rank agreement, hours; can be stopped

SmolLM2-135M learns to answer whether a user likes a movie (MovieLens-100K, five titles
in a history), with LoRA of rank 8 on q_proj and v_proj, in float32. There are three
kinds of steps: with adapters in all 30 layers; with adapters in the last 6, where the
layers below run forward; and the same from states that were kept. Rounds of the three
alternate; all texts have one padded length. Processor seconds are those of all threads,
so that other work on the machine matters little; those of the pass that keeps states
include compiling it. The first part writes results/layers.json.

The second part draws subsets at random and trains on each of them in both ways, with
adapters in all layers and in the last 6, each with two seeds, by which the adapter is
drawn, too. Its outcome is the mean log likelihood of the right answer on other
examples. results/layers_agreement.json has Spearman's rank correlation of both ways
over the subsets, as the mean over the four pairs of a seed of one way and a seed of the
other, with a 95 % interval (percentiles of resamples of subsets). Beside it is that of
one way with itself under the other seed, which no agreement can exceed by much.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, write
from lora_steps import Ours
from scipy.stats import mode, spearmanr

from goracs_jax.data.demo import fetch, movielens
from goracs_jax.data.examples import Example
from goracs_jax.data.records import Wording, records
from goracs_jax.evaluate.calibration import log_likelihoods
from goracs_jax.evaluate.ctr import ask, read_answers, yes_margins
from goracs_jax.llm.batches import bucket_length
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokens import Tokens, take, tokenize
from goracs_jax.models import Decoder, LoraConfig, decoder_config
from goracs_jax.models.targets import Rules, last_layers
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, open_llm
from goracs_jax.training import FinetuneConfig, finetune

LAST, BATCH, EXAMPLES, ROUNDS = "last:6", 16, 32, 6
POOL, JUDGED, BUDGET, SUBSETS, SEEDS = 1000, 400, 64, 24, (0, 1)
CONFIG = FinetuneConfig(
    steps=100, learning_rate=1e-3, batch_size=BATCH, warmup_steps=10
)
AGREEMENT = "layers_agreement"
#: What the outcomes of the second part depend on, apart from subset and seed.
SETTINGS = {
    "config": asdict(CONFIG),
    "budget": BUDGET,
    "pool": POOL,
    "judged": JUDGED,
    "layers": LAST,
}


class Way(NamedTuple):
    """A way to train: the model, and what its lower layers make of the texts."""

    model: Decoder
    lower: LowerTable | None = None


def opened(layers: str | None, seed: int = 0) -> Llm:
    """Open SmolLM2 with a fresh adapter of a seed in all layers, or in some."""
    path, lora = fetch().model, LoraConfig()
    if layers:
        numbers = last_layers(layers, decoder_config(path).num_layers)
        lora = LoraConfig(rules=Rules(targets=lora.targets, layers=numbers))
    return open_llm(path, None, seed, lora=lora)


def clicks(size: int) -> list[Example]:
    """Draw examples of the training split, with a fixed seed."""
    log, split = movielens(fetch())
    drawn = np.random.default_rng(0).choice(split.train, size, replace=False)
    made = records(log, np.sort(drawn), Wording(task="ctr", history=5))
    return [Example(record, f"example {i}") for i, record in enumerate(made)]


def tokens_of(examples: list[Example], llm: Llm) -> Tokens:
    """Tokenise examples, of which the answer is scored."""
    decoder, tokenizer = llm.load()
    texts = [format_prompt(example.record) for example in examples]
    context = decoder.config.max_positions
    return tokenize(texts, tokenizer, labels="answer", context=context)


def alike(tokens: Tokens) -> Tokens:
    """Take texts of the commonest padded length, for which one program is compiled."""
    padded = np.array([bucket_length(int(length)) for length in tokens.lengths])
    return take(tokens, np.flatnonzero(padded == mode(padded).mode)[:EXAMPLES])


def steps(folder: Path) -> Mapping[str, Any]:
    """Measure the three kinds of steps in turn."""
    plain, top = opened(None), opened(LAST)
    tokens = alike(tokens_of(clicks(8 * EXAMPLES), plain))
    started = time.process_time()
    lower = keep_states(folder, top, [tokens], reads=2 * EXAMPLES)
    assert lower is not None
    once = time.process_time() - started
    ways = {
        "all layers": Way(plain.decoder()),
        LAST: Way(top.decoder()),
        f"{LAST}, kept states": Way(top.decoder(), lower),
    }
    sides = {n: Ours(w.model, tokens, CONFIG, w.lower) for n, w in ways.items()}
    compiling = {name: side.compile_seconds for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(1 + ROUNDS):
        for name, side in sides.items():
            started = time.process_time()
            side.step(number)
            seconds[name].append(time.process_time() - started)
            losses[name].append(side.loss)
            print(name, number, seconds[name][-1], side.loss, flush=True)
    measured = {name: found[1:] for name, found in seconds.items()}
    median = {name: float(np.median(found)) for name, found in measured.items()}
    first, second, third = sides
    apart = np.subtract(losses[second], losses[third])
    return {
        "processor_seconds": measured,
        "median": median,
        "times_faster": {name: median[first] / median[name] for name in sides},
        "compile_seconds": compiling,
        "once_processor_seconds_per_text": once / EXAMPLES,
        "bytes_per_text": lower.table.nbytes / EXAMPLES,
        "losses": losses,
        "largest_difference_of_losses": float(np.max(np.abs(apart))),
        "examples": EXAMPLES,
        "batch": BATCH,
        "mean_tokens": float(tokens.lengths.mean()),
    }


def outcomes(folder: Path) -> Mapping[str, dict[str, float]]:
    """Train on every subset in both ways; what is in the results is not done again."""
    path = RESULTS / f"{AGREEMENT}.json"
    found = earlier(path)
    ways = {"all layers": None, LAST: LAST}
    llms = {(name, s): opened(ways[name], s) for name, s in product(ways, SEEDS)}
    top = llms[LAST, SEEDS[0]]
    examples = clicks(POOL + JUDGED)
    tokens = tokens_of(examples, top)
    judged = examples[POOL:]
    decoder, tokenizer = top.load()
    questions = ask(judged, tokenizer, context=decoder.config.max_positions)
    valid = take(tokens, np.arange(POOL, POOL + 1))  # the last loss is of no use here
    # The states do not depend on the seed: it draws adapters, which are above.
    lower = keep_states(folder, top, [tokens, questions.tokens], reads=SUBSETS * POOL)
    for subset in range(SUBSETS):
        rows = np.random.default_rng(subset).choice(POOL, BUDGET, replace=False)
        train = take(tokens, rows)
        for (name, seed), llm in llms.items():
            cells = found.setdefault(f"{name}, seed {seed}", {})
            if str(subset) in cells:
                continue
            given = {"seed": seed, "lower": lower if name == LAST else None}
            done = finetune(llm.decoder(), train, valid, CONFIG, **given)
            margins = yes_margins(done.model, questions, lower=given["lower"])
            likely = log_likelihoods(margins, read_answers(judged))
            cells[str(subset)] = float(likely.mean())
            record = {"settings": SETTINGS, "outcomes": found, **agreement(found)}
            write(AGREEMENT, record)
            print(name, seed, subset, cells[str(subset)], flush=True)
    return found


def earlier(path: Path) -> dict[str, dict[str, float]]:
    """Read the outcomes of a run that was stopped, if its settings were these."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    if record.get("settings") != SETTINGS:
        raise SystemExit(f"{path} has outcomes of other settings: remove it.")
    return record["outcomes"]


def agreement(found: Mapping[str, Mapping[str, float]]) -> Mapping[str, Any]:
    """Correlate the ranks of the subsets that are done in all four columns."""
    columns = [f"{name}, seed {s}" for name in ("all layers", LAST) for s in SEEDS]
    done = set.intersection(*(set(found.get(column, {})) for column in columns))
    if len(done) < 4:
        return {"subsets": len(done)}
    table = np.array([[found[c][subset] for c in columns] for subset in sorted(done)])
    ways = table.reshape(len(table), 2, len(SEEDS))
    plain, last = (list(way.T) for way in ways.swapaxes(0, 1))
    return {
        "subsets": len(done),
        # Of single seeds, as the others are: means of seeds would agree more.
        "both_ways": correlated(list(product(plain, last))),
        "all layers with itself": correlated(list(combinations(plain, 2))),
        f"{LAST} with itself": correlated(list(combinations(last, 2))),
    }


def correlated(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], resamples: int = 2000
) -> dict[str, float]:
    """Return the mean of Spearman's correlations of pairs with a 95 % interval."""
    mean = lambda rows: float(
        np.mean([np.asarray(spearmanr(x[rows], y[rows]))[0] for x, y in pairs])
    )
    rng, size = np.random.default_rng(0), len(pairs[0][0])
    values = [mean(rows) for rows in rng.integers(0, size, (resamples, size))]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    value = mean(np.arange(size))
    return {"spearman": value, "low": float(low), "high": float(high)}


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--states", type=Path, help="folder that keeps the states")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.states or Path(scratch)
        if options.agreement:
            outcomes(folder)
            return
        print(write("layers", dict(steps(folder))))


if __name__ == "__main__":
    main()
