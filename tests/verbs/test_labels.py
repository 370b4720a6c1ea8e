"""Label-aware runs: from files of labels and from the outputs of texts."""

import json

import jax
import numpy as np
import pytest
from commands import ARRAYS, BUDGET, TEXTS, M, N, assert_refused, edit, run

import goracs_jax as gx

LABELS = " --train-labels l.npy --valid-labels m.npy"
TRAIN = np.array(["Yes", "No", "No"] * (N // 3))
VALID = np.array(["Yes"] * 4 + ["No"] * (M - 4))


@pytest.fixture
def labelled(arrays):
    np.save("l.npy", TRAIN)
    np.save("m.npy", VALID)
    return arrays


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_labels_of_files(labelled):
    command = ARRAYS + " --grad-norms g.npy --lambda 0.3" + LABELS
    assert run(command) == 0
    found = np.load("out/indices.npy")
    x, y, g = (np.load(f"{name}.npy") for name in "xyg")
    expected = gx.goracs(
        x, y, g, budget=BUDGET, lambda_=0.3, key=jax.random.key(0),
        train_labels=TRAIN, valid_labels=VALID,
    )  # fmt: skip
    assert (found == expected.indices).all()
    record = manifest(labelled / "out")
    assert record["poo"] == expected.objective
    assert record["lower_bound"] == expected.lower_bound
    rows = {row["label"]: row for row in record["classes"]}
    assert {label: row["budget"] for label, row in rows.items()} == {"Yes": 2, "No": 3}
    assert rows["Yes"]["train"] == (TRAIN == "Yes").sum()
    assert rows["Yes"]["valid"] == 4
    # max(D) and max(g) of the whole: the classes' values are in the same units.
    weighted = sum(row["objective"] * row["valid"] / M for row in rows.values())
    assert expected.objective <= weighted + 1e-9  # 2 : 3 is 4 : 6, so budgets are exact


def test_labels_name_the_stages(labelled):
    assert run(ARRAYS + " --method greedy") == 0
    plain = np.load("out/indices.npy")
    assert "classes" not in manifest(labelled / "out")
    assert run(ARRAYS + " --method greedy" + LABELS) == 0
    aware = np.load("out/indices.npy")
    np.save("l.npy", TRAIN[::-1])
    assert run(ARRAYS + " --method greedy" + LABELS) == 0
    other = np.load("out/indices.npy")
    assert (TRAIN[aware] == "Yes").sum() == (TRAIN[::-1][other] == "Yes").sum() == 2
    assert (aware != other).any()
    assert run(ARRAYS + " --method greedy") == 0
    assert (np.load("out/indices.npy") == plain).all()


def yes_no(path):
    """The outputs of a pool, Yes for the first third."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for i, record in enumerate(records):
        record["output"] = "Yes" if 3 * i < len(records) else "No"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [record["output"] for record in records]


def test_outputs_of_texts_are_classes(files):
    train, valid = (yes_no(files / f"{name}.jsonl") for name in ("train", "valid"))
    command = TEXTS + " --lambda 0 --labels answer --method greedy"
    assert run(command + " --by-label") == 0
    coreset = (files / "out" / "coreset.jsonl").read_text().splitlines()
    chosen = [json.loads(line)["output"] for line in coreset]
    assert chosen.count("Yes") == round(BUDGET * valid.count("Yes") / M)
    one = (files / "out" / "indices.npy").read_bytes()
    np.save("l.npy", train)
    np.save("m.npy", valid)
    assert run(command.replace("--out out", "--out two") + LABELS) == 0
    assert (files / "two" / "indices.npy").read_bytes() == one


def test_outputs_of_texts_beside_embeddings(files):
    train, valid = (yes_no(files / f"{name}.jsonl") for name in ("train", "valid"))
    rng = np.random.default_rng(0)
    for name, size in (("x", N), ("y", M)):
        np.save(f"{name}.npy", rng.normal(size=(size, 3)))
    texts = " --train train.jsonl --valid valid.jsonl --by-label --method greedy"
    assert run(ARRAYS + texts) == 0
    one = (files / "out" / "indices.npy").read_bytes()
    np.save("l.npy", train)
    np.save("m.npy", valid)
    two = ARRAYS.replace("--out out", "--out two") + LABELS + " --method greedy"
    assert run(two) == 0
    assert (files / "two" / "indices.npy").read_bytes() == one


def test_classes_that_fall_short_are_said(labelled, capsys):
    np.save("m.npy", np.array(["Yes"] * 4 + ["Maybe"] * (M - 4)))
    flags = ARRAYS + LABELS + " --method random"
    for command in (flags + " --dry-run", flags):
        assert run(command) == 0
        printed = capsys.readouterr().out
        assert "budget 5: classes absent from validation" in printed
        assert "others get the rest of it: Maybe" in printed
    rows = {row["label"]: row for row in manifest(labelled / "out")["classes"]}
    assert [rows[label]["budget"] for label in ("Maybe", "No", "Yes")] == [0, 0, 5]
    assert rows["No"]["objective"] is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (TRAIN[:-1], r"training labels must be 24 .*got shape \[23\]"),
        (np.ones(N), r"training labels must be 24 integers or strings.*float64"),
        (np.ones(N, int), r"training labels are int64, validation labels <U3"),
        (np.array([{}] * N), r"l\.npy is not a file of numbers or strings"),
        (np.where(TRAIN == "No", "A", "B"), r"budget must be at most 0, got 5: .*A, B"),
    ],
)
def test_bad_label_files(labelled, capsys, labels, message):
    np.save("l.npy", labels)
    assert_refused(ARRAYS + LABELS, BUDGET, capsys, message)
    assert not (labelled / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (ARRAYS + " --train-labels l.npy", r"--train-labels and --valid-labels togeth"),
        (ARRAYS + " --valid-labels m.npy", r"--train-labels and --valid-labels togeth"),
        (
            ARRAYS + " --by-label",
            r"--by-label takes the outputs of texts: give --train and",
        ),
        (ARRAYS + LABELS + " --by-label", r"--by-label or files of labels, not both"),
        (ARRAYS + LABELS.replace("l.npy", "none.npy"), r"none\.npy does not exist"),
    ],
)
def test_bad_flags(labelled, capsys, command, message):
    assert_refused(command, BUDGET, capsys, message)
    assert not (labelled / "out").exists()


def test_a_budget_that_no_classes_can_give_before_any_stage(files, capsys):
    yes_no(files / "train.jsonl")
    edit(
        files / "valid.jsonl",
        lambda text: text.replace('"output": ', '"output": "Yes", "was": '),
    )
    message = r"budget must be at most 8, got 9: validation lacks classes No"
    assert_refused(TEXTS + " --by-label", 9, capsys, message)
    assert not (files / "out").exists()
