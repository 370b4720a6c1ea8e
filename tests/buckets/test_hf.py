"""hf:// against a hub on loopback, by the file system of huggingface_hub."""

import json

import numpy as np
import pytest
from commands import assert_refused
from hub_server import GATED, MAIN, PRIVATE, reached, serving
from safetensors.numpy import save_file

import goracs_jax as gx
from goracs_jax.buckets import as_path
from goracs_jax.cli import main
from goracs_jax.inputs.array_files import read_array

POOL = "hf://datasets/org/pool"
RECORDS = [{"instruction": f"Say {i}.", "output": f"word {i}"} for i in range(24)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the dataset org/pool, and one that is gated."""
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pool"
    folder.mkdir()
    repos = {"datasets/org/pool": {MAIN: folder}, f"datasets/{GATED}": {MAIN: folder}}
    with serving(repos) as server, reached(server.url):
        yield server


@pytest.fixture
def pool(hub):
    return hub.repos["datasets/org/pool"][MAIN]


def write(file, found):
    file.write_text("".join(json.dumps(record) + "\n" for record in found))


def test_one_tensor_of_many_is_fetched_alone(hub, pool):
    big = np.zeros(3 << 20, np.float32)  # 12 MiB
    save_file({"x": np.eye(3), "a": big, "b": big}, pool / "x.safetensors")
    found = read_array(as_path(f"{POOL}/x.safetensors:x"), "rows", "floats")
    np.testing.assert_array_equal(found, np.eye(3))
    assert hub.sent < 1 << 20


def test_what_changed_there_is_seen_here(hub, pool):
    """The library keeps what a folder had, and would give the start of the new file."""
    for count in (3, 20):
        write(pool / "a.jsonl", RECORDS[:count])
        assert len(gx.read_examples(f"{POOL}/a.jsonl")) == count
        assert len(gx.read_examples(f"{POOL}@main/a.jsonl")) == count


def test_select_reads_and_writes_there(hub, pool, capsys):
    rng = np.random.default_rng(0)
    for name, rows in {"x": 24, "y": 9}.items():
        np.save(pool / f"{name}.npy", rng.normal(size=(rows, 4)).astype(np.float32))
    write(pool / "train.jsonl", RECORDS)
    command = (
        f"select --train-embeddings {POOL}/x.npy --valid-embeddings {POOL}/y.npy "
        f"--train {POOL}/train.jsonl --reward none --budget 5 --method nearest "
        f"--out {POOL}/runs/one"
    )
    assert main(command.split()) == 0
    rows = np.load(pool / "runs/one/indices.npy")
    lines = (pool / "runs/one/coreset.jsonl").read_text().splitlines()
    assert [*map(json.loads, lines)] == [RECORDS[row] for row in rows]
    assert not list(pool.rglob("*.writable")) + list(pool.rglob("*.sending"))


@pytest.mark.parametrize(
    ("url", "line"),
    [
        (f"{POOL}/none.jsonl", r"none\.jsonl does not exist: check the path"),
        (f"{POOL}@v9/a.jsonl", r"@v9/a\.jsonl does not exist: check the path"),
        ("hf://datasets/pool/a.jsonl", r"no such repository, .* set HF_TOKEN"),
        (f"hf://datasets/{PRIVATE}/a.jsonl", r"no such repository, .* set HF_TOKEN"),
        (f"hf://datasets/{GATED}/a.jsonl", r"a\.jsonl: no access .* set HF_TOKEN"),
        ("hf://datasets/pool", r"Repository id must be 'namespace/name'"),
    ],
)
def test_what_is_not_given_is_refused(url, line, pool, tmp_path, capsys):
    write(pool / "a.jsonl", RECORDS)
    command = f"embed --data {url} --encoder {tmp_path} --out x.npy"
    assert_refused(command, None, capsys, line)
