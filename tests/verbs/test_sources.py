"""`goracs select --space --reward --scale`: the same as with arrays made beforehand."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import ARRAYS, BUDGET, TEXTS, assert_refused, run

import goracs_jax as gx

GRADS = "grads --model llm --which all_lora --projection-dim 16"
SPACE = f"{TEXTS} --lambda 0 --projection-dim 16"


@pytest.fixture
def projected(files):
    """Projected gradients of both sets, by `goracs grads`, as X.npy and Y.npy."""
    for side, out in (("train", "X"), ("valid", "Y")):
        command = f"{GRADS} --data {side}.jsonl --out n.npy --projections {out}.npy"
        assert run(command, None) == 0
    return np.load("X.npy"), np.load("Y.npy")


def chosen(folder="out"):
    return np.load(f"{folder}/indices.npy").tolist()


def poo(folder="out"):
    return manifest(folder)["poo"]


def manifest(folder="out"):
    return json.loads(Path(folder, "manifest.json").read_text())


def test_gradients_are_those_of_grads(projected):
    assert run(f"{SPACE} --space gradient") == 0
    given = ARRAYS.replace("x.npy", "X.npy").replace("y.npy", "Y.npy")
    assert run(given.replace("--out out", "--out by_hand")) == 0
    assert chosen() == chosen("by_hand")
    assert poo() == pytest.approx(poo("by_hand"), rel=1e-6)


def test_alignment_is_weighed(projected, files):
    x, y = projected
    assert run(f"{TEXTS} --projection-dim 16 --reward alignment/drop:1 --lambda 2") == 0
    kept = np.load("out/scores.npz")
    aligned = gx.alignment(x, y, drop=1)
    assert "grad_norm" not in kept
    # Both are the same float32 numbers; products are summed in float64.
    np.testing.assert_allclose(kept["reward"], aligned, rtol=1e-6)
    told = manifest()
    assert told["config"]["reward"] == "alignment/drop:1"
    assert told["poo_units"].startswith("C = D / max(D) - lambda r / max|r|")
    sides = (f"{side} embeddings-*" for side in ("training", "validation"))
    stages = [next((files / "out/stages").glob(side)) for side in sides]
    text = [np.load(stage / "embeddings.npy") for stage in stages]
    found = gx.poo(*text, None, kept["selected"].nonzero()[0], lambda_=2.0,
                   rewards=aligned)  # fmt: skip
    assert told["poo"] == pytest.approx(found, abs=1e-6)


def test_alignment_is_inside_classes(projected, files):
    lines = Path("train.jsonl").read_text().splitlines()
    labels = [json.loads(line)["output"] for line in lines]
    kinds = np.array([len(text) % 2 for text in labels])
    np.save("k.npy", kinds)
    theirs = np.arange(10) % 2
    np.save("m.npy", theirs)
    flags = "--reward alignment --train-labels k.npy --valid-labels m.npy"
    assert run(f"{TEXTS} --projection-dim 16 {flags}") == 0
    expected = gx.alignment(*projected, train_labels=kinds, valid_labels=theirs)
    np.testing.assert_allclose(np.load("out/scores.npz")["reward"], expected, rtol=1e-6)


def test_rows_and_rewards_of_files(files):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(24, 3)), rng.normal(size=(10, 3))
    np.savez("rows.npz", train=x, valid=y)
    assert run(f"{SPACE} --space rows.npz --metric cosine --scale median") == 0
    one = chosen()
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.save("r.npy", rng.normal(size=24))
    flags = "--metric cosine --scale median --out by_hand"
    command = ARRAYS.replace("--out out", flags)
    assert run(command) == 0
    assert one == chosen("by_hand")
    assert run(f"{command} --rewards r.npy --lambda 0.5") == 0
    r = np.load("r.npy")
    units = gx.unit_rows(x), gx.unit_rows(y)
    weighed = {"lambda_": 0.5, "rewards": r, "scale": "median"}
    found = gx.poo(*units, None, np.load("by_hand/indices.npy"), **weighed)
    assert poo("by_hand") == pytest.approx(found, abs=1e-6)


def test_sources_are_joined(files):
    assert run(f"{SPACE} --space text+gradient:0.5 --dry-run") == 0
    assert run(f"{SPACE} --space text+gradient:0.5") == 0
    assert len(chosen()) == BUDGET
    first = poo()
    assert run(f"{SPACE} --space text+gradient:5") == 0  # not taken for the first
    assert poo() != first


def test_a_second_run_computes_nothing_again(files, capsys):
    command = f"{SPACE} --space gradient"
    assert run(command) == 0
    capsys.readouterr()
    assert run(f"{command} --dry-run") == 0
    told = capsys.readouterr().out
    assert "training gradients: done" in told
    assert "validation gradients: done" in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--space pictures", "--space must be text, gradient"),
        ("--space no.npz", "no.npz does not exist"),
        ("--space text+text", "one source, or from several"),
        ("--reward best", "a reward is grad-norm"),
        ("--reward none --lambda 1", "lambda 1.0 needs gradient norms or other"),
        ("--rewards r.npy", "--rewards is for embeddings that are given"),
        ("--projection-dim 0", "--projection-dim must be at least 1"),
        ("--scale mean", "--scale"),
    ],
)
def test_mistakes_are_found_before_any_work(files, flags, message, capsys):
    assert_refused(f"{TEXTS} {flags}", BUDGET, capsys, message)
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("arrays_in_it", "message"),
    [
        ({"train": np.ones((24, 3))}, "takes the arrays train and valid of one file"),
        ({"train": np.ones((23, 3)), "valid": np.ones((10, 3))}, r"floats \[24, dim\]"),
        ({"train": np.ones((24, 3)), "valid": np.ones((10, 3), int)}, "got int64"),
    ],
)
def test_files_of_rows_that_do_not_fit(files, arrays_in_it, message, capsys):
    np.savez("rows.npz", **arrays_in_it)
    command = f"{SPACE} --space rows.npz"
    assert_refused(command, BUDGET, capsys, message)


def test_a_space_is_for_texts(arrays, capsys):
    assert_refused(f"{ARRAYS} --space text", BUDGET, capsys, "--space is for texts")


def test_an_adapter_is_trained_on_a_part_of_the_pool_once(files, capsys):
    command = f"{SPACE} --space gradient --adapter-from-pool 0.2 --labels answer"
    assert run(command) == 0
    assert "fresh adapter" not in capsys.readouterr().out
    (home,) = Path("out/stages").glob("adapter from the pool-*")
    assert (home / "adapter_config.json").exists()
    trained = (home / "adapter_model.safetensors").stat().st_mtime_ns
    assert run(f"{command} --method nearest --preconditioner adam") == 0
    assert (home / "adapter_model.safetensors").stat().st_mtime_ns == trained
    plain, adam = sorted(Path("out/stages").glob("training gradients-*"))
    one, two = (np.load(p / "projections.npy") for p in (plain, adam))
    assert not np.allclose(one, two)
    assert len(list(Path("out/stages").glob("validation gradients-*"))) == 1


def test_a_fresh_adapter_is_said_to_be_poor(files, capsys):
    assert run(f"{SPACE} --space gradient --dry-run") == 0
    assert "gradients of a fresh adapter say little" in capsys.readouterr().out


def test_the_loss_drop_is_weighed(files):
    assert run(f"{TEXTS} --reward loss-drop --lambda 1 --labels answer") == 0
    (home,) = Path("out/stages").glob("loss drop-*")
    rewards = np.load(home / "rewards.npy")
    np.testing.assert_array_equal(np.load("out/scores.npz")["reward"], rewards)
    before, after = np.load(home / "losses.npy").T[:2]
    # Losses of about 6 are rounded to float32: 6e-8 of each.
    drop = (before - after) / np.maximum(before, after)
    np.testing.assert_allclose(rewards, drop, atol=2e-7)


def test_a_probe_is_that_of_the_prompts_states(files, capsys):
    probe = f"{TEXTS} --reward probe --lambda 1 --labels answer"
    message = "reward probe tells the answers of the validation examples apart: give --"
    assert_refused(probe, BUDGET, capsys, message)
    assert run(f"{probe} --by-label") == 0
    x, y = (
        np.load(next(Path("out/stages").glob(f"{side} prompts-*/embeddings.npy")))
        for side in ("training", "validation")
    )
    mine, theirs = (
        np.array([e.record["output"] for e in gx.read_examples(name)])
        for name in ("train.jsonl", "valid.jsonl")
    )
    found = np.load("out/scores.npz")["reward"]
    np.testing.assert_allclose(found, gx.probe(x, y, mine, theirs), rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "array"),
    [("states", "embeddings"), ("prompts", "embeddings"), ("subspace", "projections")],
)
def test_other_sources(files, source, array):
    assert run(f"{SPACE} --space {source} --labels answer") == 0
    for side, rows in (("training", 24), ("validation", 10)):
        (home,) = Path("out/stages").glob(f"{side} {source}-*")
        assert len(np.load(home / f"{array}.npy")) == rows


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--adapter-from-pool 0", "must be above 0 and at most 1, got 0.0"),
        ("--adapter-from-pool 1.5", "must be above 0 and at most 1"),
        ("--adapter-from-pool 0.1 --adapter a", "not both"),
        ("--preconditioner adam", "give --adapter-from-pool"),
    ],
)
def test_adapters_that_cannot_be(files, flags, message, capsys):
    assert_refused(f"{SPACE} --space gradient {flags}", BUDGET, capsys, message)


def test_no_loss_drop_of_arrays(arrays, capsys):
    message = "--reward loss-drop is for texts: give --rewards"
    assert_refused(f"{ARRAYS} --reward loss-drop --lambda 1", BUDGET, capsys, message)


def test_a_method_has_its_own_space_and_reward(projected, files):
    """Of less, cosines of gradients; of alignment, gradients and their alignment."""
    command = f"{TEXTS} --projection-dim 16"
    assert run(f"{command} --method less") == 0
    told = manifest()["config"]
    assert [told[k] for k in ("space", "metric")] == ["gradient", "cosine"]
    x, y = map(gx.unit_rows, projected)
    # Validation rows in turn, each its most similar row that is free.
    taken = []
    for turn in range(BUDGET):
        order = np.argsort(-(x @ y[turn % len(y)]))
        taken.append(next(int(row) for row in order if row not in taken))
    assert chosen() == sorted(taken)
    assert run(f"{command} --method alignment") == 0
    order = np.argsort(-gx.alignment(*projected))
    assert chosen() == sorted(order[:BUDGET].tolist())


def test_a_method_that_ranks_by_rewards_needs_some(arrays, capsys):
    message = "--method alignment ranks by rewards: give --rewards"
    command = f"{ARRAYS} --method alignment --reward none"
    assert_refused(command, BUDGET, capsys, message)
