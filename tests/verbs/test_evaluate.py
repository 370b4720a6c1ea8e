"""`goracs evaluate` on a tiny model: what it leaves, resumes, says and refuses."""

import json
import shutil

import numpy as np
import oracles
import pytest
import tiny
from commands import assert_refused, edit, run
from sklearn.metrics import log_loss, roc_auc_score

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
    likely = [p["log_likelihoods"][0] / p["tokens"][0] for p in predictions]
    metric = found["metrics"]["log likelihood"]
    assert metric["value"] == pytest.approx(sum(likely) / SIZE)
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
    for prefix, count in hits.items():
        metric = found["metrics"][f"{prefix}HR@1"]
        assert metric["value"] == pytest.approx(count / SIZE)
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert found["metrics"]["full HR@10"]["value"] == 1  # there are ten items


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
    by_likelihood = {name for name in all_ if "likelihood " in name}
    assert "likelihood HR@10" in by_likelihood
    assert alone.keys() == all_.keys() - by_likelihood
    assert alone["HR@10"] == all_["HR@10"]


def test_a_second_run_computes_nothing(files, monkeypatch, capsys):
    monkeypatch.setattr("goracs_jax.runs.opened.load_decoder", None)
    assert run(SEQREC, None) == 0
    assert "already done" in capsys.readouterr().out
    assert run(SEQREC + " --dry-run", None) == 0
    (files / "metrics.predictions.jsonl").unlink()
    assert run(SEQREC + " --dry-run", None) == 0
    assert "likelihood: to do" in capsys.readouterr().out


def test_metrics_of_version_0_5_0_are_known(files, capsys):
    record = json.loads((files / "metrics.json").read_text())
    for identity in record["inputs"]["stages"].values():
        assert identity.pop("revision") == 1
        identity["goracs_jax"] = "0.5.0"
    (files / "metrics.json").write_text(json.dumps(record))
    assert run(SEQREC, None) == 0
    assert "already done" in capsys.readouterr().out
    record["inputs"]["stages"]["likelihood"]["goracs_jax"] = "0.4.0"
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
    assert found["sizes"] == {"examples": SIZE, "users": SIZE, "Yes": 2, "No": 4}


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
    "not clicks": (lambda f: None, CTR.replace("ctr.j", "test.j", 1), r"Yes or No"),
    "no file": (lambda f: None, CTR + ".npy", r"ends in \.json, got ctr\.json\.npy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(files, capsys, name):
    spoil, command, message = MISTAKES[name]
    spoil(files)
    assert_refused(command, None, capsys, message)
