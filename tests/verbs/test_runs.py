"""What the verbs leave, and that runs go on, are told apart and do not mix."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from commands import (
    ARRAYS,
    BUDGET,
    TEXTS,
    N,
    assert_refused,
    contents,
    edit,
    edit_tensors,
    run,
    table,
)

import goracs_jax as gx
from goracs_jax.data.examples import read_examples
from goracs_jax.files import digest, locked
from goracs_jax.jobs.score import Scores, embed_stage
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.runs.opened import open_llm, read_pool
from goracs_jax.settings.outputs import SELECTED


@pytest.fixture(scope="module")
def shared(tiny_files, tmp_path_factory):
    """A model, two pools, and what `select` makes of them: most tests start there."""
    folder = tmp_path_factory.mktemp("runs") / "shared"
    shutil.copytree(tiny_files, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(TEXTS) == 0
    return folder


def test_texts_to_coreset(files, capsys):
    assert run(TEXTS) == 0
    out = files / "out"
    indices = np.load(out / "indices.npy")
    assert indices.dtype == np.int64
    assert (np.diff(indices) > 0).all()
    pool, coreset = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (files / "train.jsonl", out / "coreset.jsonl")
    )
    assert coreset == [pool[i] for i in indices]  # the key "id" included
    with np.load(out / "scores.npz") as scores:
        assert np.flatnonzero(scores["selected"]).tolist() == indices.tolist()
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((out / "manifest.json").read_text())
    x, y, g = (
        np.load(next((out / "stages").glob(f"{stage}-*")) / f"{array}.npy")
        for stage, array in [
            ("training embeddings", "embeddings"),
            ("validation embeddings", "embeddings"),
            ("gradient-norms", "norms"),
        ]
    )
    with np.load(out / "scores.npz") as scores:
        d = np.linalg.norm(x[:, None].astype(float) - y[None], axis=2)
        # float32, with cancellation where points are close.
        np.testing.assert_allclose(scores["nearest_distance"], d.min(1), rtol=1e-3)
        np.testing.assert_array_equal(scores["grad_norm"], g)
    # max(D) is found in float32.
    assert manifest["poo"] == pytest.approx(gx.poo(x, y, g, indices), abs=1e-6)
    assert manifest["lower_bound"] <= manifest["poo"]
    assert manifest["config"]["lambda_"] == 0.1
    assert set(manifest["seconds"]) == {
        "training embeddings", "validation embeddings", "gradient-norms",
        "selection goracs", "selection random",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "goracs" in printed
    assert "random" in printed


def test_second_run_computes_nothing(files, monkeypatch):
    first = contents(files / "out")
    monkeypatch.setattr("goracs_jax.runs.opened.load_decoder", None)
    monkeypatch.setattr("goracs_jax.jobs.select.chooser", None)
    assert run(TEXTS) == 0
    assert contents(files / "out") == first


def test_changed_inputs_are_noticed(files):
    first = contents(files / "out")
    train = files / "train.jsonl"
    original = train.read_text()
    train.write_text("".join(original.splitlines(keepends=True)[::-1]))
    assert run(TEXTS) == 0
    fresh = contents(files / "out")
    shutil.rmtree(files / "out")
    assert run(TEXTS) == 0
    assert contents(files / "out") == fresh != first
    train.write_text(original)
    assert run(TEXTS) == 0
    assert contents(files / "out") == first


def other_weights(files):
    edit_tensors(
        files / "llm",
        lambda t: t.update({"model.norm.weight": 2 * t["model.norm.weight"]}),
    )


CHANGES = {
    "weights": (other_weights, ""),
    "valid": (lambda f: edit(f / "valid.jsonl", lambda t: t.replace("oak", "yew")), ""),
    "labels": (lambda f: None, "--labels answer"),
    "lambda": (lambda f: None, "--lambda 0.9"),
    "seed": (lambda f: None, "--seed 7"),
    "solver": (lambda f: None, "--solver sinkhorn"),
    "method": (lambda f: None, "--method greedy"),
    "duplicates": (lambda f: None, "--duplicates keep"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_used_folder_gives_what_a_fresh_one_gives(files, name):
    change, flags = CHANGES[name]
    change(files)
    assert run(f"{TEXTS} {flags}") == 0
    used = contents(files / "out"), table(files / "out")
    assert run(f"{TEXTS.replace('--out out', '--out fresh')} {flags}") == 0
    assert (contents(files / "fresh"), table(files / "fresh")) == used


def test_files_of_two_runs_are_not_mixed(files, monkeypatch):
    for name, file in [("x", "train"), ("y", "valid")]:
        assert run(f"embed --data {file}.jsonl --model llm --out {name}.npy", None) == 0
    assert run(ARRAYS, budget=3) == 0
    assert not (files / "out" / "coreset.jsonl").exists()
    before = {path: path.read_bytes() for path in (files / "out").glob("*.*")}
    monkeypatch.setattr("goracs_jax.jobs.selected.figure", None)
    with pytest.raises(TypeError):
        run(f"{ARRAYS} --train train.jsonl", budget=4)
    # Nothing of the second is there, and all of the first.
    now = {path: path.read_bytes() for path in (files / "out").glob("*.*")}
    assert now == before
    assert len(np.load("out/indices.npy")) == 3
    monkeypatch.undo()
    monkeypatch.chdir(files)
    assert run(f"{ARRAYS} --train train.jsonl", budget=4) == 0
    assert {p.name for p in (files / "out").glob("*.*")} == {*SELECTED} - {
        *("coreset.parquet", "coreset.array_record")
    }


def test_only_one_run_a_folder(arrays, capsys):
    assert run(ARRAYS) == 0
    with locked(arrays / "out" / "stages"):
        assert_refused(ARRAYS, BUDGET, capsys, r"out/stages is in use by another run")
    assert run(ARRAYS) == 0


def test_equal_norms(arrays):
    np.save("g.npy", np.where(np.arange(N) > 5, 1, np.nextafter(np.float32(1), 2)))
    assert run(ARRAYS + " --grad-norms g.npy") == 0


@pytest.mark.slow
def test_killed_anywhere_ends_with_the_same_bytes(files):
    """SIGKILL in the gradient pass, in the embeddings and in the search."""
    command = [sys.executable, "-m", "goracs_jax", *TEXTS.split(), "--budget", "5"]
    stages = files / "out" / "stages"
    expected = contents(files / "out")
    shutil.rmtree(files / "out")
    rng = np.random.default_rng(0)
    for begun in ("gradient-norms", "training embeddings", "selection goracs"):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not list(stages.glob(f"{begun}-*")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (files / "out" / "manifest.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert contents(files / "out") == expected


def test_labels_change_norms_and_embeddings(files):
    assert run(TEXTS + " --labels answer") == 0
    for stage in ("training embeddings", "gradient-norms"):
        one, two = (files / "out" / "stages").glob(f"{stage}-*")
        array = next(one.glob("*.npy")).name
        assert not np.allclose(np.load(one / array), np.load(two / array), rtol=1e-3)


def test_lambda_0_needs_no_norms(files):
    assert run(TEXTS + " --lambda 0 --out other") == 0
    stages = [path.name for path in (files / "other" / "stages").iterdir()]
    assert not any(name.startswith("gradient") for name in stages)


def test_embed_and_grads_feed_select(files):
    for name in ("train", "valid"):
        data = f"--data {name}.jsonl --model llm"
        assert run(f"embed {data} --out {name}.npy", None) == 0
    assert run("grads --data train.jsonl --model llm --out g.npy", None) == 0
    x, g = np.load("train.npy"), np.load("g.npy")
    assert (x.dtype, x.shape, g.dtype, g.shape) == ("f4", (N, 32), "f4", (N,))
    by_arrays = "--valid-embeddings valid.npy --grad-norms g.npy --train train.jsonl"
    assert run(f"select --train-embeddings train.npy {by_arrays} --out out2") == 0
    assert contents(files / "out") == contents(files / "out2")
    assert sorted(path.name for path in files.glob("g.npy*")) == ["g.npy", "g.npy.json"]


def test_grads_writes_what_the_pass_gives(files, capsys):
    command = "grads --data train.jsonl --model llm --out g.npy"
    assert run(command, None) == 0
    norms = np.load("g.npy")
    flags = " --losses l.npy --errors e.npy --projections p.npy --projection-dim 40"
    assert run(command + flags + " --projection-dtype float16", None) == 0
    arrays = [np.load(f"{name}.npy") for name in "lep"]
    assert [a.shape for a in arrays] == [(N,), (N,), (N, 40)]
    assert [a.dtype.name for a in arrays] == ["float32", "float32", "float16"]
    # Another program for the same numbers.
    np.testing.assert_allclose(np.load("g.npy"), norms, rtol=1e-4)
    # The projected length is that of the gradient, on average: 24 of deviation
    # sqrt(2 / 40) each, halved by the root.
    ratio = np.linalg.norm(arrays[2].astype(np.float32), axis=1) / norms
    assert abs(ratio.mean() - 1) < 5 * (2 / 40) ** 0.5 / 2
    assert run(command + flags + " --projection-dtype float16", None) == 0
    assert "g.npy, l.npy, e.npy, p.npy already done" in capsys.readouterr().out
    # And select ranks by these errors, without a second pass.
    assert run(TEXTS + " --method error --lambda 0 --out other") == 0
    assert len(list((files / "other" / "stages").glob("gradient-norms-*"))) == 1
    best = np.argsort(arrays[1])[-BUDGET:]
    assert set(np.load("other/indices.npy")) == set(best)


def test_bfloat16_weights_give_float32_norms(files):
    command = "grads --data train.jsonl --model llm --out g.npy"
    assert run(command, None) == 0
    exact = np.load("g.npy")
    assert run(command + " --dtype bfloat16", None) == 0
    half = np.load("g.npy")
    assert half.dtype == np.float32
    assert (half != exact).any()
    # 8 bits, through two layers.
    np.testing.assert_allclose(half, exact, rtol=0.1)


def test_grads_again_is_done_and_all_lora_is_not(files, capsys):
    command = "grads --data train.jsonl --model llm --out g.npy"
    assert run(command, None) == 0
    last = np.load("g.npy")
    assert run(command, None) == 0
    assert "already done" in capsys.readouterr().out
    assert run(command + " --which all_lora", None) == 0
    assert (np.load("g.npy") > last).all()  # more parameters


def test_arrays_of_version_0_5_0_are_known_and_a_changed_one_is_not(files, capsys):
    command = "embed --data train.jsonl --model llm --out x.npy"
    assert run(command, None) == 0
    stage = embed_stage(
        "embeddings",
        read_pool(Path("train.jsonl")),
        open_llm(Path("llm"), None, 0),
        "all",
    )
    record = files / "x.npy.json"
    found = json.loads(record.read_text())
    assert found["inputs"] == digest({"revision": 1, **stage.inputs})
    former = found | {"inputs": digest({"goracs_jax": "0.5.0", **stage.inputs})}
    record.write_text(json.dumps(former))
    capsys.readouterr()
    assert run(command + " --dry-run", None) == 0
    assert "already done" in capsys.readouterr().out
    outputs = {"embeddings": files / "x.npy"}
    assert Scores.load(outputs, stage).seconds == found["seconds"]
    assert Scores.load(outputs, stage._replace(revision=2)) is None
    np.save("x.npy", np.load("x.npy") + 1)
    assert run(command + " --dry-run", None) == 0
    assert "to do" in capsys.readouterr().out


def test_a_coreset_is_not_chosen_from_over_itself(files, capsys):
    np.save("x.npy", np.eye(N))
    command = ARRAYS.replace("y.npy", "x.npy") + " --method random"
    assert run(command + " --train train.jsonl") == 0
    before = (files / "out" / "coreset.jsonl").read_bytes()
    np.save("x.npy", np.eye(BUDGET))
    message = r"--out out would write over the input out/coreset\.jsonl"
    assert_refused(command + " --train out/coreset.jsonl", 2, capsys, message)
    assert (files / "out" / "coreset.jsonl").read_bytes() == before


def test_an_adapter_counts(files):
    adapter = tiny.write_adapter(files / "adapter")
    assert run(TEXTS + " --adapter adapter") == 0
    lora = gx.read_lora_config(adapter)
    model = gx.load_decoder("llm", lora=lora, key=jax.random.key(9))
    model = gx.load_adapter(model, adapter)
    texts = [format_prompt(e.record) for e in read_examples(Path("train.jsonl"))]
    tokens = gx.tokenize(texts, gx.load_tokenizer("llm"), context=256)
    for stage, expected in [
        ("gradient-norms-*/norms", gx.gradient_norms(model, tokens)),
        ("training embeddings-*/embeddings", gx.embed_with_decoder(model, tokens)),
    ]:
        paths = (files / "out" / "stages").glob(f"{stage}.npy")
        arrays = [np.load(path) for path in paths]
        # With and without the adapter; batches and program are the same here.
        same = [np.array_equal(array, expected) for array in arrays]
        assert sorted(same) == [False, True]


def test_arrays_to_indices(arrays, capsys):
    assert run(ARRAYS + " --grad-norms g.npy --lambda 0.3") == 0
    names = {path.name for path in (arrays / "out").iterdir()}
    assert names == {
        "indices.npy", "scores.npz", "manifest.json", "report.png", "stages",
    }  # fmt: skip
    assert run(ARRAYS + " --method random --seed 3") == 0
    assert json.loads((arrays / "out/manifest.json").read_text())["config"]["seed"] == 3


def test_methods_that_rank_by_a_score(arrays):
    errors = np.random.default_rng(1).random(len(np.load("x.npy")))
    np.save("e.npy", errors)
    for flags, scores in [
        ("--method error --errors e.npy", errors),
        ("--method grad-norm --grad-norms g.npy --lambda 0", np.load("g.npy")),
    ]:
        assert run(f"{ARRAYS} {flags}") == 0
        assert set(np.load("out/indices.npy")) == set(np.argsort(scores)[-BUDGET:])


def test_gradient_norms_of_texts_at_lambda_0(files):
    assert run(TEXTS + " --method grad-norm --lambda 0 --out other") == 0
    norms = np.load("other/scores.npz")["grad_norm"]
    assert set(np.load("other/indices.npy")) == set(np.argsort(norms)[-BUDGET:])


def test_dry_run_writes_nothing(files, capsys):
    before = sorted(files.rglob("*"))
    assert run(TEXTS + " --out other --dry-run") == 0
    assert sorted(files.rglob("*")) == before
    printed = capsys.readouterr().out
    assert "gradient-norms: to do" in printed
    assert run(TEXTS + " --dry-run") == 0
    assert "gradient-norms: done" in capsys.readouterr().out
