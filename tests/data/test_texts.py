import json

import pytest

from goracs_jax.data.examples import read_examples, read_records
from goracs_jax.data.texts import MOST_CHARACTERS, MOST_LEVELS, is_blank
from goracs_jax.errors import InputError

GOOD = {"instruction": "i", "input": "", "output": "o"}


def lists(levels):
    return "[" * levels + "]" * levels


#: What stands in a file in place of a text, with the message.
BAD = {
    "half of a pair": (r'"a\ud83d"', "half of a surrogate pair, U.D83D, is no text"),
    "the other half": (r'"\ude00a"', "half of a surrogate pair, U.DE00, is no text"),
    "halves in the wrong order": (r'"\ude00\ud83d"', "half of a surrogate pair"),
    "NUL": (r'"a\u0000b"', "the character NUL is no text: take it out"),
    "deep": (f'"a", "k": {lists(MOST_LEVELS + 2)}', f"deeper than {MOST_LEVELS}"),
    "deeper": (f'"a", "k": {lists(900)}', f"deeper than {MOST_LEVELS} levels"),
    "deepest": (f'"a", "k": {lists(99999)}', "not valid JSON"),
    "digits": (f'"a", "k": {"9" * 5000}', "not valid JSON"),
    "without end": ('"a", "k": 1e999', "'k': inf is no number of JSON: write null"),
    "no number": ('"a", "k": [{"l": NaN}]', "'k': nan is no number of JSON"),
    "in a list": (r'"a", "k": [["\ud83d"]]', "'k': half of a surrogate pair"),
    "in a key": (r'"a", "\ud83d": 1', "half of a surrogate pair"),
    "in an inner key": (r'"a", "k": {"\u0000": 1}', "'k': the character NUL"),
}


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_written_is_named_with_its_place(tmp_path, name, key):
    text, message = BAD[name]
    rest = {k: v for k, v in GOOD.items() if k != key}
    line = f'{{"{key}": {text}, {json.dumps(rest)[1:]}'
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(InputError, match=rf"t\.jsonl:2: .*{message}"):
        read_records(path)
    path = tmp_path / "t.json"
    path.write_text(f"[{json.dumps(GOOD)}, {line}]")
    with pytest.raises(InputError, match=message):
        read_examples(path)


#: Unicode's characters that show nothing: Zs, Zl, Zp, Cc and Cf, fillers of Hangul,
#: selectors of variants, a joiner, the blank of Braille and a tag.
UNSEEN = [
    " ",
    "\n\t",
    "\u00a0",
    "\u2003",
    "\u2028",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\x1f",
    "\u3164",
    "\u115f\uffa0",
    "\ufe0f",
    "\u034f",
    "\u2800",
    "\U000e0100",
]


@pytest.mark.parametrize("text", ["", *UNSEEN, "".join(UNSEEN)])
def test_texts_that_show_nothing(tmp_path, text):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(GOOD | {"output": text}))
    with pytest.raises(InputError, match=r"t\.jsonl:1: output is empty"):
        read_examples(path)
    path.write_text(json.dumps(GOOD | {"instruction": text, "input": text}))
    with pytest.raises(InputError, match=r"t\.jsonl:1: instruction and input are both"):
        read_examples(path)


@pytest.mark.parametrize(
    "text",
    ["0", ".", "\u5b57", "\U0001f600", "\u2764\ufe0f", "\u2801", "\u200b\u0301a"],
)
def test_texts_that_show_something(text):
    assert not is_blank(text)


@pytest.mark.parametrize("key", GOOD)
def test_a_megabyte_in_one_record(tmp_path, key):
    path = tmp_path / "t.jsonl"
    texts = {"longest": "a" * MOST_CHARACTERS, "megabyte": "a " * 500_000}
    path.write_text(json.dumps(GOOD | {key: texts["longest"]}))
    assert len(read_examples(path)[0].record[key]) == MOST_CHARACTERS
    path.write_text(
        json.dumps(GOOD) + "\n" + json.dumps(GOOD | {key: texts["megabyte"]})
    )
    message = rf"t\.jsonl:2: '{key}' has 1,000,000 characters, more than 500,000: cut"
    with pytest.raises(InputError, match=message):
        read_examples(path)


def test_what_looks_bad_and_is_not(tmp_path):
    """A pair of surrogates, the letters of an escape, and lists side by side."""
    odd = {"k": [[i] for i in range(500)], "m": {"a": {"b": [{}]}}, "n": None}
    record = GOOD | odd | {"instruction": "\U0001f600 \\u0000 \\ud83d"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(record))
    assert read_examples(path)[0].record == record
