"""Each verb with all of its paths in a bucket: what it leaves there, and resumes."""

import importlib
import json
import sys
from functools import partial

import loopback
import numpy as np
import orbax.checkpoint as ocp
import polars as pl
import pytest
import s3fs
import tiny
from commands import assert_refused, run
from comparing import COMPARE, write_files

from goracs_jax.buckets import Staged
from goracs_jax.cli import VERBS, main
from goracs_jax.settings.flags import flags_of
from goracs_jax.training import finetune

FINETUNE = (
    "finetune --data s3://pool/in/train.jsonl --valid s3://pool/in/valid.jsonl "
    "--model s3://pool/in/llm --epochs 2 --batch-size 4 --warmup-steps 1 "
    "--learning-rate 0.03 --out s3://pool/runs/tuned"
)
EVALUATE = (
    "evaluate --task seqrec --test s3://pool/in/test.jsonl --model s3://pool/in/llm "
    "--adapter s3://pool/in/a --rank-by likelihood --out s3://pool/runs/m.json"
)
SELECT = (
    "select --train s3://pool/in/train.parquet --valid s3://pool/in/valid.jsonl "
    "--model s3://pool/in/llm --budget 3 --out s3://pool/runs/chosen"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model, texts and arrays; nobody may write to them."""
    folder = tmp_path_factory.mktemp("in")
    write_files(folder)
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(24, 4)).astype(np.float32))
    np.save(folder / "y.npy", rng.normal(size=(10, 4)).astype(np.float32))
    np.save(folder / "g.npy", rng.gamma(3.0, size=24).astype(np.float32))
    lines = (folder / "train.jsonl").read_text().splitlines()
    count = len(lines)
    frame = pl.DataFrame([json.loads(line) for line in lines]).with_columns(
        pl.Series("vector", [[float(i)] for i in range(count)]),
        pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 1, count)).alias("day"),
    )
    frame.write_parquet(folder / "train.parquet")
    return folder


@pytest.fixture
def inputs(bucket, made):
    bucket.put(f"{made}/", "pool/in", recursive=True)
    return bucket


def there(bucket, folder):
    found = bucket.find(f"pool/runs/{folder}")
    return sorted(key.removeprefix(f"pool/runs/{folder}/") for key in found)


def of_json(bucket, name):
    return json.loads(bucket.cat(f"pool/runs/{name}"))


def on_another_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "another"))


def test_select_on_arrays_is_that_of_files(inputs, made, tmp_path, capsys):
    where = "--train-embeddings {0}/x.npy --valid-embeddings {0}/y.npy --grad-norms "
    command = f"select {where}{{0}}/g.npy --seed 3 --out {{1}}"
    assert run(command.format("s3://pool/in", "s3://pool/runs/out"), 3) == 0
    assert (
        "s3://pool/runs/out: indices.npy, scores.npz, manif" in capsys.readouterr().out
    )
    assert run(command.format(made, tmp_path / "out"), 3) == 0
    assert (
        inputs.cat("pool/runs/out/indices.npy")
        == (tmp_path / "out" / "indices.npy").read_bytes()
    )
    config = of_json(inputs, "out/manifest.json")["config"]
    assert config["out"] == "s3://pool/runs/out"
    assert config["train_embeddings"] == "s3://pool/in/x.npy"


def test_parquet_in_gives_parquet_out(inputs, made, tmp_path, monkeypatch, capsys):
    command = [*SELECT.split(), "--dry-run"]
    assert main(command) == 0
    assert not there(inputs, "chosen")
    assert "to do" in capsys.readouterr().out
    assert main(SELECT.split()) == 0
    rows = np.load(inputs.open("pool/runs/chosen/indices.npy"))
    chosen = pl.read_parquet(inputs.open("pool/runs/chosen/coreset.parquet"))
    assert chosen.equals(pl.read_parquet(made / "train.parquet")[rows])
    lines = inputs.cat("pool/runs/chosen/coreset.jsonl").splitlines()
    outputs = [json.loads(line)["output"] for line in lines]
    assert outputs == chosen["output"].to_list()
    on_another_machine(monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("goracs_jax.runs.opened.load_decoder", None)
        assert main(SELECT.split()) == 0
    again = np.load(inputs.open("pool/runs/chosen/indices.npy"))
    np.testing.assert_array_equal(again, rows)


def test_grads_writes_one_array_and_its_record(inputs, capsys):
    command = (
        "grads --data s3://pool/in/train.jsonl --model s3://pool/in/llm "
        "--losses s3://pool/runs/l.npy --out s3://pool/runs/g.npy"
    )
    assert main(command.split()) == 0
    names = [key.rpartition("/")[2] for key in inputs.find("pool/runs")]
    assert names == ["g.npy", "g.npy.json", "l.npy", "l.npy.json"]
    assert np.load(inputs.open("pool/runs/g.npy")).shape == (10,)
    capsys.readouterr()
    assert main(command.split()) == 0
    assert "already done" in capsys.readouterr().out


def test_finetune_goes_on_elsewhere(inputs, monkeypatch, tmp_path):
    """Stopped after its first checkpoint, it ends with the same adapter."""
    assert main(FINETUNE.replace("runs/tuned", "runs/whole").split()) == 0
    save, saved = ocp.CheckpointManager.save, []

    def stop(manager, step, **named):
        if saved:
            raise KeyboardInterrupt
        saved.append(step)
        return save(manager, step, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", stop)
        always = partial(finetune, checkpoint_seconds=0.0)
        patch.setattr("goracs_jax.jobs.finetune.train_adapter", always)
        assert main(FINETUNE.split()) == 130
    left = there(inputs, "tuned")
    assert any(f"/checkpoints/{saved[0]}/" in key for key in left)
    assert "adapter_model.safetensors" not in left
    on_another_machine(monkeypatch, tmp_path)
    assert main(FINETUNE.split()) == 0
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        both = [inputs.cat(f"pool/runs/{run}/{name}") for run in ("whole", "tuned")]
        assert both[0] == both[1]
    assert not any("/checkpoints/" in key for key in there(inputs, "tuned"))


def test_evaluate_and_merge(inputs, tmp_path, capsys):
    inputs.put(f"{tiny.write_adapter(tmp_path / 'a')}/", "pool/in/a", recursive=True)
    assert main(EVALUATE.split()) == 0
    metrics = of_json(inputs, "m.json")
    assert metrics["config"]["adapter"] == "s3://pool/in/a"
    kept = inputs.cat("pool/runs/m.predictions.jsonl").splitlines()
    assert len(kept) == metrics["sizes"]["examples"]
    capsys.readouterr()
    assert main(EVALUATE.split()) == 0
    assert "s3://pool/runs/m.json is already done" in capsys.readouterr().out
    merge = "merge --model s3://pool/in/llm --adapter s3://pool/in/a --out "
    assert main([*merge.split(), "s3://pool/runs/merged"]) == 0
    merged = {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"}
    assert merged <= {*there(inputs, "merged")}


def test_compare_keeps_its_cells(inputs, monkeypatch, tmp_path, capsys):
    command = COMPARE.replace("--methods full,random,goracs", "--methods random,goracs")
    command = command.replace("--lambdas 0,0.3 --seeds 2", "--lambdas 0 --seeds 1")
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl", "llm"):
        command = command.replace(f" {name} ", f" s3://pool/in/{name} ")
    command = command.replace("--out out", "--out s3://pool/runs/table").split()
    assert main(command) == 0
    found = there(inputs, "table")
    assert {"table.md", "table.csv", "comparison.json", "comparison.png"} <= {*found}
    assert sum(key.endswith("/cell.json") for key in found) == 2
    rows = of_json(inputs, "table/comparison.json")["rows"]
    inputs.rm([f"pool/runs/table/{key}" for key in found if "/" not in key])
    on_another_machine(monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("goracs_jax.comparison.trial.run", None)
        patch.setattr("goracs_jax.runs.opened.load_decoder", None)
        assert main(command) == 0
    assert of_json(inputs, "table/comparison.json")["rows"] == rows


@pytest.mark.parametrize("verb", VERBS)
def test_every_output_of_every_verb_may_be_in_a_bucket(verb, inputs, monkeypatch):
    """Each verb gets the flags with local places for all outputs that they name."""
    module, _, name = VERBS[verb].place.partition(":")
    seen = []
    monkeypatch.setattr(importlib.import_module(module), name, seen.append)
    outputs = [f for f in flags_of(VERBS[verb].settings) if f.flag.writes]
    flags = {f.name: f"s3://pool/runs/{f.name}.npy" for f in outputs}
    needed = {f.name: "1" for f in flags_of(VERBS[verb].settings) if f.required}
    choices = {"task": "seqrec", "format": "csv", "topology": "here"}
    needed |= {k: v for k, v in choices.items() if k in needed}
    command = [verb, *(x for k, v in (needed | flags).items() for x in (f"--{k}", v))]
    if "methods" in needed:
        command[command.index("--methods") + 1] = "random"
    assert main(command) == 0
    for flag in outputs:
        assert type(getattr(seen[0], flag.field.name)) is Staged
    assert inputs.find("pool/runs") == []


ARRAYS = (
    "select --train-embeddings s3://pool/in/x.npy --valid-embeddings "
    "s3://pool/in/y.npy --out s3://pool/runs/out"
)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("in/x.npy", "in/none.npy"), r"s3://pool/in/none\.npy does not exist: check"),
        (("pool/in/x", "nowhere/x"), r"s3://nowhere/x\.npy does not exist: check"),
        (("pool/runs", "nowhere/a"), r"s3://nowhere/a\S* cannot be written .*bucket"),
        (("runs/out", "in/x.npy"), r"--out s3://pool/in/x\.npy lies in the input"),
        (("s3://pool/in/x", "ftp://pool/x"), r"URLs of s3://, gs:// and hf:// are"),
    ],
)
def test_what_cannot_be_is_refused(inputs, capsys, change, line):
    assert_refused(ARRAYS.replace(*change), 3, capsys, line)


def test_several_processes_need_a_folder_that_all_see(inputs, capsys):
    command = "grads --coordinator a:1 --processes 2 --process 0 --data d --model m"
    line = r"--out s3://pool/runs/g\.npy: several processes write into one folder"
    assert_refused(f"{command} --out s3://pool/runs/g.npy", None, capsys, line)


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_a_package_that_is_missing(scheme, extra, capsys, monkeypatch):
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("s3", "gs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, False)
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    command = ARRAYS.replace("s3://pool/in/x", f"{scheme}://pool/in/x")
    line = rf"{scheme}://pool/in/x\.npy: {scheme}:// needs an extra package"
    assert_refused(command, 3, capsys, rf"{line} .*goracs_jax\[{extra}\]")


def test_no_network(bucket, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    line = r"s3://pool/in/x\.npy: s3 is not reached \(Endpoint.*: check the network"
    assert_refused(ARRAYS, 3, capsys, line)


def test_no_credentials(bucket, capsys, monkeypatch, tmp_path):
    for name in loopback.CLIENT:
        if "KEY" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    line = r"s3://pool/in/x\.npy: no access \(NoCredentials.*: set AWS_ACCESS_KEY_ID"
    assert_refused(ARRAYS, 3, capsys, line)
