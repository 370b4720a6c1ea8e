"""gs:// against a Google Cloud Storage on loopback, by gcsfs."""

import json
import logging

import numpy as np
import pytest
from commands import assert_refused
from gcs_server import FORBIDDEN, PRIVATE, reached, serving

import goracs_jax as gx
from goracs_jax.buckets import as_path, writable
from goracs_jax.cli import main
from goracs_jax.errors import InputError
from goracs_jax.inputs.array_files import read_array

pytest.importorskip("gcsfs")
RECORDS = [{"instruction": f"Say {i}.", "output": "word " * 300} for i in range(3000)]


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """A store with an empty bucket called `pool`."""
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "root/pool").mkdir(parents=True)
    with serving(tmp_path / "root") as server, reached(server.url):
        yield server


@pytest.fixture
def pool(storage):
    return storage.root / "pool"


def write(file, found):
    file.write_text("".join(json.dumps(record) + "\n" for record in found))


def test_files_and_folders(pool):
    for name in ("x-10.npy", "x-2.npy", "deep/y z+%.npy"):
        (pool / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (pool / "in" / name).write_text(name)
    folder = as_path("gs://pool/in")
    assert folder.is_dir()
    assert sorted(p.name for p in folder.iterdir()) == ["deep", "x-10.npy", "x-2.npy"]
    assert [p.read_text() for p in folder.glob("*/*.npy")] == ["deep/y z+%.npy"]
    assert (folder / "x-2.npy").stat().st_size == len("x-2.npy")
    assert not (folder / "x").exists()


def test_texts_are_read_in_ranges(storage, pool):
    write(pool / "a.jsonl", RECORDS)
    size = (pool / "a.jsonl").stat().st_size
    with as_path("gs://pool/a.jsonl").open("rb") as file:
        assert json.loads(file.readline()) == RECORDS[0]
        assert storage.sent < size / 20
        file.seek(size - 9)
        assert file.read() == (pool / "a.jsonl").read_bytes()[-9:]
        assert storage.sent < size / 20
    found = gx.read_examples("gs://pool/a.jsonl")
    assert [found[row].record for row in (0, 2999)] == [RECORDS[0], RECORDS[2999]]
    assert found[7].place == "gs://pool/a.jsonl:8"


def test_one_array_of_a_zip_is_fetched_alone(storage, pool):
    big = np.zeros(1 << 20)
    np.savez(pool / "x.npz", a=big, x=np.eye(3), b=big)
    found = read_array(as_path("gs://pool/x.npz:x"), "rows", "floats")
    np.testing.assert_array_equal(found, np.eye(3))
    assert storage.sent < 1 << 20


def test_what_changed_there_is_seen_here(pool):
    for count in (3, 20):
        write(pool / "a.jsonl", RECORDS[:count])
        assert len(gx.read_examples("gs://pool/a.jsonl")) == count


def test_select_reads_and_writes_there(pool):
    rng = np.random.default_rng(0)
    for name, rows in {"x": 24, "y": 9}.items():
        np.save(pool / f"{name}.npy", rng.normal(size=(rows, 4)).astype(np.float32))
    write(pool / "train.jsonl", RECORDS[:24])
    command = (
        "select --train-embeddings gs://pool/x.npy --valid-embeddings gs://pool/y.npy "
        "--train gs://pool/train.jsonl --reward none --budget 5 --method nearest "
        "--out gs://pool/runs/one"
    )
    assert main(command.split()) == 0
    rows = np.load(pool / "runs/one/indices.npy")
    lines = (pool / "runs/one/coreset.jsonl").read_text().splitlines()
    assert [*map(json.loads, lines)] == [RECORDS[row] for row in rows]
    assert not list(pool.rglob("*.writable")) + list(pool.rglob("*.sending"))


@pytest.mark.filterwarnings("ignore:Sending a large body directly")
def test_a_large_object_appears_whole_or_not_at_all(storage, pool):
    """More than 5 MiB are sent in parts."""
    content = np.random.default_rng(0).bytes(6 << 20)
    storage.cut = True
    with (
        pytest.raises(InputError, match=r"gs://pool/a\.bin: gs does not answer"),
        writable("gs://pool/a.bin") as here,
    ):
        here.write_bytes(content)
    assert not (pool / "a.bin").exists()
    storage.cut = False
    with writable("gs://pool/a.bin") as here:
        here.write_bytes(content)
    assert (pool / "a.bin").read_bytes() == content


@pytest.mark.parametrize("bucket", [PRIVATE, FORBIDDEN])
def test_no_access(bucket, storage, capsys, tmp_path, monkeypatch):
    # Those of pytest, which no user has.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    command = f"embed --data gs://{bucket}/a.jsonl --encoder {tmp_path} --out x.npy"
    line = rf"gs://{bucket}/a\.jsonl: no access .* gcloud auth application-default"
    assert_refused(command, None, capsys, line)
