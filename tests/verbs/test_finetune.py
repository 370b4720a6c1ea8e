"""`goracs finetune` and `goracs merge`: files, resume, refusals."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from commands import assert_refused, run, slow_steps
from full_disk import assert_nothing_is_lost
from safetensors.numpy import load_file

from goracs_jax.models import load_adapter, load_decoder, read_lora_config

FINETUNE = (
    "finetune --data train.jsonl --valid valid.jsonl --model llm --out tuned "
    "--epochs 3 --batch-size 8 --warmup-steps 2 --learning-rate 0.01"
)
MERGE = "merge --model llm --adapter tuned --out merged"


@pytest.fixture
def files(files):
    """Inputs of one length: every padded length is compiled for a training."""
    for name in ("train.jsonl", "valid.jsonl"):
        lines = (files / name).read_text().splitlines()
        alike = [json.dumps(json.loads(line) | {"input": "oak yew"}) for line in lines]
        (files / name).write_text("\n".join(alike) + "\n")
    return files


def records(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def load(folder):
    lora = read_lora_config(folder)
    return load_adapter(load_decoder("llm", lora=lora, key=jax.random.key(0)), folder)


def test_finetune_then_merge(files, capsys):
    assert run(FINETUNE + " --tensorboard", None) == 0
    out = files / "tuned"
    lora = read_lora_config(out)
    assert (lora.r, lora.alpha, lora.dropout) == (8, 16, 0.05)
    model = load(out)
    manifest = json.loads((out / "manifest.json").read_text())
    steps = [r for r in records(out / "metrics.jsonl") if "loss" in r]
    assert manifest["steps"] == len(steps) == 9  # 24 examples, three times
    assert manifest["best_valid_loss"] == min(manifest["valid_losses"])
    assert manifest["valid_losses"][-1] < manifest["valid_losses"][0]
    assert manifest["inputs"]["labels"] == "all"
    assert list((out / "tensorboard").glob("events.*"))
    printed = capsys.readouterr().out
    # 8 (32 + 32) for q_proj and 8 (32 + 16) for v_proj, in two layers.
    assert "1,792 of " in printed

    assert run(MERGE, None) == 0
    merged = load_decoder("merged", key=jax.random.key(1))
    ids = jnp.arange(20)
    # float32, logits of size one.
    np.testing.assert_allclose(merged(ids), model(ids), rtol=1e-4, atol=1e-4)
    stored = load_file(files / "merged" / "model.safetensors")
    assert len(stored) == 3 + 2 * 9
    # Room for the tokenizer and not for the weights.
    assert_nothing_is_lost(MERGE, 50_000, files, capsys)


def test_second_run_computes_nothing_and_changed_settings_are_noticed(
    files, monkeypatch
):
    assert run(FINETUNE, None) == 0
    path = files / "tuned" / "adapter_model.safetensors"
    first = path.read_bytes()
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("goracs_jax.runs.opened.load_decoder", None)
        assert run(FINETUNE, None) == 0
    assert path.read_bytes() == first
    # From an adapter: its rank holds, and its weights are where training starts.
    more = FINETUNE.replace("--out tuned", "--out more --r 2 --adapter tuned")
    assert run(more, None) == 0
    assert read_lora_config(files / "more").r == 8
    losses = [
        json.loads((files / name / "manifest.json").read_text())["valid_losses"]
        for name in ("tuned", "more")
    ]
    assert losses[1][0] < losses[0][0]
    assert run(FINETUNE + " --labels answer", None) == 0
    assert path.read_bytes() != first


def test_task_sets_what_is_not_given(files, capsys):
    command = FINETUNE.replace("--epochs 3", "").replace("--learning-rate 0.01", "")
    assert run(command + " --dry-run --task ctr", None) == 0
    assert "at most 200 epochs" in capsys.readouterr().out
    assert run(command + " --dry-run", None) == 0
    assert "at most 50 epochs" in capsys.readouterr().out
    assert not (files / "tuned").exists()


def test_steps_and_what_is_kept(files, capsys):
    """Three steps are an epoch of 24 examples."""
    steps = FINETUNE.replace("--epochs 3", "--steps 10")
    assert run(steps + " --dry-run", None) == 0
    assert "3 steps of 8 per epoch, 10 steps; kept: last" in capsys.readouterr().out
    for keep, told in (
        ("last", "last of 10"),
        ("average", "over the last tenth of 10"),
    ):
        out = files / keep
        assert run(f"{steps} --keep {keep} --out {keep}", None) == 0
        assert told in capsys.readouterr().out
        manifest = json.loads((out / "manifest.json").read_text())
        assert (manifest["steps"], manifest["keep"]) == (10, keep)
        assert manifest["inputs"]["config"]["keep"] == keep
        (loss,) = manifest["valid_losses"]
        assert manifest["kept_valid_loss"] == manifest["best_valid_loss"] == loss
        assert manifest["kept_epoch"] == manifest["valid_epochs"][0] == 4
        assert sum("loss" in r for r in records(out / "metrics.jsonl")) == 10
    # A tenth of ten steps is the last alone.
    one, two = (files / k / "adapter_model.safetensors" for k in ("last", "average"))
    assert one.read_bytes() == two.read_bytes()
    # The defaults are what they are when given.
    assert run(f"{steps} --keep last --out last --dry-run", None) == 0
    assert "finetune: done" in capsys.readouterr().out
    assert run(f"{steps} --out last --dry-run", None) == 0
    assert "finetune: done" in capsys.readouterr().out


def test_adapters_in_the_last_layers(files, capsys, monkeypatch):
    assert run(FINETUNE + " --layers last:1", None) == 0
    printed = capsys.readouterr().out
    assert "896 of " in printed, "half of what two layers have"
    lines = [(files / f"{name}.jsonl").read_text() for name in ("train", "valid")]
    texts = {json.loads(line)["output"] for line in "".join(lines).splitlines()}
    size = f"0 MiB for {len(texts)} texts"
    assert f"layers 0 to 0 run once: {size} in " in printed
    assert not list((files / "tuned").rglob("lower")), "what is read by nobody any more"
    config = json.loads((files / "tuned" / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [1]
    assert config["target_modules"] == ["q_proj", "v_proj"]
    stored = load_file(files / "tuned" / "adapter_model.safetensors")
    assert all(".layers.1." in name for name in stored)
    assert len(stored) == 4
    ids = jnp.arange(20)
    model = load(files / "tuned")
    assert model.frozen_layers == 1
    base = load_decoder("llm", key=jax.random.key(0))
    assert float(jnp.max(jnp.abs(model(ids) - base(ids)))) > 1e-3

    manifest = lambda folder: json.loads((files / folder / "manifest.json").read_text())
    assert manifest("tuned")["lower_once"]
    assert manifest("tuned")["lower_seconds"] > 0
    # A stage that was finished before there was such a pass lacks both.
    (stage,) = (files / "tuned").glob("**/stages/finetune-*/done.json")
    record = json.loads(stage.read_text())
    whole = dict(record)
    record["arrays"] = [n for n in record["arrays"] if not n.startswith("lower_")]
    assert len(whole["arrays"]) - len(record["arrays"]) == 2
    stage.write_text(json.dumps(record))
    assert run(FINETUNE + " --layers last:1", None) == 0
    assert not manifest("tuned")["lower_once"]
    assert manifest("tuned")["lower_seconds"] == 0
    stage.write_text(json.dumps(whole))

    # Without room on the disk the layers below run in every step.
    monkeypatch.setattr("goracs_jax.runs.lower.SPARE", 1 << 60)
    again = FINETUNE.replace("tuned", "again")
    assert run(again + " --layers last:1", None) == 0
    assert "these layers run in every step" in capsys.readouterr().out
    assert not manifest("again")["lower_once"]
    assert manifest("again")["lower_seconds"] == 0
    one, two = (records(files / d / "metrics.jsonl") for d in ("tuned", "again"))
    loss = lambda log: [r.get("loss", r.get("valid_loss")) for r in log]
    # float32, nine steps; XLA may fuse other operations.
    np.testing.assert_allclose(loss(one), loss(two), rtol=2e-5)

    # Training goes on from such an adapter where it left off, in its own layers.
    assert run(FINETUNE.replace("--out tuned", "--out more --adapter tuned"), None) == 0
    assert read_lora_config(files / "more") == read_lora_config(files / "tuned")
    more = records(files / "more" / "metrics.jsonl")
    assert loss(more)[-1] < loss(one)[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (" --steps 5", "epochs or steps must be given, and not both"),
        (" --epochs None --steps 2", "steps must be more than warmup_steps"),
        (" --keep last --patience 3", "--patience stops training with --keep best"),
        (" --keep first", "must be one of best, last, average"),
        (" --epochs 1 --batch-size 64", "nothing would train"),
        (" --patience 0", "patience must be at least 1, got 0"),
        (" --targets q_proj,c_attn", "got c_attn"),
        (" --layers last:3", "--layers must be last:K with K from 1 to 2"),
        (" --layers last:0", "--layers must be last:K"),
        (" --layers last", "--layers must be last:K .*, got 'last'"),
        (" --layers 0,1", "--layers must be last:K"),
        (" --layers last:1 --model none", "none: no such file or folder"),
        (" --layers last:1 --adapter none", "leave one of them out"),
        (" --dropout 1", "dropout must be in"),
        (" --valid none.jsonl", "none.jsonl does not exist"),
        (" --model none", "none does not exist"),
        (" --adapter none", "adapter_config.json: no such file"),
        (" --out llm/tuned", "lies in the input"),
    ],
)
def test_refusals(files, capsys, change, message):
    assert_refused(FINETUNE + change, None, capsys, message)
    assert not (files / "tuned").exists()


def test_an_untrained_adapter_is_a_start_and_no_result(files, capsys, caplog):
    tiny.write_adapter(files / "zero", scale=0.0)
    assert run(FINETUNE + " --epochs 1 --adapter zero", None) == 0
    assert "every lora_B is zero" in caplog.text
    assert_refused(
        "merge --model llm --adapter zero --out merged", None, capsys, "lora_B is zero"
    )


@pytest.mark.slow
def test_killed_anywhere_and_run_again(files):
    """SIGKILL while steps and checkpoints are written; a step more each time."""
    command = FINETUNE.replace("tuned", "killed").split()
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", slow_steps(0.1), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    rng = np.random.default_rng(0)
    kills = 0
    for wanted in (1, 4, 8):
        process = start()
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            found = list((files / "killed").glob("stages/finetune-*/metrics.jsonl"))
            if found and found[0].read_text().count('"loss"') >= wanted:
                time.sleep(rng.uniform(0, 0.15))  # in a step, or in a checkpoint
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert kills == 3
    process = start()
    assert process.wait(timeout=120) == 0, process.stderr.read()
    process.stderr.close()
    assert run(FINETUNE, None) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        killed = (files / "killed" / name).read_bytes()
        assert killed == (files / "tuned" / name).read_bytes()
    killed, whole = (records(files / d / "metrics.jsonl") for d in ("killed", "tuned"))
    assert killed == whole
