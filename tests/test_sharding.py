"""Eight devices in every grid, and two processes, give what one device gives.

Devices are counted once a process, so they live in processes of their own.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from on_grids import EXAMPLES, GRIDS, SIZES, TIME

PASSES = (
    "embedding",
    "last_v_lora_b",
    "all_lora",
    "projection",
    "yes",
    "subspace",
    "two losses",
    "likelihood",
    "generation",
    "training",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Arrays and programs by grid and name."""
    out = tmp_path_factory.mktemp("grids") / "found.npz"
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, tests / "on_grids.py", out],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
            "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.mark.parametrize("way", [*GRIDS, "layers"])
def test_every_way_to_run_gives_the_same(found, way):
    """On every grid, and with another choice of what the backward pass keeps."""
    names = [n.removeprefix(way) for n in found if n.startswith(way)]
    names = [name for name in names if not name.endswith("text")]
    assert len(names) == 20
    for name in names:
        expected = found["one" + name]
        if name == " generation 0":
            np.testing.assert_array_equal(found[way + name], expected)
            continue
        # float32 sums in another order; projections and embeddings cancel.
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found[way + name], expected, rtol=1e-4, atol=1e-5 * scale
        )


def shapes_of(text):
    """The shapes of all arrays of a program, numbers and truth values alike."""
    found = re.findall(r"(?:f32|s32|pred)\[([\d,]+)\]", text)
    return {tuple(map(int, shape.split(","))) for shape in found}


@pytest.mark.parametrize("grid", GRIDS)
def test_no_device_holds_a_whole_weight(found, grid):
    """No array of a device's program is as large as the layers' weights or a table."""
    shapes = shapes_of(str(found[f"{grid} all_lora text"]))
    layers, dim, mlp = (
        SIZES[name] for name in ("num_layers", "hidden_size", "intermediate_size")
    )
    heads = SIZES["num_heads"] * SIZES["head_dim"]
    matrices = [(dim, heads), (heads, dim), (dim, mlp), (mlp, dim)]
    stacks = {(layers, *matrix) for matrix in matrices}
    assert not shapes & (stacks | {(SIZES["vocab_size"], dim)})
    devices = GRIDS[grid]
    # The check can see weights: a device's part of the stacked MLP is there.
    assert (layers, dim // (8 // devices), mlp // devices) in shapes
    if devices > 1:  # over `data` alone, one layer at a time is gathered
        assert not shapes & set(matrices)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("grid", ["8 x 1", "2 x 4"])
def test_examples_are_split_in_every_activation(found, grid, name):
    """No device has all examples of an activation.

    Where tokens are looked up in the table, whose features are split, a device has the
    same features of all examples: as many numbers as an activation of its own examples.
    """
    data = 8 // GRIDS[grid]
    per_example = TIME * SIZES["hidden_size"]
    shapes = shapes_of(str(found[f"{grid} {name} text"]))
    of_all = [shape for shape in shapes if EXAMPLES in shape and len(shape) > 1]
    most = EXAMPLES * per_example // data
    assert all(np.prod(shape) <= most for shape in of_all), sorted(of_all)
    local = EXAMPLES // data
    assert any(local in shape for shape in shapes), "the check must see activations"


def test_weights_are_read_part_by_part(found):
    """Of a weight that is cut up, the host never holds more than a part or two."""
    assert len(found["same"]) > 10
    assert found["same"].all()
    leaf, part = int(found["largest leaf"]), int(found["largest part"])
    assert leaf == 8 * part
    # A part is there as it is stored, by layers, and stacked in the device's type.
    assert found["beside"] < 3 * part + 2**19 < leaf


def test_a_gradient_pass_is_compiled_before_there_is_a_model(found):
    """For a grid of 2 x 2 of the eight devices, and then run on it."""
    assert "num_partitions=4" in str(found["ahead text"])
    expected = found["now"]
    # float32 sums in another order.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found["ahead"], expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.fixture
def run_by(tmp_path):
    """A verb in so many processes, all of which must end well."""

    def run(processes, *words):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        together = ["--coordinator", f"localhost:{port}", "--processes", processes]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "goracs_jax", *words]
                + ([*together, "--process", str(i)] if processes != "1" else []),
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(int(processes))
        ]
        for process in started:
            _, errors = process.communicate()
            assert process.returncode == 0, errors

    tiny.write_llm(tmp_path / "llm")
    tiny.write_pool(tmp_path / "train.jsonl", 12, seed=0)
    return run


def test_two_processes_write_the_norms_of_one(tmp_path, run_by):
    norms = ["grads", "--data", "train.jsonl", "--model", "llm", "--out", "g.npy"]
    norms += ["--projections", "p.npy", "--projection-dim", "7"]
    found = {}
    for processes in "21":
        run_by(processes, *norms)
        found[processes] = [np.load(tmp_path / name) for name in ("g.npy", "p.npy")]
        for name in ("g.npy", "p.npy"):
            (tmp_path / name).unlink()
    # Batches of as many rows on each process: other shapes, the same sums.
    for ours, expected in zip(found["2"], found["1"], strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * scale)
    assert not list(tmp_path.glob("*.work"))


def test_two_processes_train_and_judge_as_one(tmp_path, run_by):
    tiny.write_pool(tmp_path / "some.jsonl", 8, seed=1)
    likes = [json.loads(t) for t in (tmp_path / "some.jsonl").read_text().splitlines()]
    records = [t | {"output": ["Yes", "No"][i % 2]} for i, t in enumerate(likes)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, records)))
    train = ["finetune", "--data", "train.jsonl", "--valid", "train.jsonl"]
    train += ["--model", "llm", "--epochs", "2", "--warmup-steps", "0"]
    train += ["--learning-rate", "1e-2", "--batch-size", "8"]
    judge = ["evaluate", "--task", "ctr", "--test", "test.jsonl", "--model", "llm"]
    losses, scores = {}, {}
    for processes in "21":
        run_by(processes, *train, "--out", processes)
        log = (tmp_path / processes / "metrics.jsonl").read_text().splitlines()
        losses[processes] = [json.loads(line).get("valid_loss", 0) for line in log]
    for processes in "21":  # one adapter, so that the judges alone differ
        run_by(processes, *judge, "--adapter", "1", "--out", f"{processes}.json")
        text = (tmp_path / f"{processes}.predictions.jsonl").read_text()
        scores[processes] = [json.loads(line)["score"] for line in text.splitlines()]
    # AdamW divides each gradient by its size, which lifts rounding where it is small.
    np.testing.assert_allclose(losses["2"], losses["1"], rtol=1e-3)
    # float32 sums in another order.
    np.testing.assert_allclose(scores["2"], scores["1"], rtol=1e-4)
    assert len(set(scores["1"])) > 4, "scores must tell the examples apart"
    assert not list(tmp_path.glob("*.work"))
