"""Copies of what validates or tests: counted by all, dropped as if never there."""

import json

import numpy as np
import pytest
from commands import ARRAYS, TEXTS, M, N, assert_refused, run

from goracs_jax.data.examples import read_examples

COPIED = [2, 3, 17]  # rows of the training pool that become copies of validation


@pytest.fixture
def leaky(files):
    """Three training rows are validation examples, in capitals and with spaces."""
    rows = [json.loads(t) for t in (files / "train.jsonl").read_text().splitlines()]
    valid = [e.record for e in read_examples(files / "valid.jsonl")]
    for i, row in enumerate(COPIED):
        rows[row] |= {key: f" {valid[i][key].upper()}\n" for key in ("input", "output")}
        rows[row]["instruction"] = valid[i]["instruction"]
    write(files / "train.jsonl", rows)
    write(files / "clean.jsonl", [r for i, r in enumerate(rows) if i not in COPIED])
    return files


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def as_without(out, clean):
    """The choice is that from a pool without the copies, under the numbers of all."""
    kept = np.setdiff1d(np.arange(N), COPIED)
    rows = np.load(out / "indices.npy")
    np.testing.assert_array_equal(rows, kept[np.load(clean / "indices.npy")])
    assert rows.dtype == np.int64
    scores, expected = np.load(out / "scores.npz"), np.load(clean / "scores.npz")
    assert scores.files == expected.files
    for name in scores.files:
        assert len(scores[name]) == N
        np.testing.assert_array_equal(scores[name][kept], expected[name])
        assert np.isnan(scores[name][COPIED]).all() or not scores[name][COPIED].any()
    assert manifest(out)["poo"] == manifest(clean)["poo"]
    assert manifest(out)["leakage"]["dropped"] == len(COPIED)


def test_copies_of_texts(leaky, capsys):
    assert run(TEXTS + " --lambda 0.5") == 0
    told = f"leakage: 3 of {N} training examples equal a validation example; transport"
    assert told in capsys.readouterr().out
    kept = {"validation": 3}
    expected = {"counts": kept, "of": N, "action": "keep", "near": None, "dropped": 0}
    assert manifest(leaky / "out")["leakage"] == expected
    message = r"train\.jsonl:3 is a copy of validation example 1: remove it, or pass"
    assert_refused(f"{TEXTS} --leakage refuse", 5, capsys, message)
    dropped = TEXTS.replace("--out out", "--out dropped --leakage drop --lambda 0.5")
    assert run(dropped) == 0
    assert "validation example; 3 are dropped" in capsys.readouterr().out
    clean = dropped.replace("train.jsonl", "clean.jsonl").replace("dropped", "without")
    assert run(clean) == 0
    assert f"leakage: 0 of {N - 3} training" in capsys.readouterr().out
    as_without(leaky / "dropped", leaky / "without")
    chosen = [e.record for e in read_examples(leaky / "dropped/coreset.jsonl")]
    assert chosen == [e.record for e in read_examples(leaky / "without/coreset.jsonl")]


def test_copies_beside_files_of_rows(leaky):
    """Classes, errors and rows of files belong to all examples, dropped or not."""
    rng = np.random.default_rng(0)
    kept = np.setdiff1d(np.arange(N), COPIED)
    x, y = rng.normal(size=(N, 3)), rng.normal(size=(M, 3))
    e, train = rng.random(N), rng.integers(0, 2, N)
    np.savez("rows.npz", train=x, valid=y)
    np.savez("fewer.npz", train=x[kept], valid=y)
    for name, rows in {"e": e, "c": train, "v": rng.integers(0, 2, M)}.items():
        np.save(f"{name}.npy", rows)
    for name, rows in {"e": e, "c": train}.items():
        np.save(f"{name}-clean.npy", rows[kept])
    flags = (
        "select --train {0} --valid valid.jsonl --space {1} --lambda 0 --method error "
        "--errors {2} --train-labels {3} --valid-labels v.npy --leakage drop --out {4}"
    )
    given = ("train.jsonl", "rows.npz", "e.npy", "c.npy", "out")
    assert run(flags.format(*given)) == 0
    fewer = ("clean.jsonl", "fewer.npz", "e-clean.npy", "c-clean.npy", "without")
    assert run(flags.format(*fewer)) == 0
    as_without(leaky / "out", leaky / "without")


def test_copies_of_rows(arrays, capsys):
    x, y, g = (np.load(f"{name}.npy") for name in "xyg")
    x[COPIED] = y[:3]
    y[1] = -0.0
    x[3] = 0.0
    kept = np.setdiff1d(np.arange(N), COPIED)
    np.save("x.npy", x)
    np.save("y.npy", y.astype(np.float64))
    np.save("x-clean.npy", x[kept])
    np.save("g-clean.npy", g[kept])
    command = f"{ARRAYS} --grad-norms g.npy --lambda 0.5"
    assert run(command) == 0
    assert f"3 of {N} training examples equal a valid" in capsys.readouterr().out
    message = r"training row 2 equals a validation row: remove it, or pass"
    assert_refused(f"{command} --leakage refuse", 5, capsys, message)
    assert run(f"{command} --leakage drop".replace("--out out", "--out dropped")) == 0
    clean = command.replace("--out out", "--out without")
    assert (
        run(clean.replace("x.npy", "x-clean.npy").replace("g.npy", "g-clean.npy")) == 0
    )
    as_without(arrays / "dropped", arrays / "without")
    message = r"--near-copies is for texts"
    assert_refused(f"{command} --near-copies 0.9", 5, capsys, message)


def test_near_copies_of_texts(files, capsys):
    """One word of a copy is changed: shared runs of three words, of all in either."""
    words = [f"tree{i}" for i in range(20)]
    record = {"instruction": "Name it.", "input": " ".join(words), "output": "oak"}
    near = record | {"input": " ".join([*words[:-1], "other"])}
    for name, added in (("train", near), ("valid", record)):
        lines = (files / f"{name}.jsonl").read_text().splitlines()
        write(files / f"{name}.jsonl", [*map(json.loads, lines), added])
    runs = [
        {tuple(each[i : i + 3]) for i in range(len(each) - 2)}
        for each in ((f"name it. {r['input']} oak").split() for r in (near, record))
    ]
    share = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    command = TEXTS + " --dry-run --lambda 0 --near-copies "
    for similarity, count in ((share - 0.01, 1), (share + 0.01, 0)):
        assert run(command + f"{similarity:.3f}") == 0
        told = f"leakage: {count} of {N + 1} training examples equal a validation"
        assert told in capsys.readouterr().out
    message = rf"train\.jsonl:{N + 1} is a copy of validation example {M + 1}: remove"
    refused = command + f"{share - 0.01:.3f} --leakage refuse"
    assert_refused(refused, 5, capsys, message)
    assert_refused(command + "2", 5, capsys, r"--near-copies must be above 0")


def test_a_check_counts_them(leaky, capsys):
    command = (
        "check --train train.jsonl --valid valid.jsonl --model llm --out o --budget 4 "
        "--rewards grad-norm --spaces text --quantile-seeds 0 --dry-run --leakage "
    )
    assert run(command + "drop", None) == 0
    told = f"leakage: 3 of {N} training examples equal a validation example; 3 are drop"
    assert told in capsys.readouterr().out
    message = r"train\.jsonl:3 is a copy of validation example 1: remove it"
    assert_refused(command + "refuse", None, capsys, message)


def test_comparison_json_counts_them(compared):
    found = json.loads((compared / "out/comparison.json").read_text())["leakage"]
    lines = {
        name: [*map(json.loads, (compared / f"{name}.jsonl").read_text().splitlines())]
        for name in ("train", "valid", "test")
    }
    key = lambda record: (record["input"].casefold(), record["output"].casefold())
    copies = lambda name: sum(
        key(record) in {*map(key, lines[name])} for record in lines["train"]
    )
    assert found["counts"] == {"validation": copies("valid"), "test": copies("test")}
    assert (found["of"], found["action"]) == (len(lines["train"]), "keep")


def liked(i, chat):
    """A question that is its own, and its answer, in one of two forms."""
    user, asked, answer = i // 2, f"Like tree {i:02}?", "No" if i % 2 else "Yes"
    if not chat:
        return {"instruction": asked, "output": answer, "user": user}
    turns = [("user", asked), ("assistant", answer)]
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"messages": messages, "user": user}


@pytest.mark.parametrize("chat", [True, False], ids=["chats", "texts"])
def test_a_comparison_counts_drops_and_refuses(files, capsys, chat):
    """One training example validates, too, and two of them test."""
    rows = {"c": [*range(9), 20, 30, 31], "v": range(20, 24), "s": range(30, 36)}
    for name, numbers in rows.items():
        write(files / f"{name}.jsonl", [liked(i, chat) for i in numbers])
    command = (
        "compare --task ctr --train c.jsonl --valid v.jsonl --test s.jsonl --model llm "
        "--methods random --budgets 4 --seeds 1 --epochs 1 --batch-size 4 --out o "
        "--warmup-steps 0 --template t.jinja --dry-run --leakage "
    )
    (files / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    if not chat:
        command = command.replace("--template t.jinja", "")
    told = "leakage: 1 of 12 training examples equal a validation example; 2 of 12"
    for action, then in {"keep": "rewards copies", "drop": "3 are dropped"}.items():
        assert run(command + action, None) == 0
        printed = capsys.readouterr().out
        assert told in printed
        assert then in printed
    message = r"c\.jsonl:10 is a copy of validation example 1: remove it"
    assert_refused(command + "refuse", None, capsys, message)


def test_too_few_are_left(leaky, capsys):
    message = rf"budget must be in \[1, {N - 3}\], got {N - 2}"
    assert_refused(f"{TEXTS} --leakage drop", N - 2, capsys, message)
    command = TEXTS.replace("--train train.jsonl", "--train valid.jsonl")
    message = r"all training examples are copies: give others"
    assert_refused(f"{command} --leakage drop", 1, capsys, message)


def test_prepare_counts_and_drops(tmp_path, monkeypatch, capsys):
    """Users with the same films in the same order make the same example."""
    monkeypatch.chdir(tmp_path)
    lines = ["user_id,item_id,rating,timestamp,title"]
    for user in range(9):
        films = (
            ["Alien", "Brazil", "Cube", "Dune"]
            if user % 3
            else ["Dune", "Cube", "X", f"Y{user}"]
        )
        for i, film in enumerate(films):
            film = film.upper() if user == 8 else film
            lines.append(f"u{user},{film},5,{100 * user + i},{film}")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    command = (
        "prepare --task seqrec --format csv --input a.csv --min-history 3 --valid 2 "
        "--test 2 --negatives 0 --out "
    )
    assert run(command + "kept", None) == 0
    printed = capsys.readouterr().out
    read = lambda out, name: [
        json.loads(t) for t in (tmp_path / out / name).read_text().splitlines()
    ]
    texts = lambda record: tuple(
        " ".join(record[k].lower().split()) for k in ("instruction", "input", "output")
    )
    train = read("kept", "train.jsonl")
    known = {n: {*map(texts, read("kept", f"{n}.jsonl"))} for n in ("valid", "test")}
    copies = {n: sum(texts(r) in found for r in train) for n, found in known.items()}
    assert all(copies.values())
    told = manifest(tmp_path / "kept")["leakage"]
    assert told["counts"] == {"validation": copies["valid"], "test": copies["test"]}
    assert f"leakage: {copies['valid']} of {len(train)} training examples" in printed
    assert run(command + "dropped --leakage drop", None) == 0
    left = [r for r in train if texts(r) not in known["valid"] | known["test"]]
    assert read("dropped", "train.jsonl") == left
    assert 0 < len(left) < len(train)
    assert manifest(tmp_path / "dropped")["examples"]["train"] == len(left)
    for name in ("valid.jsonl", "test.jsonl", "items.jsonl"):
        assert read("dropped", name) == read("kept", name)
    message = r"the example of user u\d, target \w+, is a copy of \w+ example \d"
    assert_refused(command + "refused --leakage refuse", None, capsys, message)
    assert not [*(tmp_path / "refused").glob("*.json*")]
    assert_refused(command + "o --leakage refuse --dry-run", None, capsys, message)
    assert run(command + "o --dry-run", None) == 0
    assert f"leakage: {copies['valid']} of" in capsys.readouterr().out
    assert not (tmp_path / "o").exists()
