"""Long texts: cut as little as is enough, at the oldest side, or left out."""

import json

import numpy as np
import pytest

from goracs_jax.data.chats import Keys
from goracs_jax.data.cutting import Limit, cuts_of, fitting
from goracs_jax.data.examples import Example
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import RecordError
from goracs_jax.llm.prompts import TEMPLATES, Template, ctr_record, seqrec_record
from goracs_jax.llm.texts import Text

TITLES = ["Alien", "Brazil, a film", 'Cube "0"', "Dune: Two", "Élan\nvital", "Fargo"]


def characters(texts):
    return [len(text.text) for text in texts]


def limited(tokens, cut=True):
    """A tokenizer of characters counts the input alone."""
    write = lambda example: Text(example.record["input"])
    return Limit(tokens, write, characters, cut, "--max-length")


def cut_to(record, tokens):
    example = Example(record, "t.jsonl:1")
    (found,) = fitting([(0, example)], limited(tokens), None)
    assert found.cut == (found.example is not example)
    return found.example.record


def by_loop(shorter, count, tokens):
    """The longest of the inputs that fits, found one by one."""
    made = (shorter(k) for k in range(count))
    return next(record for record in made if len(record["input"]) <= tokens)


@pytest.mark.parametrize("tokens", range(7, 80, 3))
def test_the_oldest_titles_go_first(tokens):
    record = seqrec_record(TITLES, "Gattaca") | {"user": 7}
    shorter = lambda k: seqrec_record(TITLES[k:], "Gattaca") | {"user": 7}
    assert cut_to(record, tokens) == by_loop(shorter, len(TITLES), tokens)


@pytest.mark.parametrize("tokens", range(50, 110, 5))
@pytest.mark.parametrize("seed", range(3))
def test_two_lists_are_cut_by_age(tokens, seed):
    titles = [title for title in TITLES if "\n" not in title]
    liked = np.random.default_rng(seed).random(len(titles)) < 0.5
    history = list(zip(titles, liked.tolist(), strict=True))
    plain = lambda k: (
        ctr_record(history[k:], ("Gattaca", True)) | {"liked": liked.tolist()}
    )
    expected = by_loop(plain, len(titles), tokens)
    assert cut_to(plain(0), tokens) == expected


def test_lists_in_other_words_are_cut_as_text():
    own = Template(instruction="i", input="+ {liked} - {disliked}", output="{answer}")
    history = [("Alien", True), ("Brazil", False), ("Cube", True)]
    record = ctr_record(history, ("Dune", True), template=own) | {
        "liked": [True, False, True]
    }
    assert record["input"] == '+ "Alien", "Cube" - "Brazil"'
    assert cut_to(record, 15)["input"] == '- "Brazil"'


def test_titles_that_hold_what_parts_titles_are_not_cut():
    """Half of one would open the history: it counts as too long."""
    odd, ids = 'He said "Yes", "No"', [7, 3, 9]
    titles = seqrec_record([odd, "Brazil", "Cube"], "Dune") | {"history": ids}
    history = [(odd, True), ("Brazil", False), ("Cube", True)]
    clicks = ctr_record(history, ("Dune", True)) | {"liked": [True, False, True]}
    for record in (titles, clicks, clicks | {"liked": [True]}):
        whole = len(record["input"])
        assert cut_to(record, whole) == record
        with pytest.raises(RecordError, match="it is no longer enough to cut"):
            cut_to(record, whole - 1)
    # One that is read for what it is: the marks alone part nothing.
    plain = seqrec_record(['The "Best"', "Cube"], "Dune") | {"history": ids[:2]}
    assert cut_to(plain, 8)["input"] == '"Cube"'
    # A history of one title has nothing that could go.
    single = seqrec_record(["Heat of night"], "Dune") | {"history": [7]}
    with pytest.raises(RecordError, match="it is no longer enough to cut"):
        cut_to(single, 8)


def test_whole_words_are_left_of_a_text():
    record = {"instruction": "i", "input": "one two  three\nfour", "output": "o"}
    for tokens in range(4, 19):
        left = cut_to(record, tokens)["input"]
        words = ("four", "three\nfour", "two  three\nfour")
        assert left == max((w for w in words if len(w) <= tokens), key=len)
    assert cut_to(record, 19) == record
    # No word begins near, as in scripts without spaces.
    assert cut_to(record | {"input": "星" * 300}, 100)["input"] == "星" * 100


def test_what_cannot_be_cut_is_refused_or_left_out():
    rows = [
        seqrec_record(["Alien", "A" * 50], "Gattaca"),
        seqrec_record(["Alien", "Cube"], "Gattaca"),
        {"instruction": "i", "output": "o"},
    ]
    rows[2]["input"] = ""
    examples = [(2 * i, Example(r, f"t.jsonl:{i + 1}")) for i, r in enumerate(rows)]
    message = r"t\.jsonl:1 has 61 tokens, more than --max-length of 8: it is no longer"
    with pytest.raises(RecordError, match=message):
        list(fitting(examples, limited(8), None))
    skipped = Skipped()
    found = list(fitting(examples, limited(8), skipped))
    assert [(each.example.place, each.cut) for each in found] == [
        ("t.jsonl:2", True),
        ("t.jsonl:3", False),
    ]
    assert (skipped.rows, dict(skipped.kinds)) == ([0], {"too long": 1})
    skipped = Skipped()
    kept = list(fitting(examples, limited(8, cut=False), skipped))
    assert kept == [(examples[2][1], False)]
    assert skipped.rows == [0, 2]
    skipped.lines.seek(0)
    told = [json.loads(line) for line in skipped.lines.readlines()]
    assert [(t["place"], t["row"], t["record"]) for t in told] == [
        ("t.jsonl:1", 0, rows[0]),
        ("t.jsonl:2", 2, rows[1]),
    ]
    with pytest.raises(RecordError, match=r"cut it with --max-length or --too-long"):
        list(fitting(examples, limited(8, cut=False), None))


def said(text):
    """Messages from letters: s(ystem), u(ser), a(ssistant), t(ool), each numbered."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[x[0]], "content": x} for x in text.split()]


@pytest.mark.parametrize(
    ("messages", "left"),
    [
        ("s1 u1 a1 u2 a2 u3 a3", ["s1 u2 a2 u3 a3", "s1 u3 a3"]),
        ("u1 a1 u2 a2", ["u2 a2"]),
        ("a0 u1 a1 u2 a2", ["u1 a1 u2 a2", "u2 a2"]),  # a greeting in front
        ("u1 t1 a1 u2 u3 a2", ["u2 u3 a2"]),  # one question of two messages
        ("u1 a1 u2 a2 u3", ["u2 a2 u3"]),  # the last question has no answer
        ("s1 s2 u1 a1", []),
    ],
)
def test_chats_lose_their_oldest_turns(messages, left):
    write = lambda example: Text(" ".join(example.texts))
    cut = Limit(1, write, characters, True, "--max-length")
    many = {"messages": said(messages), "id": 7}
    for tokens in range(2, len(messages)):
        fits = [text for text in left if len(text) <= tokens]
        limit, skipped = cut._replace(tokens=tokens), Skipped()
        found = list(fitting([(0, Example(many, "t.jsonl:1"))], limit, skipped))
        if not fits:
            assert (found, skipped.rows) == ([], [0])
            continue
        ((example, cut_down),) = found
        assert example.record == many | {"messages": said(max(fits, key=len))}
        assert cut_down


def test_the_prompt_of_a_chat_is_cut_and_its_completion_is_not():
    write = lambda example: Text(" ".join(example.texts))
    limit = Limit(8, write, characters, True, "--max-length")
    record = {"talk": said("s1 u1 a1 u2"), "completion": said("a2")}
    keys = Keys({"prompt": "talk", "completion": "completion"})
    (found,) = fitting([(0, Example(record, "t.jsonl:1", keys))], limit, None)
    assert found.example.record == record | {"talk": said("s1 u2")}
    plain = Example({"prompt": "one two", "completion": "three"}, "t.jsonl:1")
    with pytest.raises(RecordError, match="it is no longer enough"):
        list(fitting([(0, plain)], limit, None))


def test_what_a_template_refuses_is_left_out():
    def write(example):
        return example.written(refuse if example.record["id"] == 1 else accept)

    def refuse(said):
        raise ValueError("no")

    accept = lambda said: Text(said.answer)
    limit = Limit(8, write, characters, True, "--max-length")
    rows = [{"messages": said("u1 a1"), "id": i} for i in range(3)]
    examples = [(i, Example(r, f"t.jsonl:{i + 1}")) for i, r in enumerate(rows)]
    bad = Skipped()
    found = fitting(examples, limit, None, bad)
    assert [each.example.record["id"] for each in found] == [0, 2]
    assert (bad.rows, dict(bad.kinds)) == ([1], {"refused by the template": 1})
    with pytest.raises(RecordError, match=r"t\.jsonl:2: no"):
        list(fitting(examples, limit, Skipped()))


def test_one_title_is_no_list():
    assert cuts_of('"Heat"').without(1) == 'Heat"'
    assert TEMPLATES["seqrec"].separator == ", "
