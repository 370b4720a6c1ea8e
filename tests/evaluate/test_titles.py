"""Titles with quotation marks inside: when generation ends, and what is grounded."""

import json

import numpy as np
import pytest
import tiny

from goracs_jax.data.examples import Example
from goracs_jax.evaluate.catalogue import read_candidates, read_catalogue
from goracs_jax.evaluate.generation import ending
from goracs_jax.evaluate.grounding import title_in
from goracs_jax.models.tokenizer import load_tokenizer

TITLES = ['12" oak', "12 elm", 'The "fir" yew', "ash", "12", '"Heroes"', 'The 12"']


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "items.jsonl"
    rows = [{"item_id": i, "title": title} for i, title in enumerate(TITLES)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_catalogue(path)


def candidates(catalogue, before, after):
    """One example for each title as the target, all others negatives."""
    examples = []
    for i, title in enumerate(TITLES):
        others = [j for j in range(len(TITLES)) if j != i]
        record = {"output": before + title + after, "target": i, "negatives": others}
        examples.append(Example(record, f"line {i + 1}"))
    return read_candidates(examples, catalogue)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"', '"'),
        ("", ""),
        ('Next: "', '".'),
        ("«", "»"),
        ("Next: ", "."),
        (' "', '" '),
    ],
)
@pytest.mark.parametrize("follows", ["", ' or "ash"', "\n"])
def test_every_title_survives(catalogue, before, after, follows):
    """What a model writes that has learnt the outputs, and what it may write behind."""
    found = candidates(catalogue, before, after)
    follows = follows if after else "\n"  # nothing else closes the title
    for title, around in zip(TITLES, found.around, strict=True):
        text = before + title + after + follows
        assert title_in(text, around, set(TITLES)) == title
        assert around == (before, after)


def test_texts_that_are_no_title_end_at_the_closing_mark():
    marks, titles = ('"', '"'), set(TITLES)
    assert title_in('"birch" or "ash"', marks, titles) == "birch"
    assert title_in('"birch', marks, titles) == "birch"
    assert title_in("", marks, titles) == ""
    assert title_in('"', marks, titles) == ""


def test_generation_goes_on_to_the_last_mark_of_the_longest_answer(catalogue, tmp_path):
    """Plain loop over the tokens of each answer: none ends before its last token."""
    tokenizer = load_tokenizer(tiny.write_llm(tmp_path / "llm"))
    found = candidates(catalogue, '"', '"')
    assert found.quotes == 2 + 2  # of the marks around a title and of "Heroes"
    ends = ending(tokenizer, 300, found.quotes)
    for answers in found.answers:
        ids = tokenizer(answers[0])["input_ids"]
        before_last = np.cumsum([int(ends.weights[i]) for i in ids])[:-1]
        assert (before_last < ends.limit).all()
        assert ends.weights[tokenizer.eos_token_id] == ends.limit
    assert candidates(catalogue, "", "").quotes == 0
