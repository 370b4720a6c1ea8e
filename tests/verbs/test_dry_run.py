"""A dry run finds what the run would stumble over; it writes and trains nothing."""

import pytest
import raw_files
import tiny
from commands import assert_refused, edit, run, truncate
from comparing import COMPARE, TREES, example, write, write_files

from goracs_jax.data import demo
from goracs_jax.training import run as training

SELECT = (
    "select --train pool.jsonl --valid valid.jsonl --model llm --out out --budget 3"
)
DRY = {
    "select": SELECT,
    "select after a training": f"{SELECT} --space gradient --adapter-from-pool 0.5",
    "embed": "embed --data pool.jsonl --model llm --out e.npy",
    "grads": "grads --data pool.jsonl --model llm --out g.npy",
    "finetune": "finetune --data pool.jsonl --valid valid.jsonl --model llm --out out "
    "--steps 3 --warmup-steps 1",
    "merge": "merge --model llm --adapter adapter --out out",
    "evaluate": "evaluate --task seqrec --test test.jsonl --model llm --out m.json",
    "compare": COMPARE.replace("train.jsonl", "pool.jsonl"),
    "check": "check --train pool.jsonl --valid target.jsonl --model llm --budget 4 "
    "--steps 3 --warmup-steps 1 --batch-size 4 --repeats 2 --pairs 4 --quantiles 3 "
    "--quantile-seeds 1 --subsets 10 --planted-rows 20 --out out",
}
SPOIL = {
    "config": (lambda f: (f / "llm/config.json").write_text("{"), r"config\.json"),
    "weights": (lambda f: truncate(f / "llm/model.safetensors"), r"model\.safetensors"),
    "tokenizer": (lambda f: (f / "llm/tokenizer.json").write_text("{"), r"llm"),
}
LONG = (
    lambda text: text.replace('"input": "', '"input": "' + "oak " * 300, 1),
    r"jsonl:1 has \d+ tokens.* more than the model's context",
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    write_files(folder)
    tiny.write_adapter(folder / "adapter")
    for name, first, size in (("pool", 100, 24), ("target", 200, 8)):
        rows = [example(first + i, TREES[i % 2]) for i in range(size)]
        write(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture
def untrained(monkeypatch):
    """No step of any training is taken."""
    monkeypatch.setattr(training.Run, "step", None)


@pytest.mark.parametrize("verb", DRY)
def test_what_is_whole_passes_and_nothing_is_written(files, untrained, verb):
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    assert run(f"{DRY[verb]} --dry-run", None) == 0
    after = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    assert after == before


DAMAGES = [(verb, "weights") for verb in DRY]
DAMAGES += [(verb, "config") for verb in ("select", "merge", "compare", "check")]
DAMAGES += [(verb, "tokenizer") for verb in ("embed", "evaluate", "finetune", "merge")]


@pytest.mark.parametrize(("verb", "name"), DAMAGES)
def test_a_damaged_model_is_found(files, capsys, untrained, verb, name):
    spoil, message = SPOIL[name]
    spoil(files)
    assert_refused(f"{DRY[verb]} --dry-run", None, capsys, message)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_encoder_is_found(files, capsys, name):
    tiny.write_encoder(files / "encoder")
    command = "embed --data pool.jsonl --encoder encoder --out e.npy --dry-run"
    assert run(command, None) == 0
    truncate(files / "encoder" / name)
    assert_refused(command, None, capsys, "encoder")


@pytest.mark.parametrize("verb", [verb for verb in DRY if verb != "merge"])
def test_an_example_that_is_too_long_is_found(files, capsys, untrained, verb):
    change, message = LONG
    edit(files / ("test.jsonl" if verb == "evaluate" else "pool.jsonl"), change)
    assert_refused(f"{DRY[verb]} --dry-run", None, capsys, message)


def test_raw_files_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    raw_files.write("movielens-1m", tmp_path / "raw")
    with (tmp_path / "raw/ratings.dat").open("a") as file:
        file.write("damaged\n" * 9)
    command = "prepare --task seqrec --format movielens-1m --input raw --out out"
    message = r"lines cannot be read, more than 1 %.*raw/ratings\.dat"
    assert_refused(f"{command} --dry-run", None, capsys, message)
    assert not (tmp_path / "out").exists()


def test_the_demo_looks_into_its_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path))
    assert run("demo --dry-run", None) == 0
    assert capsys.readouterr().out.count("to be downloaded") == len(demo.WHEELS)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / demo.RECBOLE.file).write_bytes(b"")
    message = r"recbole-1\.2\.1.* is not the pinned recbole==1\.2\.1"
    assert_refused("demo --dry-run", None, capsys, message)
