"""Long and bad records: the run is that without them, under the numbers of the file."""

import json

import numpy as np
import pytest
from commands import TEXTS, M, N, assert_refused, run

from goracs_jax.data.examples import read_examples
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokenization import count_tokens, load_tokenizer

BAD = {  # by its row in the training pool
    0: b'{"instruction": "i", "out',
    3: json.dumps({"instruction": "i", "input": "ash " * 300, "output": "o"}).encode(),
    17: json.dumps({"instruction": "i", "output": "\ud800"}).encode(),
}
KEPT = np.setdiff1d(np.arange(N + len(BAD)), [*BAD])
SKIP = " --bad-rows skip"


def scores_of(folder):
    with np.load(folder / "scores.npz") as file:
        return dict(file)


@pytest.fixture
def spoilt(files):
    """Three bad records among the good ones, which are in clean.jsonl alone."""
    good = (files / "train.jsonl").read_bytes().splitlines()
    (files / "clean.jsonl").write_bytes(b"\n".join(good))
    for row, line in BAD.items():
        good.insert(row, line)
    (files / "train.jsonl").write_bytes(b"\n".join(good))
    return files


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_selection_is_that_without_them(spoilt, capsys):
    assert_refused(TEXTS, 5, capsys, r"train\.jsonl:1: not valid JSON")
    assert not (spoilt / "out").exists()
    command = TEXTS + " --lambda 0.5" + SKIP
    assert run(command + " --dry-run") == 0
    told = f"train.jsonl: 3 of {N + 3} records are left out: 1 unreadable, 1 no text, 1"
    assert told in capsys.readouterr().out
    assert not (spoilt / "out").exists()
    assert run(command) == 0
    assert run(command.replace("train.jsonl", "clean.jsonl") + " --out clean") == 0
    out, clean = spoilt / "out", spoilt / "clean"
    rows = np.load(out / "indices.npy")
    np.testing.assert_array_equal(rows, KEPT[np.load(clean / "indices.npy")])
    coreset = (out / "coreset.jsonl").read_bytes()
    assert coreset == (clean / "coreset.jsonl").read_bytes()
    scores, expected = scores_of(out), scores_of(clean)
    for name in scores:
        np.testing.assert_array_equal(scores[name][KEPT], expected[name])
        assert not np.nan_to_num(scores[name][[*BAD]]).any()
    manifest = json.loads((out / "manifest.json").read_text())
    counts = {"unreadable": 1, "no text": 1, "too long": 1}
    assert manifest["left_out"] == counts
    left_out = lines(out / "skipped.jsonl")
    assert sorted(each["row"] for each in left_out) == [*BAD]
    assert {each["place"] for each in left_out} == {f"train.jsonl:{r + 1}" for r in BAD}
    assert not (clean / "skipped.jsonl").exists()
    # The same arrays, made one by one, have a row for each record of the file.
    for name, verb in (("x", "embed"), ("g", "grads")):
        made = f"{verb} --data train.jsonl --model llm --out {name}.npy" + SKIP
        assert run(made, None) == 0
        assert len(lines(spoilt / f"{name}.npy.skipped.jsonl")) == len(BAD)
        found = np.load(f"{name}.npy")
        assert np.isnan(found[[*BAD]]).all()
        assert np.isfinite(found[KEPT]).all()
        assert (
            json.loads((spoilt / f"{name}.npy.json").read_text())["left_out"] == counts
        )
    np.testing.assert_array_equal(np.load("g.npy")[KEPT], expected["grad_norm"])
    assert run("embed --data valid.jsonl --model llm --out y.npy", None) == 0
    arrays = (
        "select --train-embeddings x.npy --valid-embeddings y.npy --grad-norms g.npy "
        "--lambda 0.5 --out arrays"
    )
    assert_refused(arrays, 5, capsys, r"3 rows with NaN .* the first is row 0")
    assert run(arrays + SKIP) == 0
    np.testing.assert_array_equal(np.load("arrays/indices.npy"), rows)
    assert run(arrays + SKIP + " --train train.jsonl --out beside") == 0
    np.testing.assert_array_equal(np.load("beside/indices.npy"), rows)
    assert (spoilt / "beside/coreset.jsonl").read_bytes() == coreset
    wrong = arrays + SKIP + " --train clean.jsonl"
    assert_refused(wrong, 5, capsys, rf"clean\.jsonl has {N} examples, x\.npy {N + 3}")


def test_files_of_classes_and_rows_have_all_records(spoilt):
    rng = np.random.default_rng(0)
    x, y, c = (
        rng.normal(size=(N + 3, 3)),
        rng.normal(size=(M, 3)),
        rng.integers(0, 2, N + 3),
    )
    np.save("v.npy", rng.integers(0, 2, M))
    np.savez("rows.npz", train=x, valid=y)
    np.save("c.npy", c)
    np.savez("rows-clean.npz", train=x[KEPT], valid=y)
    np.save("c-clean.npy", c[KEPT])
    command = (
        "select --train {0}.jsonl --valid valid.jsonl --space rows{1}.npz --lambda 0 "
        "--train-labels c{1}.npy --valid-labels v.npy --bad-rows skip --model llm "
        "--out "
    )
    assert run(command.format("train", "") + "out") == 0
    assert run(command.format("clean", "-clean") + "clean") == 0
    rows, expected = (np.load(f"{name}/indices.npy") for name in ("out", "clean"))
    np.testing.assert_array_equal(rows, KEPT[expected])


def test_texts_are_cut_to_a_length(files, capsys):
    """The choice is that from texts cut by hand; the coreset has the whole records."""
    tokenizer = load_tokenizer(files / "llm")
    written = lambda record: Text.of(*format_prompt(record))
    count = lambda record: count_tokens([written(record)], tokenizer)[0]
    train = lines(files / "train.jsonl")
    most = int(np.median([*map(count, train)]))
    long = sum(count(record) > most for record in train)
    assert 0 < long < N
    for name in ("train", "valid"):
        cut = lines(files / f"{name}.jsonl")
        for record in cut:
            while count(record) > most:
                _, record["input"] = record["input"].split(maxsplit=1)
        text = "".join(f"{json.dumps(record)}\n" for record in cut)
        (files / f"{name}-cut.jsonl").write_text(text)
    command = TEXTS + f" --lambda 0.5 --max-length {most}"
    assert run(command) == 0
    told = f"train.jsonl: {long} of {N} texts are cut to {most} tokens"
    assert told in capsys.readouterr().out
    by_hand = TEXTS.replace(".jsonl", "-cut.jsonl").replace("--out out", "--out hand")
    assert run(by_hand + " --lambda 0.5") == 0
    scores, expected = scores_of(files / "out"), scores_of(files / "hand")
    for name in expected:
        np.testing.assert_array_equal(scores[name], expected[name])
    chosen = [e.record for e in read_examples(files / "out/coreset.jsonl")]
    assert chosen == [train[row] for row in np.load(files / "out/indices.npy")]
    assert run(command + " --too-long skip --out skipped") == 0
    told = f"train.jsonl: {long} of {N} records are left out: {long} too long"
    assert told in capsys.readouterr().out
    refused = TEXTS + f" --max-length {most} --too-long refuse"
    assert_refused(
        refused, 5, capsys, rf"tokens, more than --max-length of {most}: cut"
    )
    message = r"train\.jsonl: all 24 records are left out \(24 too long\): give others"
    assert_refused(TEXTS + " --max-length 4" + SKIP, 5, capsys, message)
    assert_refused(TEXTS + " --max-length 0", 5, capsys, r"--max-length must be at l")


@pytest.mark.parametrize(
    "command",
    [
        "finetune --data train.jsonl --valid valid.jsonl --model llm --steps 30 "
        "--out o",
        "evaluate --task ctr --test train.jsonl --model llm --out o.json",
        "check --train train.jsonl --valid valid.jsonl --model llm --budget 4 --out o",
        "compare --task ctr --train train.jsonl --valid valid.jsonl --test valid.jsonl "
        "--model llm --methods random --budgets 4 --out o",
    ],
)
def test_verbs_that_read_texts_leave_them_out(spoilt, capsys, command):
    for name in ("train", "valid"):
        made = (spoilt / f"{name}.jsonl").read_bytes().splitlines()
        words = iter(["Yes", "No"] * len(made))
        for i, line in enumerate(made):
            if name == "valid" or i in KEPT:
                changed = json.loads(line) | {"output": next(words)}
                made[i] = json.dumps(changed).encode()
        (spoilt / f"{name}.jsonl").write_bytes(b"\n".join(made))
    before = {path.name for path in spoilt.iterdir()}
    assert run(command + SKIP + " --dry-run", None) == 0
    assert f"3 of {N + 3} records are left out" in capsys.readouterr().out
    assert_refused(command + " --dry-run", None, capsys, r"train\.jsonl:1: not valid")
    assert {path.name for path in spoilt.iterdir()} == before


def test_predictions_have_the_numbers_of_the_file(spoilt):
    good = [
        json.loads(line) for line in (spoilt / "clean.jsonl").read_bytes().splitlines()
    ]
    answers = [
        json.dumps(each | {"output": ["Yes", "No"][i % 2]}).encode()
        for i, each in enumerate(good)
    ]
    (spoilt / "clean.jsonl").write_bytes(b"\n".join(answers))
    for row, line in BAD.items():
        answers.insert(row, line)
    (spoilt / "test.jsonl").write_bytes(b"\n".join(answers))
    command = "evaluate --task ctr --model llm --resamples 20 --test "
    assert run(command + "test.jsonl --out m.json" + SKIP, None) == 0
    assert run(command + "clean.jsonl --out clean.json", None) == 0
    found, clean = (lines(spoilt / f"{n}.predictions.jsonl") for n in ("m", "clean"))
    assert [each.pop("example") for each in found] == KEPT.tolist()
    assert [each.pop("example") for each in clean] == list(range(N))
    assert found == clean
    metrics = [json.loads((spoilt / f"{n}.json").read_text()) for n in ("m", "clean")]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]
    assert metrics[0]["left_out"] == {"unreadable": 1, "no text": 1, "too long": 1}
    assert len(lines(spoilt / "m.json.skipped.jsonl")) == len(BAD)
