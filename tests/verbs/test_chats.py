"""Chats through the verbs: one place makes their tokens, and records survive."""

import json

import chats
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import tiny
from safetensors.numpy import load_file

from goracs_jax import cli
from goracs_jax.data.examples import read_examples
from goracs_jax.llm.embeddings import embed_with_decoder
from goracs_jax.llm.losses import example_losses
from goracs_jax.runs.opened import open_llm, read_pool
from goracs_jax.runs.reading import tokenize_pool


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model with a chat template, a pool of chats in ShareGPT's form, and others."""
    folder = tmp_path_factory.mktemp("chats")
    tiny.write_llm(folder / "llm", tiny.LLAMA | {"vocab_size": 320})
    for file in (folder / "llm").glob("tokenizer*"):
        file.unlink()
    chats.write_tokenizer(folder / "llm", chats.CHATML, eos_token="<|im_end|>")
    turn = lambda who, text: {"from": who, "value": text}
    pool = [
        {
            "id": i,
            "conversations": [turn("human", f"q{i % 5}"), turn("gpt", "a" * (1 + i))],
            "kept": {"as": ["it", "is"]},
        }
        for i in range(8)
    ]
    write(folder / "pool.jsonl", pool)
    one = lambda i: chats.said(("user", f"v{i}"), ("assistant", "aaa"))
    write(folder / "valid.jsonl", [{"messages": one(i)} for i in range(3)])
    asked = lambda i: chats.said(("user", f"like {i}?"), ("assistant", "YN"[i % 2]))
    words = {"Y": "Yes", "N": "No"}
    clicks = [{"user": str(i), "messages": asked(i)} for i in range(4)]
    for click in clicks:
        click["messages"][1]["content"] = words[click["messages"][1]["content"]]
    write(folder / "ctr.jsonl", clicks)
    return folder


@pytest.fixture(autouse=True)
def _there(files, monkeypatch):
    monkeypatch.chdir(files)


def test_losses_and_embeddings_are_those_of_the_same_tokens(files):
    llm = open_llm(files / "llm", None, 0)
    pool = read_pool(files / "pool.jsonl")
    answers = tokenize_pool(pool, llm, "answer")
    line = "--data pool.jsonl --model llm --out"
    assert cli.main([*f"grads {line} g.npy --losses l.npy".split()]) == 0
    expected = example_losses([llm.decoder()], answers)[:, 0]
    # float32 in other batches.
    np.testing.assert_allclose(np.load("l.npy"), expected, rtol=1e-5)
    assert cli.main([*f"embed {line} e.npy".split()]) == 0
    whole = tokenize_pool(pool, llm, "all")
    np.testing.assert_array_equal(whole.ids, answers.ids)
    expected = embed_with_decoder(llm.decoder(), whole)
    np.testing.assert_allclose(np.load("e.npy"), expected, rtol=1e-4, atol=1e-5)


def test_records_survive_into_the_coreset(files):
    line = "select --train pool.jsonl --valid valid.jsonl --model llm --budget 3"
    assert cli.main([*line.split(), "--lambda", "0", "--out", "out"]) == 0
    pool = [example.record for example in read_examples("pool.jsonl")]
    rows = np.load("out/indices.npy")
    lines = (files / "out/coreset.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [pool[row] for row in rows]
    info = json.loads((files / "out/dataset_info.json").read_text())["coreset"]
    assert info["file_name"] == "coreset.jsonl"
    assert info["tags"]["user_tag"] == "human"


def test_a_coreset_is_written_in_other_formats_where_they_are_asked_for(files, capsys):
    for name, rows in (("x", 8), ("y", 3)):
        np.save(f"{name}.npy", np.random.default_rng(rows).normal(size=(rows, 4)))
    line = "select --train-embeddings x.npy --valid-embeddings y.npy --budget 3"
    asked = f"{line} --out other --coreset-formats"
    assert cli.main([*f"{asked} parquet".split()]) == 2
    assert "are of texts: give --train beside" in capsys.readouterr().err
    assert cli.main([*f"{asked} xml --train pool.jsonl".split()]) == 2
    assert "must be of parquet and array-record" in capsys.readouterr().err
    assert not (files / "other").exists()
    both = f"{asked} parquet,array-record --train pool.jsonl"
    assert cli.main(both.split()) == 0
    chosen = (files / "other/coreset.jsonl").read_text().splitlines()
    found = pl.read_parquet("other/coreset.parquet").to_dicts()
    assert found == [json.loads(line) for line in chosen]
    assert (files / "other/coreset.array_record").stat().st_size > 0
    # Without the flag, files of an earlier run do not stay.
    assert cli.main([*f"{line} --out other --train pool.jsonl".split()]) == 0
    assert not [*(files / "other").glob("coreset.[ap]*")]


def test_long_and_bad_chats_are_cut_and_left_out(files, capsys):
    """As if they were cut and taken out by hand."""
    turns = lambda *texts: [
        {"role": ("user", "assistant")[i % 2], "content": text}
        for i, text in enumerate(texts)
    ]
    good = [{"messages": turns("q", "a" * i)} for i in range(1, 5)]
    long = {"messages": turns("old", "b" * 40, "q", "a")}
    bad = [{"messages": turns("q")}, {"messages": turns("q", " ")}]
    # It can be written, but where its first answer starts cannot be found.
    first = {"messages": [*turns("q", "a")[1:], *turns("q", "a")]}
    write(files / "all.jsonl", [bad[0], *good, bad[1], long, first])
    write(files / "hand.jsonl", [*good, {"messages": turns("q", "a")}])
    pool = read_pool(files / "hand.jsonl")
    most = max(tokenize_pool(pool, open_llm(files / "llm", None, 0)).lengths)
    line = "grads --model llm --data"
    more = f"--max-length {most} --bad-rows skip"
    assert cli.main([*f"{line} all.jsonl --out some.npy {more}".split()]) == 0
    told = capsys.readouterr().out
    assert "3 of 8 records are left out: 1 without an answer, 1 empty, 1 ref" in told
    assert f"1 of 8 texts are cut to {most} tokens" in told
    assert cli.main([*f"{line} hand.jsonl --out hand.npy".split()]) == 0
    found = np.load("some.npy")
    bad_rows = [True, *[False] * 4, True, False, True]
    np.testing.assert_array_equal(np.isnan(found), bad_rows)
    # float32 in other batches.
    expected = np.load("hand.npy")
    np.testing.assert_allclose(found[~np.isnan(found)], expected, rtol=1e-5)


def test_chats_that_show_to_be_bad_as_tokens_are_left_out(files, capsys):
    """An answer comes first, or is written otherwise once more turns follow."""
    hiding = chats.CHATML.replace(
        "message['content']",
        "(message['content'] if loop.last or message['role'] != 'assistant' else 'X')",
    )
    (files / "hiding.jinja").write_text(hiding)
    roles = {"q": "user", "a": "assistant"}
    chat = lambda turns: {"messages": chats.said(*((roles[t[0]], t) for t in turns))}
    good = [chat(["q", "a" * i]) for i in range(1, 5)]
    bad = [chat(["a", "q", "a"]), chat(["q", "a", "q", "a"])]
    write(files / "all.jsonl", [bad[0], *good[:2], bad[1], *good[2:]])
    write(files / "good.jsonl", good)
    line = "grads --model llm --template hiding.jinja --data"
    assert cli.main([*f"{line} all.jsonl --out no.npy".split()]) == 2
    assert "all.jsonl:1: the chat starts with an answer" in capsys.readouterr().err
    more = "--out some.npy --bad-rows skip"
    assert cli.main([*f"{line} all.jsonl {more}".split()]) == 0
    told = "2 of 6 records are left out: 2 refused by the template"
    assert told in capsys.readouterr().out
    assert cli.main([*f"{line} good.jsonl --out good.npy".split()]) == 0
    found = np.load("some.npy")
    bad_rows = [True, False, False, True, False, False]
    np.testing.assert_array_equal(np.isnan(found), bad_rows)
    np.testing.assert_array_equal(found[~np.isnan(found)], np.load("good.npy"))
    # Where everything is scored they are as good as others.
    more = "--out whole.npy --bad-rows skip --labels all"
    assert cli.main([*f"{line} all.jsonl {more}".split()]) == 0
    assert np.isfinite(np.load("whole.npy")).all()


def test_chats_of_other_keys_are_read_by_all_verbs(files):
    one = lambda i: {"talk": chats.said(("user", f"q{i}"), ("assistant", "a"))}
    for name in ("t", "v"):
        write(files / f"{name}.jsonl", [one(i) for i in range(4)])
    named = "--columns messages=talk"
    line = f"select --train t.jsonl --valid v.jsonl --model llm --budget 2 {named}"
    assert cli.main([*line.split(), "--lambda", "0", "--out", "named"]) == 0
    info = json.loads((files / "named/dataset_info.json").read_text())["coreset"]
    assert info["columns"] == {"messages": "talk"}
    line = "finetune --data named/coreset.jsonl --valid v.jsonl --model llm --steps 30"
    assert cli.main([*f"{line} {named} --out o --dry-run".split()]) == 0


def test_clicks_are_judged_behind_the_prompt_of_the_chat(files):
    line = "evaluate --task ctr --test ctr.jsonl --model llm --out m.json"
    assert cli.main(line.split()) == 0
    rows = (files / "m.predictions.jsonl").read_text().splitlines()
    found = [json.loads(row)["margin"] for row in rows]
    llm = open_llm(files / "llm", None, 0)
    decoder, tokenizer = llm.load()
    yes, no = tokenizer.convert_tokens_to_ids(["Yes", "No"])
    for i, margin in enumerate(found):
        asked = chats.said(("user", f"like {i}?"))
        prompt = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_dict=False
        )
        logits = decoder(jnp.asarray([prompt]))[0, -1]
        assert margin == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)
    assert len({*found}) == 4  # the prompts matter


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--template none.jinja", "none.jinja does not exist"),
        ("--template alpaca --columns messages=id", "'id' must be a list of messages"),
        ("--columns id", "--columns must be NAME=KEY"),
    ],
)
def test_mistakes_are_one_line_before_the_model_is_read(more, named, capsys):
    line = f"grads --data pool.jsonl --model llm --out no.npy {more}"
    assert cli.main(line.split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert named in said


def test_training_and_trials_read_what_is_cut_and_left_out(files, capsys):
    """The adapter is that of the rows by hand; a trial chooses among them."""
    roles = ("user", "assistant") * 2
    turns = lambda *texts: chats.said(*zip(roles, texts, strict=False))
    answers = ("Yes", "No") * 3
    good = [{"messages": turns(f"more of {i}?", a)} for i, a in enumerate(answers)]
    long = {"messages": turns("old", "b" * 60, "q", "No")}
    write(files / "mixed.jsonl", [{"messages": turns("q")}, *good, long])
    write(files / "clean.jsonl", [*good, {"messages": turns("q", "No")}])
    pool = read_pool(files / "clean.jsonl")
    most = max(tokenize_pool(pool, open_llm(files / "llm", None, 0)).lengths)
    more = f"--max-length {most} --bad-rows skip --model llm --valid valid.jsonl"
    training = "--steps 2 --batch-size 4 --warmup-steps 1"
    found = {}
    for name in ("mixed", "clean"):
        line = f"finetune --data {name}.jsonl {more} {training} --out {name}"
        assert cli.main(line.split()) == 0
        found[name] = load_file(files / name / "adapter_model.safetensors")
    told = capsys.readouterr().out
    assert "1 of 8 records are left out: 1 without an answer" in told
    assert f"1 of 8 texts are cut to {most} tokens" in told
    assert found["mixed"].keys() == found["clean"].keys()
    for key, expected in found["clean"].items():
        # Rows are keyed by their content, so that all is the same but for batches.
        np.testing.assert_allclose(found["mixed"][key], expected, atol=1e-6)
    line = (
        f"compare --task ctr --train mixed.jsonl --test ctr.jsonl {more} {training} "
        "--methods random --budgets 7 --seeds 1 --out trials"
    )
    assert cli.main(line.split()) == 0
    assert "1 of 8 records are left out" in capsys.readouterr().out
    (chosen,) = (files / "trials/cells").glob("*/selection/coreset.jsonl")
    expected, coreset = (read_examples(path) for path in ("clean.jsonl", chosen))
    assert [e.record for e in coreset] == [e.record for e in expected]
