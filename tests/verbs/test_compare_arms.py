"""Arms of `goracs compare` that choose in other spaces, by other rewards."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from commands import assert_refused, run
from comparing import cells, comparison, write

N, M, BUDGET = 16, 8, 4
ROWS = "--projection-dim 16 --adapter-from-pool 0.5"
ARMS = {
    "random": "--method random",
    "goracs:by-label@gradient/drop:1/cosine@alignment": (
        "--method goracs --by-label --space gradient --transform drop:1 "
        "--metric cosine --reward alignment"
    ),
    "goracs@text@none": "--method goracs --reward none",
    "less": "--method less",
    "rds": "--method rds",
    "loss-drop": "--method loss-drop",
    "goracs:by-label@text@probe": "--by-label --reward probe",
}
COMMON = "--train train.jsonl --valid valid.jsonl --model llm"
COMPARE = (
    f"compare --task ctr {COMMON} --test test.jsonl --methods {','.join(ARMS)} "
    f"--budgets {BUDGET} --lambdas 0.3 --seeds 1 --seed 5 --steps 2 --batch-size 4 "
    f"--warmup-steps 1 --out out {ROWS}"
)


def question(i):
    text = f"item {i:02} " + "and more " * (i % 5)
    return {"instruction": "Like?", "input": text, "output": ("Yes", "No")[i % 2]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    tiny.write_llm(folder / "llm")
    for name, first, size in (("train", 0, N), ("valid", 50, M), ("test", 80, 6)):
        write(folder / f"{name}.jsonl", [question(first + i) for i in range(size)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(COMPARE, None) == 0
    return folder


def record_of(path):
    return json.loads(path.read_text())


def test_every_arm_chooses_what_select_chooses(shared, monkeypatch):
    monkeypatch.chdir(shared)
    found = {record_of(cell)["cell"]["method"]: cell.parent for cell in cells(shared)}
    assert found.keys() == ARMS.keys()
    for arm, flags in ARMS.items():
        weighs = arm.endswith(("@alignment", "@probe"))
        lambda_ = "--lambda 0.3" if weighs else "--lambda 0"
        command = f"select {COMMON} {flags} {ROWS} {lambda_} --labels answer --seed 5"
        assert run(f"{command} --out by_hand", BUDGET) == 0
        mine = found[arm] / "selection"
        one, two = (np.load(out / "indices.npy") for out in (mine, Path("by_hand")))
        assert one.tolist() == two.tolist(), arm
        one, two = (record_of(out / "manifest.json") for out in (mine, Path("by_hand")))
        assert one["poo"] == pytest.approx(two["poo"], abs=1e-6)


def test_every_arm_pays_for_what_it_reads(shared):
    rows = {row["method"]: set(row["flops"]) for row in comparison(shared)["rows"]}
    search = {"selection", "training"}
    assert rows == {
        "random": {"training"},
        "goracs:by-label@gradient/drop:1/cosine@alignment": {"gradients", *search},
        "goracs@text@none": {"embeddings", *search},
        "less": {"gradients", *search},
        "rds": {"embeddings", *search},
        "loss-drop": {"gradients", "training"},
        "goracs:by-label@text@probe": {"embeddings", *search},
    }


def test_gradients_are_computed_once(shared, monkeypatch, capsys):
    monkeypatch.chdir(shared)
    files = {path.name for path in (shared / "out/shared").glob("*.npy")}
    assert files == {
        *("train.npy", "valid.npy", "loss-drop-5.npy"),
        *("gradient-train.npy", "gradient-valid.npy"),
        *("states-train.npy", "states-valid.npy"),
        *("prompts-train.npy", "prompts-valid.npy"),
    }
    capsys.readouterr()
    assert run(COMPARE, None) == 0  # all is done
    again = {path.name for path in (shared / "out/shared").glob("*.npy")}
    assert again == files


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("goracs@pictures", "a space is text, gradient, subspace, states or prompts"),
        ("goracs@text@probe", "the reward probe tells the answers .* apart: give --by"),
        ("goracs@gradient/drop:0", "got 'drop:0'"),
        ("goracs@text@best", "a reward is grad-norm"),
        ("best@text", "--methods must be among"),
        ("loss-drop@text@none", "ranks by rewards"),
        ("goracs@text/subspace:8", "needs 8 directions, and 8 validation examples"),
        ("goracs@gradient@alignment/drop:8", "leaves out as many directions as 8"),
        (
            "goracs,less@gradient/cosine,less",
            "and less are the same",
        ),
        ("goracs@@", "write METHOD"),
    ],
)
def test_arms_that_cannot_be(shared, monkeypatch, arm, message, capsys):
    monkeypatch.chdir(shared)
    command = COMPARE.replace(f"--methods {','.join(ARMS)}", f"--methods {arm}")
    if "goracs" not in arm:
        command = command.replace("--lambdas 0.3 ", "")
    assert_refused(command, None, capsys, message)
