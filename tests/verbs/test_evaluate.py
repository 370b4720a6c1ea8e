"""`goracs evaluate` on a tiny model: what it leaves, resumes, says and refuses."""

import json
import shutil

import numpy as np
import oracles
import pytest
import tiny
from commands import assert_refused, edit, run
from full_disk import assert_nothing_is_lost
from sklearn.metrics import log_loss, roc_auc_score

from goracs_jax.evaluate.calibration import fit

TREES = ["ash", "elm", "fir", "oak", "yew", "box", "tea", "bay", "elm", "gum"]
SEQREC = (
    "evaluate --task seqrec --test test.jsonl --model llm --adapter adapter "
    "--max-new-tokens 6 --resamples 50 --out metrics.json"
)
CTR = "evaluate --task ctr --test ctr.jsonl --model llm --resamples 50 --out ctr.json"
SIZE = 6


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A model, an adapter, two test files, and what the verb makes of the first."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny.write_llm(folder / "llm")
    tiny.write_adapter(folder / "adapter")
    write(
        folder / "items.jsonl",
        [{"item_id": i + 10, "title": title} for i, title in enumerate(TREES)],
    )
    rng = np.random.default_rng(0)
    records, likes = [], []
    for i in range(SIZE):
        target, *others = rng.permutation(len(TREES)).tolist()
        text = {"instruction": "Next?", "input": f"{TREES[others[-1]]}{i}"}
        ids = {"target": str(target + 10), "negatives": [j + 10 for j in others[:5]]}
        records.append(text | {"output": f'"{TREES[target]}"', "user": i // 2} | ids)
        likes.append(text | {"output": ["Yes", "No", "No"][i % 3]})
    write(folder / "test.jsonl", records)
    write(folder / "ctr.jsonl", likes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(SEQREC, None) == 0
        (folder / "first").mkdir()
        for name in ("metrics.json", "metrics.predictions.jsonl"):
            shutil.copy(folder / name, folder / "first")
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_those_of_the_predictions(shared):
    found = json.loads((shared / "metrics.json").read_text())
    predictions = lines(shared / "metrics.predictions.jsonl")
    title_of = {str(i + 10): title for i, title in enumerate(TREES)}
    assert found["sizes"] == {
        "examples": SIZE, "users": 3, "items": 10, "titles": 9, "candidates": 6
    }  # fmt: skip
    assert not (shared / "metrics.json.work").exists()
    hits = dict.fromkeys(("", "likelihood ", "total likelihood "), 0)
    likely = [p["log_likelihoods"][0] for p in predictions]
    per_token = [p["log_likelihoods"][0] / p["tokens"][0] for p in predictions]
    for name, values in (("", likely), (" per token", per_token)):
        metric = found["metrics"][f"log likelihood{name}"]
        assert metric["value"] == pytest.approx(sum(values) / SIZE)
    for record, test in zip(predictions, lines(shared / "test.jsonl"), strict=True):
        assert record["candidates"] == list(
            map(str, [test["target"], *test["negatives"]])
        )
        titles = [title_of[i] for i in record["candidates"]]
        total, tokens = map(np.array, (record["log_likelihoods"], record["tokens"]))
        for prefix, name, distances in [
            ("", "rank", record["distances"]),
            ("likelihood ", "likelihood_rank", -total / tokens),
            ("total likelihood ", "total_likelihood_rank", -total),
        ]:
            assert record[name] == oracles.rank(distances, titles, record["title"])
            hits[prefix] += record[name] < 1
        assert record["rank"] <= record["full_rank"] < 10
        # Six candidates: all of them are among the first ten, the likeliest first.
        best = np.argsort(-total, kind="stable")
        assert record["top"] == [record["candidates"][k] for k in best]
    ever = {item for record in predictions for item in record["top"]}
    assert found["diagnostics"] == {"exposure": {"coverage@10": len(ever) / 10}}
    for prefix, count in hits.items():
        metric = found["metrics"][f"{prefix}HR@1"]
        assert metric["value"] == pytest.approx(count / SIZE)
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert found["metrics"]["full HR@10"]["value"] == 1  # there are ten items


def test_a_full_disk(files, capsys):
    assert run(CTR, None) == 0
    resampled = CTR.replace("--resamples 50", "--resamples 60")
    assert_nothing_is_lost(resampled, 1500, files, capsys)


def test_the_right_title_is_as_likely_without_its_rivals(files):
    assert run(SEQREC + " --rank-by generation --out alone.json", None) == 0
    one, both = (
        json.loads((files / name).read_text())
        for name in ("alone.json", "metrics.json")
    )
    # What a stopped run left of one is not taken for the other's.
    stages = one["inputs"]["stages"], both["inputs"]["stages"]
    assert stages[0]["likelihood"] != stages[1]["likelihood"]
    predictions = lines(files / "alone.predictions.jsonl")
    assert [len(p["log_likelihoods"]) for p in predictions] == [1] * SIZE
    alone, all_ = one["metrics"], both["metrics"]
    # The same sums over other shapes: float32 rounds at 6e-8 of a logit, of ten or so.
    assert alone["log likelihood"] == pytest.approx(all_["log likelihood"], abs=1e-5)
    by_likelihood = {name for name in all_ if "likelihood " in name and "@" in name}
    assert "likelihood HR@10" in by_likelihood
    assert alone.keys() == all_.keys() - by_likelihood
    assert alone["HR@10"] == all_["HR@10"]


def test_a_second_run_computes_nothing(files, monkeypatch, capsys):
    monkeypatch.setattr("goracs_jax.runs.opened.load_decoder", None)
    assert run(SEQREC, None) == 0
    assert "already done" in capsys.readouterr().out
    assert run(SEQREC + " --dry-run", None) == 0
    (files / "metrics.predictions.jsonl").unlink()
    monkeypatch.undo()
    monkeypatch.chdir(files)
    assert run(SEQREC + " --dry-run", None) == 0
    assert "likelihood: to do" in capsys.readouterr().out


def test_metrics_under_other_names_are_made_anew(files, capsys):
    record = json.loads((files / "metrics.json").read_text())
    del record["inputs"]["judgement"]  # as up to version 0.5.0
    (files / "metrics.json").write_text(json.dumps(record))
    assert run(SEQREC + " --dry-run", None) == 0
    assert "likelihood: to do" in capsys.readouterr().out


def test_a_run_goes_on_where_it_was_stopped(files, monkeypatch):
    for name in ("metrics.json", "metrics.predictions.jsonl"):
        (files / name).unlink()
    with monkeypatch.context() as patch:

        def stop(*_, **__):
            raise KeyboardInterrupt

        patch.setattr("goracs_jax.evaluate.seqrec.answer_likelihoods", stop)
        assert run(SEQREC, None) == 130
    assert not (files / "metrics.json").exists()
    monkeypatch.setattr("goracs_jax.evaluate.seqrec.generate", None)  # it is kept
    assert run(SEQREC, None) == 0
    name = "metrics.predictions.jsonl"
    assert (files / name).read_bytes() == (files / "first" / name).read_bytes()
    metrics = [
        json.loads((folder / "metrics.json").read_text())["metrics"]
        for folder in (files, files / "first")
    ]
    assert metrics[0] == metrics[1]


def test_clicks_of_the_model_itself(files, capsys):
    assert run(CTR, None) == 0
    printed = capsys.readouterr().out
    assert "without fine-tuning" in printed
    found = json.loads((files / "ctr.json").read_text())
    predictions = lines(files / "ctr.predictions.jsonl")
    labels = [record["label"] == "Yes" for record in predictions]
    assert labels == [True, False, False] * 2
    expected = roc_auc_score(labels, [record["score"] for record in predictions])
    assert found["metrics"]["AUC"]["value"] == pytest.approx(expected)
    scores = [record["score"] for record in predictions]
    likely = found["metrics"]["log likelihood"]["value"]
    assert likely == pytest.approx(-log_loss(labels, scores))
    margins = np.array([record["margin"] for record in predictions])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-margins)))
    assert found["sizes"] == {"examples": SIZE, "users": SIZE, "Yes": 2, "No": 4}
    calibration = found["diagnostics"]["calibration"]
    assert calibration["margin_sd"] == pytest.approx(margins.std())
    # Users are examples here, and their numbers are in the order of their names.
    (even, odd) = calibration["fits"]
    a = np.where(np.arange(SIZE) % 2, odd["a"], even["a"])
    b = np.where(np.arange(SIZE) % 2, odd["b"], even["b"])
    z = [record["calibrated_margin"] for record in predictions]
    np.testing.assert_allclose(z, a * margins + b)
    own = np.where(labels, 1, -1) * z
    likely = found["metrics"]["calibrated log likelihood"]["value"]
    assert likely == pytest.approx(-np.log1p(np.exp(-own)).mean())


def test_calibration_by_other_examples(files, capsys):
    other = [json.loads(t) for t in (files / "ctr.jsonl").read_text().splitlines()]
    for i, record in enumerate(other):
        record["input"] += "oak"
        record["output"] = "Yes" if i < 4 else "No"
    write(files / "target.jsonl", other)
    command = CTR + " --calibrate-on target.jsonl"
    assert run(command + " --dry-run", None) == 0
    assert "target margins: to do" in capsys.readouterr().out
    assert run(command, None) == 0
    found = json.loads((files / "ctr.json").read_text())
    (fitted,) = found["diagnostics"]["calibration"]["fits"]
    # The margins of the target, as if it were the test file.
    swapped = "evaluate --task ctr --test target.jsonl --model llm --out other.json"
    assert run(swapped, None) == 0
    known = lines(files / "other.predictions.jsonl")
    z = np.array([record["margin"] for record in known])
    expected = fit(z.astype(np.float32), np.arange(SIZE) < 4)
    assert (fitted["a"], fitted["b"]) == pytest.approx(expected)
    for record in lines(files / "ctr.predictions.jsonl"):
        z = expected.a * record["margin"] + expected.b
        assert record["calibrated_margin"] == pytest.approx(z)
    assert run(command, None) == 0
    assert "already done" in capsys.readouterr().out
    # The cross-fitted result is another one.
    assert run(CTR + " --dry-run", None) == 0
    assert "already done" not in capsys.readouterr().out


def test_the_long_tail_needs_counts_of_interactions(files, capsys):
    assert run(SEQREC + " --dry-run", None) == 0
    items = lines(files / "items.jsonl")
    # Item 10 has 8 of 11 interactions, so the head needs item 11 as well.
    for i, record in enumerate(items):
        record["interactions"] = {0: 8, 1: 2, 2: 1}.get(i, 0)
    write(files / "items.jsonl", items)
    assert run(SEQREC + " --rank-by likelihood --out tail.json", None) == 0
    found = json.loads((files / "tail.json").read_text())
    predictions = lines(files / "tail.predictions.jsonl")
    shares = [
        sum(item not in ("10", "11") for item in record["top"]) / len(record["top"])
        for record in predictions
    ]
    assert found["metrics"]["long tail@10"]["value"] == pytest.approx(np.mean(shares))
    assert found["diagnostics"]["exposure"]["long_tail_items"] == 8
    assert "long tail is not known" not in capsys.readouterr().out


def test_generation_covers_the_catalogue_by_the_nearest_titles(files, capsys):
    assert run(SEQREC + " --rank-by generation --out near.json", None) == 0
    assert "the long tail is not known: items.jsonl has no" in capsys.readouterr().out
    predictions = lines(files / "near.predictions.jsonl")
    title_of = {str(i + 10): title for i, title in enumerate(TREES)}
    for record in predictions:
        assert title_of[record["top"][0]] == record["nearest"]
        assert sorted(record["top"]) == sorted(title_of)


def untrained(files):
    shutil.rmtree(files / "adapter")
    tiny.write_adapter(files / "adapter", scale=0.0)


def replaced(name, old, new):
    return lambda files: edit(files / name, lambda text: text.replace(old, new, 1))


MISTAKES = {
    "untrained": (untrained, SEQREC, r"every lora_B is zero"),
    "no items": (
        lambda f: (f / "items.jsonl").unlink(),
        SEQREC,
        r"items\.jsonl does not exist: give the titles with --items",
    ),
    "unknown item": (
        replaced("items.jsonl", "10", "99"),
        SEQREC,
        r"test\.jsonl:\d: item '10' is not among the items",
    ),
    "no negatives": (
        replaced("test.jsonl", "negatives", "others"),
        SEQREC,
        r"test\.jsonl:1: seqrec needs target .* goracs prepare",
    ),
    "repeated item": (
        lambda f: edit(f / "items.jsonl", lambda text: text + text.splitlines()[0]),
        SEQREC,
        r"items\.jsonl:11: item_id 10 is repeated",
    ),
    "title of nothing": (
        replaced("items.jsonl", "elm", "\u200b\u3164"),
        SEQREC,
        r"items\.jsonl:2: the title is empty",
    ),
    "title of a megabyte": (
        replaced("items.jsonl", "elm", "e" * 10**6),
        SEQREC,
        r"items\.jsonl:2: the title has 1,000,000 characters, more than 500,000",
    ),
    "no room": (
        lambda f: None,
        SEQREC.replace("6", "250", 1),
        r"test\.jsonl:1 has \d+ tokens; with 250 new ones .* context of 256",
    ),
    "one class": (
        lambda f: edit(f / "ctr.jsonl", lambda t: t.replace("Yes", "No")),
        CTR,
        r"all 6 test examples are No",
    ),
    "calibrated titles": (
        lambda f: None,
        SEQREC + " --calibrate-on ctr.jsonl",
        r"--calibrate-on is for --task ctr: leave it out",
    ),
    "calibrated by itself": (
        lambda f: None,
        CTR + " --calibrate-on ctr.jsonl",
        r"ctr\.jsonl:1 is in --calibrate-on, too \(ctr\.jsonl:1\)",
    ),
    "not clicks": (lambda f: None, CTR.replace("ctr.j", "test.j", 1), r"Yes or No"),
    "no file": (lambda f: None, CTR + ".npy", r"ends in \.json, got ctr\.json\.npy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(files, capsys, name):
    spoil, command, message = MISTAKES[name]
    spoil(files)
    assert_refused(command, None, capsys, message)
