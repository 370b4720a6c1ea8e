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

# Odd sizes tell the shapes of a program apart: no two of them are equal.
SIZES = {
    "vocab_size": 264, "hidden_size": 40, "intermediate_size": 72, "num_layers": 3,
    "num_heads": 8, "num_kv_heads": 8, "head_dim": 16,
}  # fmt: skip
GRIDS = {"8 x 1": 1, "2 x 4": 4, "1 x 8": 8}
SCRIPT = """
import json, sys
from functools import partial
import jax, numpy as np
from flax import nnx
from goracs_jax.llm.embeddings import embed_with_decoder
from goracs_jax.llm.gradients import _scores, example_scores, projected_gradients
from goracs_jax.mesh import model_mesh, spread
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.models.sharding import abstract_decoder, mesh_of, spread_decoder
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.tokens import ragged
from jax.sharding import NamedSharding, PartitionSpec

sizes, grids, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
ids = [rng.integers(0, sizes["vocab_size"], n).tolist() for n in range(9, 17)] * 2
tokens = ragged(ids, ids)
plain = Decoder(DecoderConfig.tiny(**sizes), key=jax.random.key(0))
found = {}
for name, over in grids.items():
    mesh = model_mesh(jax.devices(), over or 1)
    model = plain if over is None else spread_decoder(plain, mesh)
    for which in ("last_v_lora_b", "all_lora"):
        scores = example_scores(model, tokens, which=which)
        found |= {f"{name} {which} {k}": v for k, v in scores._asdict().items()}
    key = jax.random.key(1)
    found[f"{name} projected"] = projected_gradients(model, tokens, dim=8, key=key)[1]
    found[f"{name} embedded"] = embed_with_decoder(model, tokens)
    if over:
        assert mesh_of(model) == mesh
        batch = make_batches(tokens, devices=8)[0]
        rows = [spread(x, mesh, PartitionSpec("data")) for x in batch[1:]]
        parts = nnx.split(model, nnx.LoRAParam, ...)
        program = _scores.lower("all_lora", 99, *parts, *rows).compile().as_text()
        found[f"{name} program"] = np.array(program)
grid = model_mesh(jax.devices()[4:], 2)
shapes = abstract_decoder(DecoderConfig.tiny(**sizes), grid)
sharding = NamedSharding(grid, PartitionSpec("data"))
rows = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in batch[1:]]
split = lambda model: nnx.split(model, nnx.LoRAParam, ...)
ahead = _scores.lower("all_lora", 99, *split(shapes), *rows).compile()
rows = [spread(x, grid, PartitionSpec("data")) for x in batch[1:]]
found["ahead"] = ahead(*split(spread_decoder(plain, grid)), *rows)
found["now"] = _scores("all_lora", 99, *split(plain), *batch[1:])
found["ahead text"] = np.array(ahead.as_text())
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Arrays by grid and name, programs among them."""
    out = tmp_path_factory.mktemp("grids") / "found.npz"
    root = Path(__file__).parents[1]
    grids = {"one": None, **GRIDS}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SIZES), json.dumps(grids), str(out)],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
            "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": str(root),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_gives_the_same(found, grid):
    names = [n.removeprefix(grid) for n in found if n.startswith(grid)]
    names = [name for name in names if "program" not in name]
    assert len(names) == 8
    for name in names:
        expected = found["one" + name]
        # float32 sums in another order; projections and embeddings cancel.
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found[grid + name], expected, rtol=1e-4, atol=1e-5 * scale
        )


@pytest.mark.parametrize("grid", GRIDS)
def test_no_device_holds_a_whole_weight(found, grid):
    """No array of a device's program is as large as the layers' weights or a table."""
    text = str(found[f"{grid} program"])
    shapes = {
        tuple(map(int, shape.split(",")))
        for shape in re.findall(r"f32\[([\d,]+)\]", text)
    }
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


def test_a_gradient_pass_is_compiled_before_there_is_a_model(found):
    """For a grid of 2 x 2 of the eight devices, and then run on it."""
    assert "num_partitions=4" in str(found["ahead text"])
    expected = found["now"]
    # float32 sums in another order.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found["ahead"], expected, rtol=1e-4, atol=1e-5 * scale)


def test_two_processes_write_the_norms_of_one(tmp_path):
    tiny.write_llm(tmp_path / "llm")
    tiny.write_pool(tmp_path / "train.jsonl", 12, seed=0)
    command = [sys.executable, "-m", "goracs_jax", "grads", "--data", "train.jsonl"]
    command += ["--model", "llm", "--projections", "p.npy", "--projection-dim", "7"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    start = lambda *flags: subprocess.Popen(
        [*command, *flags],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    several = ["--out", "two.npy", "--coordinator", f"localhost:{port}"]
    several += ["--processes", "2", "--process"]
    two = [start(*several, process) for process in "01"]
    for process in two:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    projections = np.load(tmp_path / "p.npy")
    one = start("--out", "one.npy")
    _, errors = one.communicate()
    assert one.returncode == 0, errors
    # Batches of as many rows on each process: other shapes, the same sums.
    for ours, expected in (
        (np.load(tmp_path / "two.npy"), np.load(tmp_path / "one.npy")),
        (projections, np.load(tmp_path / "p.npy")),
    ):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * scale)
    assert not list(tmp_path.glob("*.work"))
