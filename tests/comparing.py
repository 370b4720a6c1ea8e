"""A small comparison that several test files look at, and what it leaves."""

import json

import numpy as np
import tiny

TREES = ["ash", "elm", "fir", "oak", "yew", "box", "tea", "bay", "gum", "nut"]
COMPARE = (
    "compare --train train.jsonl --valid valid.jsonl --test test.jsonl --model llm "
    "--methods full,random,goracs --budgets 4 --lambdas 0,0.3 --seeds 2 --epochs 2 "
    "--batch-size 4 --warmup-steps 1 --learning-rate 0.03 --rank-by likelihood "
    "--out out"
)
CELLS = 1 + 2 * 3  # full once; random and two lambdas for each seed
N, USERS = 10, 4


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def example(i, title):
    return {"instruction": "Next?", "input": f"tree {i:02}", "output": f'"{title}"'}


def write_files(folder):
    """A model, and four files of examples of one length."""
    tiny.write_llm(folder / "llm")
    rng = np.random.default_rng(0)
    for name, size, first in (("train", N, 0), ("valid", 4, N)):
        titles = rng.choice(TREES, size)
        records = [example(first + i, title) for i, title in enumerate(titles)]
        write(folder / f"{name}.jsonl", records)
    write(
        folder / "items.jsonl",
        [{"item_id": i, "title": title} for i, title in enumerate(TREES)],
    )
    tests = []
    for i in range(6):  # two users have two examples
        target, *others = rng.permutation(len(TREES)).tolist()
        ids = {"user": i % USERS, "target": target, "negatives": others}
        tests.append(example(50 + i, TREES[target]) | ids)
    write(folder / "test.jsonl", tests)


def comparison(folder):
    return json.loads((folder / "out" / "comparison.json").read_text())


def results(folder):
    """All that a comparison found; seconds are never the same."""
    found = comparison(folder)
    timed = ("seconds", "total_seconds")
    rows = [{k: v for k, v in r.items() if k not in timed} for r in found["rows"]]
    return rows, found["pairs"]


def cells(folder):
    return sorted((folder / "out" / "cells").glob("*/cell.json"))


def folders(files, method):
    """Of the cells of a method, by seed."""
    mine = [path for path in cells(files) if cell_of(path)["method"] == method]
    mine.sort(key=lambda path: cell_of(path)["seed"])
    return [path.parent for path in mine]


def cell_of(path):
    return json.loads(path.read_text())["cell"]
