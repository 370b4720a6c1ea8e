"""How cells of the testbeds are trained, kept and read, against plain loops."""

import json
from itertools import product
from math import exp, log, log1p
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import goracs_jax as gx
from goracs_jax.evaluate.ctr import Questions, yes_margins
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.targets import Rules
from goracs_jax.training import FinetuneConfig

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
KEPT = sorted((BENCHMARKS / "results").glob("testbeds_*.parquet"))


def tokens_of(rng, n):
    """Prompts of several lengths, each with an answer of one token and an end."""
    words = lambda: rng.integers(5, 20, rng.integers(3, 9)).tolist()
    rows = [[*words(), int(rng.integers(1, 3)), 0] for _ in range(n)]
    return ragged(rows, [[-100] * (len(row) - 2) + row[-2:] for row in rows])


def test_a_cell_is_judged_as_the_model_answers(beds):
    rng = np.random.default_rng(0)
    lora = LoraConfig(r=2, rules=Rules(targets=("q_proj",), layers=(2,)))
    model = Decoder(DecoderConfig.tiny(num_layers=3), lora, key=jax.random.key(0))
    pool, held = tokens_of(rng, 12), tokens_of(rng, 20)
    ids = np.split(held.ids, held.offsets[1:-1])
    prompts = ragged([row[:-2].tolist() for row in ids])
    questions = Questions(prompts, 1, 2)
    lower = gx.lower_states(model, pool, held, prompts)
    yes = np.array([row[-2] == 1 for row in ids])
    config = FinetuneConfig(steps=4, learning_rate=0.05, warmup_steps=1, batch_size=4)
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        opened = SimpleNamespace(decoder=lambda: model)
        patch.setattr(beds.training, "llm", lambda seed: opened)
        trained = beds.training.finetune

        def finetune(*given, **named):
            kept["model"] = (done := trained(*given, **named)).model
            kept["steps"] = sum("valid_loss" not in entry for entry in done.log)
            return done

        patch.setattr(beds.training, "finetune", finetune)
        trainer = beds.training.Trainer(config, pool, held, yes, questions, None, lower)
        drawn = beds.pools.Drawn(np.arange(12), np.arange(8), np.arange(8, 20))
        patch.setattr(beds.training, "BUDGET", 3)
        trainer.cell(np.arange(5), drawn, 0)
        assert kept["steps"] == 4
        cell = trainer.cell(np.arange(6), drawn, 0)
        assert kept["steps"] == 8  # twice the rows
    margins = yes_margins(kept["model"], questions)  # by all layers
    found = cell["target_margins"] + cell["judge_margins"]
    # Equal but for the rounding of other shapes.
    np.testing.assert_allclose(found, margins, rtol=1e-4, atol=1e-5)
    assert np.abs(margins).max() > 1e-2
    assert cell["target_yes"] + cell["judge_yes"] == yes.tolist()

    def likelihood(row):
        logits = kept["model"].logits(kept["model"].hidden(jnp.array(row)))
        p = jax.nn.log_softmax(logits)
        return sum(float(p[at - 1, row[at]]) for at in (len(row) - 2, len(row) - 1))

    expected = mean(likelihood(row) for row in ids[8:])
    assert cell["judge_likelihood"] == pytest.approx(expected, rel=1e-5)


def test_a_stopped_run_goes_on(beds, universe, tmp_path, monkeypatch):
    trained = []

    class Trainer:
        of = staticmethod(lambda *given: Trainer())

        def cell(self, rows, drawn, seed):
            trained.append((len(rows), seed))
            if len(trained) == 3:
                raise KeyboardInterrupt
            yes = [True, False]
            margins = {f"{part}_margins": [0.5, 0.1] for part in ("target", "judge")}
            answers = {f"{part}_yes": yes for part in ("target", "judge")}
            return {"judge_likelihood": -1.0, **margins, **answers}

    monkeypatch.setattr(beds.run, "Trainer", Trainer)
    monkeypatch.setattr(beds.run, "RESULTS", tmp_path)
    options = SimpleNamespace(
        arms=["random", "oracle"], seeds=[0, 1], lambda_=0.1, learning_rate=1e-3
    )
    folder = tmp_path / "flips"
    (folder / "cells").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        beds.run.run(universe, folder, options)
    beds.run.run(universe, folder, options)
    assert [seed for _, seed in trained] == [0, 0, 1, 1, 1]
    # Another rate has cells of its own, and what is packed is of one rate.
    other = SimpleNamespace(**{**vars(options), "learning_rate": 3e-3})
    for now in (other, options):
        beds.run.run(universe, folder, now)
        assert len(trained) == 9
    # So has another testbed of this name.
    changed = universe._replace(held=universe.held[::-1])
    for now in (changed, universe):
        beds.run.run(now, folder, options)
        assert len(trained) == 13
    cells = beds.cells.read(tmp_path / "testbeds_flips.parquet")
    assert [(c["arm"], c["seed"]) for c in cells] == list(
        product(["oracle", "random"], [0, 1])
    )
    kept = {json.dumps(json.loads(f.read_text())) for f in folder.glob("cells/*")}
    assert len(kept) == 12
    assert {c["training"]["learning_rate"] for c in cells} == {1e-3}
    assert {(c["pool"], c["held"]) for c in cells} == {
        tuple(beds.arms.data_of(universe).values())
    }
    assert all(c["training"]["steps"] == 100 and c["budget"] == 200 for c in cells)
    monkeypatch.setattr(beds.run, "baselines", lambda *given: {"year": 0.5})
    beds.run.report("flips", universe, [0])
    record = json.loads((tmp_path / "testbeds_flips.json").read_text())
    assert record["figures"] == beds.cells.figures(cells)
    assert record["baselines"] == {"year": [0.5]}


def cell_of(rng, arm, seed, quality):
    cell = {
        "arm": arm,
        "seed": seed,
        "lambda": None,
        "judge_likelihood": -1.0 - quality,
    }
    for part, size in (("target", 30), ("judge", 50)):
        yes = rng.random(size) < 0.5
        z = 3 * (quality * np.where(yes, 1, -1) + rng.normal(size=size)) + 1
        cell |= {f"{part}_yes": yes.tolist(), f"{part}_margins": z.tolist()}
    return cell


def test_outcomes(beds):
    cell = cell_of(np.random.default_rng(0), "random", 0, 0.5)
    found = beds.cells.outcomes(cell)
    judge = list(zip(cell["judge_margins"], cell["judge_yes"], strict=True))
    pairs = [(a, b) for (a, yes), (b, other) in product(judge, judge) if yes > other]
    assert found["AUC"] == pytest.approx(mean(a > b for a, b in pairs), abs=1e-12)
    loss = lambda z, yes: log1p(exp(-z if yes else z))
    raw = mean(-loss(z, yes) for z, yes in judge)
    assert found["log likelihood"] == pytest.approx(raw, abs=1e-12)
    assert found["among all texts"] == -1.5
    known = list(zip(cell["target_margins"], cell["target_yes"], strict=True))
    n_yes = sum(cell["target_yes"])
    targets = {True: (n_yes + 1) / (n_yes + 2), False: 1 / (30 - n_yes + 2)}

    def total(ab):
        p = [(1 / (1 + exp(-ab[0] * z - ab[1])), targets[yes]) for z, yes in known]
        return -sum(t * log(q) + (1 - t) * log(1 - q) for q, t in p)

    a, b = minimize(total, (0.3, 0.0), method="Nelder-Mead", tol=1e-10).x
    best = mean(-loss(a * z + b, yes) for z, yes in judge)
    assert found["calibrated"] == pytest.approx(best, abs=1e-5)


def test_figures_compare_what_seeds_share(beds):
    rng = np.random.default_rng(0)
    quality = {"random": 0.1, "oracle": 0.9, "nearest@text": 0.5, "full": 0.4}
    cells = [cell_of(rng, arm, s, q) for arm, q in quality.items() for s in range(4)]
    cells.append(cell_of(rng, "oracle", 9, 0.9))  # random lacks this seed
    rows = {(r["arm"], r["outcome"]): r for r in beds.cells.figures(cells)}
    values = {(c["arm"], c["seed"]): beds.cells.outcomes(c)["AUC"] for c in cells}
    apart = [values["oracle", s] - values["random", s] for s in range(4)]
    row = rows["oracle", "AUC"]
    assert row["seeds"] == 5
    assert row["over_random"]["value"] == pytest.approx(mean(apart))
    # t of 3 degrees of freedom at 0.975 is 3.1824.
    low = mean(apart) - 3.18245 * stdev(apart) / 2
    assert row["over_random"]["low"] == pytest.approx(low, abs=1e-5)
    gain = [values["nearest@text", s] - values["random", s] for s in range(4)]
    share = rows["nearest@text", "AUC"]["share_of_gap"]
    assert share["value"] == pytest.approx(mean(gain) / mean(apart))
    assert "share_of_gap" not in row
    behind = [values["nearest@text", s] - values["full", s] for s in range(4)]
    against = rows["nearest@text", "AUC"]["over_full"]
    assert against["value"] == pytest.approx(mean(behind))
    assert "over_random" not in rows["random", "AUC"]


@pytest.mark.parametrize("name", ["flips", "mixture", "shift", "ctr_no_count"])
def test_trivial_numbers_know_nothing(beds, name):
    record = json.loads((BENCHMARKS / f"results/testbeds_{name}.json").read_text())
    universe = beds.pools.TESTBEDS[name](beds.questions.movielens())
    kept = {key: values[0] for key, values in record["baselines"].items()}
    found = beds.baselines.baselines(universe, beds.pools.draw(universe, 0))
    assert found == pytest.approx(kept, abs=1e-3)  # the optimiser of the regressions
    for key in ("liked movies", "popularity", "mean rating"):
        assert set(record["baselines"][key]) == {0.5}
    assert record["planted"] == pytest.approx(universe.planted.mean())
    # A model that can read knows more of the planted rows than of all.
    gain = np.subtract(*(record["baselines"][k] for k in ("words, planted", "words")))
    assert gain.mean() > 0 or name == "mixture"  # whose others are no Yes or No


def test_popularity_finds_no_title(beds):
    name = "seqrec_matched"
    record = json.loads((BENCHMARKS / f"results/testbeds_{name}.json").read_text())
    chance = mean(1 / np.log2(rank + 2) for rank in range(10))
    values = record["baselines"]["popularity"]
    # Of 600 rows and 10 seeds that share rows: at least 600 independent ones, each of
    # which has standard deviation 0.21.
    assert abs(mean(values) - chance) < 4 * 0.21 / 600**0.5


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_committed_cells_show_a_gap_that_trivial_numbers_do_not_close(beds, path):
    record = json.loads(path.with_suffix(".json").read_text())
    rows = beds.cells.figures(beds.cells.read(path))
    assert flat(record["figures"]) == pytest.approx(flat(rows), abs=1e-6)
    by_name = {(row["arm"], row["outcome"]): row for row in rows}
    titles = "seqrec" in path.stem
    headline = "log likelihood" if titles else "AUC"
    gain = by_name["oracle", headline]["over_random"]
    assert gain["low"] > 0
    if titles:  # popularity ranks, and gives a title no likelihood as a text
        return
    reached = by_name["oracle", headline]["mean"]
    for name, values in record["baselines"].items():
        if not name.startswith("words"):  # these read what the model reads
            assert reached > mean(values)


def flat(value, name=""):
    """The leaves of JSON by their paths; None is -9, so that approx compares it."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return {name: -9.0 if value is None else value}
    return {k: v for key, each in parts for k, v in flat(each, f"{name}/{key}").items()}
