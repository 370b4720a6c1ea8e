"""`goracs compare --layers last:K`: trials share what the layers below all make."""

import json

import numpy as np
import pytest
import tiny
from commands import run

COMPARE = (
    "compare --task ctr --train train.jsonl --valid valid.jsonl --test test.jsonl "
    "--model llm --methods random --budgets 4 --seeds 2 --steps 3 --batch-size 4 "
    "--warmup-steps 1 --learning-rate 0.03 --layers last:1 --out"
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Examples of one length, no two of them alike."""
    tiny.write_llm(tmp_path / "llm")
    first = 0
    for name, size in (("train", 10), ("valid", 4), ("test", 6)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for i in range(first, first + size):
                record = {"instruction": "Like?", "input": f"tree {i:02}", "user": i}
                record["output"] = "Yes" if i % 3 else "No"
                file.write(json.dumps(record) + "\n")
        first += size
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcomes(folder):
    cells = json.loads((folder / "comparison.json").read_text())["cells"]
    found = {}
    for cell in cells:
        lines = (folder / cell["folder"] / "metrics.predictions.jsonl").read_text()
        scores = [json.loads(line)["score"] for line in lines.splitlines()]
        found[cell["cell"]["seed"]] = np.array(scores)
    return found, cells


def test_trials_share_what_lower_layers_make(files, capsys, monkeypatch):
    assert run(f"{COMPARE} kept", None) == 0
    told = "run once: 0 MiB for 20 texts"  # of the pool, validation and test
    assert capsys.readouterr().out.count(told) == 1
    (record,) = (files / "kept" / "shared").glob("lower-states-*/states.json")
    before = record.stat().st_mtime_ns
    # More trials go on with the same states, and so do all parts of a trial.
    with monkeypatch.context() as patch:
        patch.setattr("goracs_jax.llm.lower._lower", None)
        more = COMPARE.replace("--seeds 2", "--seeds 3")
        assert run(f"{more} kept", None) == 0
    assert record.stat().st_mtime_ns == before
    assert not list((files / "kept" / "cells").rglob("lower-*"))

    # Without room all layers run in every step, with the same result.
    monkeypatch.setattr("goracs_jax.runs.lower.SPARE", 1 << 60)
    assert run(f"{more} plain", None) == 0
    (kept, cells), (plain, others) = (outcomes(files / x) for x in ("kept", "plain"))
    assert kept.keys() == plain.keys() == {0, 1, 2}
    for seed in kept:
        # Probabilities after three steps, in float32.
        np.testing.assert_allclose(kept[seed], plain[seed], atol=1e-5)
    assert float(np.ptp(kept[0])) > 1e-4, "the model tells examples apart"
    # The trials are the same ones; those that share states are charged less.
    assert [c["folder"] for c in cells] == [c["folder"] for c in others]
    flops = [
        json.loads((files / name / cells[0]["folder"] / "cell.json").read_text())[
            "flops"
        ]["training"]
        for name in ("kept", "plain")
    ]
    assert flops[0] < flops[1]


def test_a_pass_that_is_read_once_is_not_kept(files, capsys):
    once = COMPARE.replace("--steps 3 --batch-size 4 --warmup-steps 1", "--epochs 1")
    once = once.replace("--seeds 2", "--seeds 1 --warmup-steps 0 --batch-size 4")
    assert run(f"{once} once", None) == 0
    assert "run once" not in capsys.readouterr().out


def trained(folder):
    """The record of the first trial, and the manifest of its training."""
    home = folder / outcomes(folder)[1][0]["folder"]
    names = ("cell.json", "adapter/manifest.json")
    return [json.loads((home / name).read_text()) for name in names]


def test_a_trial_with_states_of_its_own(files, capsys):
    few = COMPARE.replace("--steps 3", "--steps 2")
    assert run(f"{few} shared", None) == 0
    assert capsys.readouterr().out.count("for 20 texts") == 1
    # One trial reads 8 + 4 + 6 texts of 20, but its training 12 of 8.
    few = few.replace("--seeds 2", "--seeds 1")
    assert run(f"{few} own", None) == 0
    told = capsys.readouterr().out
    assert "for 20 texts" not in told
    assert told.count("for 8 texts") == 1
    (shared, _), (own, tuned) = (trained(files / x) for x in ("shared", "own"))
    assert own["cell"] == shared["cell"]
    assert own["flops"] == shared["flops"]
    assert tuned["lower_once"]
    assert tuned["lower_seconds"] > 0
    parts = ("lower_seconds", "train_seconds", "valid_seconds")
    assert own["seconds"]["training"] == sum(tuned[name] for name in parts)

    # As many tokens as three steps of four have: 12 + 4 + 6 texts of 20.
    length = tuned["tokens"] // 8
    flags = few.replace("--steps 2", f"--tokens {12 * length}")
    assert run(f"{flags} tokens", None) == 0
    assert capsys.readouterr().out.count("for 20 texts") == 1
    (record,) = (files / "tokens" / "shared").glob("lower-states-*/states.json")
    _, tuned = trained(files / "tokens")
    took = json.loads(record.read_text())["seconds"]
    # 32 numbers in float32 for each token; prompts of the test lack the answer.
    tokens = record.with_name("states.bin").stat().st_size / (32 * 4)
    assert 8 * length < tokens < 20 * length
    assert tuned["lower_seconds"] == pytest.approx(took * 8 * length / tokens)
