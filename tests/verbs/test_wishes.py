"""Wishes from the command line: files, flags, refusals, and what is written."""

import json

import jax
import numpy as np
import pytest
from commands import ARRAYS, BUDGET, TEXTS, M, N, assert_refused, edit, run

import goracs_jax as gx

GREEDY = ARRAYS + " --method greedy"


@pytest.fixture
def wished(arrays):
    np.save("in.npy", np.array([2, 5]))
    (arrays / "out.txt").write_text("0\n1\n\n7\n")
    np.save("w.npy", np.arange(M) + 1.0)
    np.save("c.npy", np.arange(N) + 10)
    np.save("k.npy", np.array(["news", "sport", "art"] * (N // 3)))
    return arrays


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_flags_are_the_arguments_of_python(wished):
    flags = (
        " --include in.npy --exclude out.txt --valid-weights w.npy --row-costs c.npy"
        " --cost-limit 95 --groups k.npy --group-min news=2 --group-max sport=1"
    )
    assert run(GREEDY + flags) == 0
    x, y = np.load("x.npy"), np.load("y.npy")
    given = {
        "budget": BUDGET, "lambda_": 0.0, "key": jax.random.key(0), "method": "greedy",
        "include": [2, 5], "exclude": [0, 1, 7], "valid_weights": np.arange(M) + 1.0,
        "row_costs": np.arange(N) + 10, "cost_limit": 95, "groups": np.load("k.npy"),
        "group_min": {"news": 2}, "group_max": {"sport": 1},
    }  # fmt: skip
    expected = gx.goracs(x, y, **given)
    found = np.load("out/indices.npy")
    assert (found == expected.indices).all()
    assert {2, 5} <= {*found.tolist()}
    record = manifest(wished / "out")
    assert record["poo"] == expected.objective
    given["method"] = "random"
    assert record["table"][1]["objective"] == gx.goracs(x, y, **given).objective


def test_a_config_file_has_them_and_a_dry_run_checks_them(wished, capsys):
    flags = "include: in.npy\ngroups: k.npy\ngroup_max: [sport=1, news=2]\napart: 0.1\n"
    (wished / "wishes.yaml").write_text(flags)
    typed = " --include in.npy --groups k.npy --group-max sport=1,news=2 --apart 0.1"
    assert run(GREEDY + typed) == 0
    found = np.load("out/indices.npy")
    command = GREEDY.replace("--out out", "--config wishes.yaml --out other")
    assert run(command + " --dry-run") == 0
    assert not (wished / "other").exists()
    assert run(command) == 0
    assert (np.load("other/indices.npy") == found).all()
    capsys.readouterr()
    assert run(command.replace("other", "out") + " --dry-run") == 0
    assert "selection greedy: done" in capsys.readouterr().out
    refused = command + " --dry-run --exclude in.npy"
    assert_refused(refused, BUDGET, capsys, "include and exclude both have row 2")


def test_rows_are_those_of_the_whole_file(wished, capsys):
    """Where copies are dropped, too."""
    x = np.load("x.npy")
    x[[1, 5]] = np.load("y.npy")[:2]
    np.save("x.npy", x)
    np.save("in.npy", np.array([2, 6]))
    costs = np.where(np.isin(np.arange(N), [2, 6, 8, 9, 11, 20]), 1, 9)
    np.save("c.npy", costs)
    command = GREEDY + " --leakage drop --row-costs c.npy --cost-limit 5"
    assert run(command + " --include in.npy --exclude out.txt") == 0
    found = np.load("out/indices.npy")
    assert {2, 6} < {*found.tolist()} < {2, 6, 8, 9, 11, 20}
    np.save("in.npy", np.array([2, 5]))
    message = "--include has row 5, which --leakage drop or --bad-rows skip leaves out"
    assert_refused(command + " --include in.npy", BUDGET, capsys, message)


def test_the_budget_is_found(wished, capsys):
    flags = " --budget auto --row-costs c.npy --cost-limit 95"
    assert run(GREEDY + flags + " --dry-run", None) == 0
    assert f"auto of {N} training examples" in capsys.readouterr().out
    assert run(GREEDY + flags, None) == 0
    curve = manifest(wished / "out")["budget_curve"]
    found = gx.goracs(
        np.load("x.npy"), np.load("y.npy"), budget="auto", lambda_=0.0,
        key=jax.random.key(0), method="greedy", row_costs=np.load("c.npy"),
        cost_limit=95,
    )  # fmt: skip
    rows = np.load("out/indices.npy")
    assert (rows == found.indices).all()
    assert f"budget auto: {len(rows)} examples" in capsys.readouterr().out
    # 10 + ... + 16 is 91, and the 17 would be too much.
    assert [point["budget"] for point in curve][-1] <= 7
    assert len(rows) in [point["budget"] for point in curve]
    message = "--budget must be auto or whole numbers, not both"
    assert_refused(GREEDY + " --budget auto,3", None, capsys, message)
    message = "--budget auto is found for one lambda"
    both = GREEDY + " --grad-norms g.npy --lambda 0,1 --budget auto"
    assert_refused(both, None, capsys, message)
    np.save("y.npy", np.load("y.npy")[:1])
    message = "validation, which has 1 row"
    assert_refused(GREEDY + " --budget auto", None, capsys, message)


def test_the_next_rows_are_beside_those_of_a_run(wished):
    assert run(GREEDY) == 0
    first = np.load("out/indices.npy")
    np.save("first.npy", first)
    assert run(GREEDY + " --trained first.npy") == 0
    following = np.load("out/indices.npy")
    assert len(following) == BUDGET
    assert not {*first.tolist()} & {*following.tolist()}
    both = np.concatenate([first, following])
    value = gx.poo(np.load("x.npy"), np.load("y.npy"), None, both, lambda_=0.0)
    assert manifest(wished / "out")["poo"] == pytest.approx(value, abs=1e-9)


def test_wishes_name_the_stages(wished):
    assert run(GREEDY) == 0
    plain = np.load("out/indices.npy")
    np.save("in.npy", np.setdiff1d(np.arange(N), plain)[:2])
    assert run(GREEDY + " --include in.npy") == 0
    assert (np.load("out/indices.npy") != plain).any()
    assert run(GREEDY) == 0
    assert (np.load("out/indices.npy") == plain).all()


def test_groups_are_a_key_of_the_records(files):
    def add(text):
        records = [json.loads(line) for line in text.splitlines()]
        lines = (r | {"source": "ab"[i % 2]} for i, r in enumerate(records))
        return "".join(json.dumps(line) + "\n" for line in lines)

    edit(files / "train.jsonl", add)
    command = TEXTS + " --lambda 0 --method greedy --groups source --group-max a=1"
    assert run(command) == 0
    coreset = (files / "out" / "coreset.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in coreset].count("a") <= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--include in.npy --exclude in.npy", "include and exclude both have row 2"),
        ("--include none.npy", "none.npy"),
        ("--include bad.txt", "bad.txt:2: 'x' is no row number"),
        ("--include x.npy", "include must be row numbers"),
        ("--row-costs c.npy", "row costs and a cost limit together"),
        ("--row-costs c.npy --cost-limit 9", "0 rows that cost less than the limit"),
        ("--row-costs c.npy --cost-limit 55", "the cheapest 5 rows cost 109.1 %"),
        ("--groups k.npy --group-min news", "must be GROUP=COUNT"),
        (
            "--groups k.npy --group-min news=1,news=2",
            "--group-min has group news twice",
        ),
        ("--groups k.npy --group-min news=3 --group-max news=2", "at least 3 rows and"),
        ("--groups k.npy --group-min opera=1", "group opera, which no row has"),
        ("--groups k.npy --group-max news=0,sport=0,art=2", "group_max leaves 2 rows"),
        ("--groups y.npy --group-max a=1", "y.npy has groups of shape"),
        ("--valid-weights c.npy", "and there are 10 validation rows"),
        ("--valid-weights nan.npy", "validation weights of nan.npy .*row 1"),
        ("--valid-weights minus.npy", "validation weights of minus.npy .*row 0"),
        ("--valid-weights zeros.npy", "all validation weights of zeros.npy are zero"),
        ("--row-costs w.npy --cost-limit 9", "w.npy has row costs of shape"),
        ("--include past.npy", f"include has row {N}, and there are {N} training rows"),
        ("--apart 0", "apart must be a distance above 0"),
        ("--apart 1000", "at most 1 rows are as far apart"),
        ("--method itra --include in.npy", "method itra cannot heed wishes"),
    ],
)
def test_refusals_are_one_line(wished, capsys, flags, message):
    (wished / "bad.txt").write_text("1\nx\n")
    np.save("nan.npy", np.where(np.arange(M) == 1, np.nan, 1.0))
    np.save("zeros.npy", np.zeros(M))
    np.save("minus.npy", -np.ones(M))
    np.save("past.npy", np.array([0, N]))
    command = ARRAYS if "--method" in flags else GREEDY
    assert_refused(f"{command} {flags}", BUDGET, capsys, message)
    assert not (wished / "out" / "manifest.json").exists()
