"""Records that are left out: counted, kept in a file, and not in memory."""

import json
import tracemalloc
from collections import Counter

import pytest

from goracs_jax.data.examples import read_examples
from goracs_jax.data.skipped import Skipped, counts_of, save_skipped
from goracs_jax.errors import InputError, RecordError

GOOD = {"instruction": "i", "input": "a", "output": "o", "id": 7}
text = lambda **changes: json.dumps(GOOD | changes).encode()
DEEP = json.loads("[" * 70 + "]" * 70)
#: Lines that cannot be used, and what is wrong with each.
BAD = [
    (b'{"instruction": "i", "out', "unreadable"),
    (b"no json at all", "unreadable"),
    (b'{"instruction": "\xff", "output": "o"}', "unreadable"),
    (b"[1, 2]", "no object"),
    (b'"text"', "no object"),
    (b"null", "no object"),
    (b'{"input": "a", "output": "o"}', "without a key"),
    (b'{"instruction": "i"}', "without a key"),
    (text(output=3), "of a wrong type"),
    (text(input=["a"]), "of a wrong type"),
    (text(output="\ud83d"), "no text"),
    (text(note={"a": ["\udc00"]}), "no text"),
    (text(input="a\0b"), "no text"),
    (text(note=DEEP), "nested too deeply"),
    (text(output=""), "empty"),
    (text(output=" \u200b\n"), "empty"),
    (text(instruction=" ", input=""), "empty"),
    (text(input="x" * 1_000_000), "too long"),
]


def write(path, lines):
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("first", [False, True])
def test_every_kind_is_left_out_by_itself(tmp_path, first):
    """Wherever a bad line is, the other rows are read, under the numbers of all."""
    for line, kind in BAD:
        good = [text(id=i) for i in range(3)]
        good.insert(0 if first else 2, line)
        good.append(b"broken, too")
        path = write(tmp_path / "a.jsonl", good)
        skipped = Skipped()
        found = read_examples(path, skipped)
        assert [e.record["id"] for e in found] == [0, 1, 2], line[:50]
        assert skipped.rows == [0 if first else 2, 4]
        assert skipped.kinds == Counter([kind, "unreadable"])
        with pytest.raises(RecordError) as error:
            read_examples(path)
        assert error.value.kind == kind


def test_the_file_of_what_was_left_out(tmp_path):
    lines = [part for bad, _ in BAD for part in (text(), bad)]
    path, out = write(tmp_path / "a.jsonl", lines), tmp_path / "skipped.jsonl"
    skipped = Skipped()
    assert len(read_examples(path, skipped)) == len(BAD)
    assert skipped.rows == list(range(1, 2 * len(BAD), 2))
    save_skipped(out, [Skipped(), skipped])
    told = lines_of(out)
    assert [t["row"] for t in told] == skipped.rows
    assert [t["place"] for t in told] == [f"{path}:{row + 1}" for row in skipped.rows]
    for each, (line, kind) in zip(told, BAD, strict=True):
        assert each["reason"].startswith(each["place"])
        shown = line.decode(errors="backslashreplace")
        expected = shown if kind == "unreadable" else json.loads(line)
        assert each["record"] == expected
    assert counts_of([skipped, skipped])["unreadable"] == 6
    save_skipped(out, [Skipped()])
    assert not out.exists()


def test_csv_and_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('instruction,input,output\ni,a,o\ni,"a\ni,b\nj,,o\n')
    skipped = Skipped()
    assert [e.record["instruction"] for e in read_examples(path, skipped)] == ["i", "j"]
    assert skipped.rows == [1, 2]
    skipped = Skipped()
    records = [GOOD, {"instruction": "i"}, 3, GOOD | {"x": {1}}, GOOD]
    assert len(read_examples(records, skipped)) == 2
    assert skipped.rows == [1, 2, 3]


def test_nothing_is_left(tmp_path):
    path = write(tmp_path / "a.jsonl", [text(output="")] * 2)
    message = r"a\.jsonl has no record that can be used \(2 empty\): leave out --bad"
    with pytest.raises(InputError, match=message):
        read_examples(path, Skipped())


def test_memory_does_not_hold_what_is_left_out(tmp_path):
    long = text(input="x" * 1_000_000)
    path = write(tmp_path / "a.jsonl", [text(), *[long] * 30])
    skipped = Skipped()
    tracemalloc.start()
    try:
        assert len(read_examples(path, skipped)) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(skipped.rows) == 30
    # A record exists a few times: as bytes, text, value and line of the other file.
    assert peak < 12 * len(long)
