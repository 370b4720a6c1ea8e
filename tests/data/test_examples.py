import json

import pytest

from goracs_jax.data.examples import check_duplicates, read_examples, write_jsonl
from goracs_jax.errors import InputError

RECORDS = [
    {"instruction": "Add.", "input": "1 2", "output": "3", "id": 7},
    {"instruction": "Größe?", "output": "groß", "tags": ["x"]},
]
LINE = json.dumps(RECORDS[0])


def test_jsonl_and_array_are_the_same(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", RECORDS)
    (tmp_path / "a.json").write_text(json.dumps(RECORDS, indent=2), encoding="utf-8")
    lines, array = (read_examples(tmp_path / name) for name in ("a.jsonl", "a.json"))
    assert [e.record for e in lines] == [e.record for e in array] == RECORDS
    assert lines[1].place.endswith("a.jsonl:2")
    assert array[1].place.endswith("a.json, record 2")


def test_blank_lines_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + LINE.encode() + b"\n\n" + LINE.encode() + b"\r\n"
    )
    assert [e.place[-2:] for e in read_examples(path)] == [":1", ":3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.jsonl is empty, or has nothing below its header: give a file"),
        (" \n\n", r"a\.jsonl is empty"),
        ("[]", r"a\.jsonl is empty"),
        (f"{LINE}\n{LINE[:-9]}", r"a\.jsonl:2: not valid JSON.*last line is cut off"),
        (
            f"{LINE[:-9]}\n{LINE}",
            r"a\.jsonl:1: not valid JSON.*one complete record on every line",
        ),
        (f"[{LINE},\n{LINE[:-9]}", r"a\.jsonl:2: not valid JSON.*cut\s+off"),
        ('{"instruction": "i"}', r"a\.jsonl:1: key 'output' is missing"),
        ('[{"output": "o"}]', r"a\.jsonl, record 1: key 'instruction' is missing"),
        ('{"instruction": "i", "output": 3}', r":1: 'output' must be a string, got 3"),
        ('{"instruction": "i", "output": null}', r"None: write it, or leave the rec"),
        ('{"instruction": "i", "output": " "}', r":1: output is empty"),
        (
            '{"instruction": "", "output": "o"}',
            r":1: instruction and input are both empty",
        ),
        ("7", r":1: not an object but int"),
        (f'{{"a": {"[" * 10**5}', r":1: not valid JSON \(maximum recursion depth"),
        (f"[{'[' * 10**5}", r":1: not valid JSON \(maximum recursion depth"),
        (f'{{"a": {"9" * 5000}}}', r":1: not valid JSON \(Exceeds the limit .* digits"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_examples(path)


def test_wrong_encoding(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        (LINE + "\n").encode() + '{"instruction": "Größe"'.encode("latin1")
    )
    with pytest.raises(
        InputError, match=r"a\.jsonl:2: byte 0xf6 is not UTF-8: convert"
    ):
        read_examples(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"is a folder"):
        read_examples(tmp_path)


def test_duplicates(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [RECORDS[0], RECORDS[1], RECORDS[0] | {"id": 8}])
    with pytest.raises(
        InputError, match=r":3 repeats the texts of .*:1: .*--duplicates keep"
    ):
        check_duplicates(read_examples(path))
    check_duplicates(read_examples(path)[:2])
