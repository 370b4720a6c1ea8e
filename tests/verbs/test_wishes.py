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
    expected = gx.goracs(
        x, y, budget=BUDGET, lambda_=0.0, key=jax.random.key(0), method="greedy",
        include=[2, 5], exclude=[0, 1, 7], valid_weights=np.arange(M) + 1.0,
        row_costs=np.arange(N) + 10, cost_limit=95, groups=np.load("k.npy"),
        group_min={"news": 2}, group_max={"sport": 1},
    )  # fmt: skip
    found = np.load("out/indices.npy")
    assert (found == expected.indices).all()
    assert {2, 5} <= {*found.tolist()}
    record = manifest(wished / "out")
    assert record["poo"] == expected.objective
    random = record["table"][1]
    assert (
        random["objective"] >= record["poo"] - 0.2
    )  # of a subset that meets them, too


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
        ("--groups k.npy --group-min opera=1", "group opera, which no row has"),
        ("--groups k.npy --group-max news=0,sport=0,art=2", "group_max leaves 2 rows"),
        ("--groups y.npy --group-max a=1", "y.npy has groups of shape"),
        ("--valid-weights c.npy", "and there are 10 validation rows"),
        ("--apart 1000", "at most 1 rows are as far apart"),
        ("--method itra --include in.npy", "method itra cannot heed wishes"),
    ],
)
def test_refusals_are_one_line(wished, capsys, flags, message):
    (wished / "bad.txt").write_text("1\nx\n")
    command = ARRAYS if "--method" in flags else GREEDY
    assert_refused(f"{command} {flags}", BUDGET, capsys, message)
    assert not (wished / "out" / "manifest.json").exists()
