"""Seeds that draw pool, target and adapter; validation in halves; rates; tokens."""

import hashlib
import json

import numpy as np
import pytest
import tiny
from commands import edit, run
from comparing import cell_of, cells, comparison, write

import goracs_jax as gx
from goracs_jax.runs.opened import open_llm, read_pool
from goracs_jax.runs.reading import tokenize_pool

N, M, POOL, TARGET = 16, 8, 10, 3
COMPARE = (
    "compare --task ctr --train train.jsonl --valid valid.jsonl --test test.jsonl "
    "--model llm --methods full,random,goracs --budgets 4 --lambdas 0.3 --seeds 2 "
    "--steps 3 --batch-size 4 --warmup-steps 1 --draw-train 10 --draw-valid 3 "
    "--split-valid --tune-learning-rate 0.0003,0.03 --tuning-seeds 1 --out out"
)
CELLS = 2 + 2 + 1 + 2 * 2  # rates of full and of random; full, random and goracs


def question(i, user):
    """A click of a user, with a prompt of its own length."""
    text = f"item {i:02} " + "and more " * (i % 5)
    answer = ("Yes", "No")[i % 2]
    return {"instruction": "Like?", "input": text, "output": answer, "user": user}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A comparison with all of the protocol."""
    folder = tmp_path_factory.mktemp("protocol")
    tiny.write_llm(folder / "llm")
    for name, first, size in (("train", 0, N), ("valid", 50, M), ("test", 80, 6)):
        records = [question(first + i, f"u{i // 2}") for i in range(size)]
        write(folder / f"{name}.jsonl", records)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(COMPARE, None) == 0
    return folder


def lines(path):
    return path.read_text().splitlines()


def manifest(cell, part):
    return json.loads((cell.parent / part / "manifest.json").read_text())


def chosen_cells(folder):
    """Of the table, not of tuning, with rows that were chosen."""
    found = [c for c in cells(folder) if (c.parent / "selection").exists()]
    return [c for c in found if cell_of(c)["seed"] in (0, 1)]


def drawn_by(folder, cell):
    """The files of the pool and the target of a trial."""
    config = manifest(cell, "adapter")["config"]
    pool = manifest(cell, "selection")["config"]["train"]
    return folder / pool, folder / config["valid"]


def test_each_seed_draws_a_pool_and_a_target(shared):
    pools, targets = {}, {}
    for cell in chosen_cells(shared):
        seed = cell_of(cell)["seed"]
        pool, target = drawn_by(shared, cell)
        assert pools.setdefault(seed, pool) == pool
        assert targets.setdefault(seed, target) == target
        rows = np.load(cell.parent / "selection" / "indices.npy")
        found = [json.loads(x) for x in lines(cell.parent / "selection/coreset.jsonl")]
        assert found == [json.loads(lines(pool)[row]) for row in rows]
    for files, size, whole in ((pools, POOL, "train"), (targets, TARGET, "valid")):
        one, two = (set(lines(files[seed])) for seed in (0, 1))
        assert len(one) == len(two) == size
        assert one != two
        assert one | two <= set(lines(shared / f"{whole}.jsonl"))


def test_models_are_calibrated_on_the_target_of_their_seed(shared):
    for cell in chosen_cells(shared):
        _, target = drawn_by(shared, cell)
        found = json.loads((cell.parent / "metrics.json").read_text())
        calibration = found["diagnostics"]["calibration"]
        expected = hashlib.sha256(target.read_bytes()).hexdigest()
        assert calibration["fitted_on"] == expected
        assert len(calibration["fits"]) == 1


def test_a_choice_sees_what_its_seed_has_drawn(shared):
    """POO anew: rows of the embeddings of whole files, norms of the pool's own pass."""
    kept = shared / "out" / "shared"
    x, y = (np.load(kept / f"{name}.npy") for name in ("train", "valid"))
    assert (len(x), len(y)) == (N, M // 2)
    targets = [lines(path) for path in kept.glob("valid-*.jsonl")]
    (target_half,) = [each for each in targets if len(each) == M // 2]
    whole = {"train": lines(shared / "train.jsonl"), "valid": target_half}
    for cell in chosen_cells(shared):
        key, files = cell_of(cell), drawn_by(shared, cell)
        pool, target = (
            [whole[name].index(line) for line in lines(path)]
            for name, path in zip(whole, files, strict=True)
        )
        weighs = key["method"] == "goracs"
        norms = np.load(kept / f"norms-{key['seed']}.npy") if weighs else None
        rows = np.load(cell.parent / "selection" / "indices.npy")
        lambda_ = key["lambda_"] or 0.0
        poo = gx.poo(x[pool], y[target], norms, rows, lambda_=lambda_, solver="exact")
        # The same program on the same numbers; a sum of M terms may round otherwise.
        assert json.loads(cell.read_text())["poo"] == pytest.approx(poo, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_norms_are_those_of_the_adapter_of_the_seed(shared, seed, monkeypatch):
    monkeypatch.chdir(shared)
    (pool,) = {
        drawn_by(shared, cell)[0]
        for cell in chosen_cells(shared)
        if cell_of(cell)["seed"] == seed
    }
    llm = open_llm(shared / "llm", None, seed)
    read = read_pool(pool)
    tokens = tokenize_pool(read, llm, "answer")
    norms = gx.gradient_norms(llm.decoder(), tokens)
    found = np.load(shared / "out" / "shared" / f"norms-{seed}.npy")
    np.testing.assert_allclose(found, norms, rtol=1e-5)  # float32 sums


def both_halves(folder):
    """The lines of the target, over all seeds, and of what is judged."""
    (path,) = (folder / "out" / "shared").glob("test-*.jsonl")
    targets = (lines(drawn_by(folder, cell)[1]) for cell in chosen_cells(folder))
    return {line for each in targets for line in each}, lines(path)


def test_one_half_of_the_users_is_the_target_and_the_other_judges(shared):
    target, judged = both_halves(shared)
    assert judged[:6] == lines(shared / "test.jsonl")
    user = lambda line: json.loads(line)["user"]
    others = set(map(user, judged[6:]))
    assert len(others) == 2  # of the four of validation, with two examples each
    assert len(judged) == 6 + 4
    assert others.isdisjoint(map(user, target))
    for cell in cells(shared):
        said = [json.loads(x) for x in lines(cell.parent / "metrics.predictions.jsonl")]
        outputs = [json.loads(line)["output"] for line in judged]
        assert [each["label"] for each in said] == outputs
    (note,) = [n for n in comparison(shared)["notes"] if n.startswith("The target is")]
    assert "(4 examples)" in note
    assert "The other 4 are judged with the test examples" in note


def test_rates_are_tuned_on_random_and_on_full_alone(shared):
    found = comparison(shared)
    assert [(each["method"], each["budget"]) for each in found["tuning"]] == [
        ("full", POOL),
        ("random", 4),
    ]
    by_key = {
        tuple(cell_of(c)[k] for k in ("method", "seed", "learning_rate")): c
        for c in cells(shared)
    }
    assert len(by_key) == CELLS
    last = 2**32 - 1  # the seed before the first
    for each in found["tuning"]:
        losses = {}
        for tried in each["tried"]:
            rate = tried["learning_rate"]
            trained = manifest(by_key[each["method"], last, rate], "adapter")
            assert trained["config"]["learning_rate"] == rate
            assert tried["valid_loss"] == trained["kept_valid_loss"]
            losses[rate] = tried["valid_loss"]
        assert each["learning_rate"] == min(losses, key=losses.__getitem__)
    rates = {each["method"]: each["learning_rate"] for each in found["tuning"]}
    for (method, seed, rate), cell in by_key.items():
        if seed != last:
            assert rate == rates["full" if method == "full" else "random"]
            assert manifest(cell, "adapter")["config"]["learning_rate"] == rate
    # No trial of tuning is in the table.
    seeds = {s for row in found["rows"] for s in row["seeds"]}
    assert seeds == {0, 1}
    (note,) = [n for n in found["notes"] if n.startswith("Learning rates: ")]
    assert f"{rates['full']:g} for full; {rates['random']:g} for budget 4, of" in note


def test_other_lines_first_are_the_same_trials(files, capsys):
    for name in ("train", "valid"):
        rng = np.random.default_rng(0)
        shuffled = lambda text, rng=rng: "".join(
            rng.permutation(text.splitlines(keepends=True)).tolist()
        )
        edit(files / f"{name}.jsonl", shuffled)
    assert run(COMPARE + " --dry-run", None) == 0
    assert f"{CELLS} trials: {CELLS} done, 0 to do" in capsys.readouterr().out
    more = COMPARE.replace("--draw-train 10", "--draw-train 11")
    assert run(more + " --dry-run", None) == 0
    printed = capsys.readouterr().out
    assert f"{CELLS} trials: 0 done, {CELLS} to do" in printed
    assert "full, budget 11, seed 0: to do, once its learning rate is tuned" in printed


def test_a_table_where_tuning_is_not_finished(files, capsys):
    (lost,) = [
        c
        for c in cells(files)
        if (cell_of(c)["method"], cell_of(c).get("learning_rate")) == ("full", 0.0003)
        and cell_of(c)["seed"] > 1
    ]
    lost.unlink()
    assert run(COMPARE + " --finished", None) == 0
    assert "4 of 5 trials are done" in capsys.readouterr().out
    found = comparison(files)
    assert {row["method"] for row in found["rows"]} == {"random", "goracs"}
    assert [each["method"] for each in found["tuning"]] == ["random"]
    assert f"Missing: full, budget {POOL}, seed 0." in found["notes"][-1]


def test_equal_tokens_whatever_is_chosen(files):
    """Costs follow, and each training ends within a batch of the tokens asked for."""
    flags = (
        "compare --task ctr --train train.jsonl --valid valid.jsonl --test test.jsonl "
        "--model llm --methods full,random,goracs --budgets 4 --lambdas 0 --seeds 1 "
        "--tokens 700 --batch-size 3 --warmup-steps 1 --learning-rate 0.01 --out same"
    )
    assert run(flags, None) == 0
    llm = open_llm(files / "llm", None, 0)
    steps = set()
    for cell in sorted((files / "same" / "cells").glob("*/cell.json")):
        tuned = manifest(cell, "adapter")
        coreset = cell.parent / "selection" / "coreset.jsonl"
        data = read_pool(coreset if coreset.exists() else files / "train.jsonl")
        lengths = tokenize_pool(data, llm).lengths
        assert abs(tuned["tokens"] - 700) <= np.sort(lengths)[-3:].sum() / 2
        assert tuned["keep"] == "last"
        steps.add(tuned["steps"])
        record = json.loads(cell.read_text())
        assert record["inputs"]["training"]["tokens"] == 700
    assert len(steps) > 1  # or equal steps would have done
    table = (files / "same" / "table.md").read_text()
    assert "Each model is trained on 700 tokens, to within a batch" in table
