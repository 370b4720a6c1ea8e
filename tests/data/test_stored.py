"""Examples on the disk are those of the file, and memory has hardly any of them."""

import errno
import gc
import json
import os
import tracemalloc

import numpy as np
import pytest

from goracs_jax.data.chats import Keys
from goracs_jax.data.examples import Example, each_example, read_examples
from goracs_jax.data.stored import Places, Some, Stored
from goracs_jax.errors import InputError

RECORDS = [
    {"instruction": "i", "input": None, "output": "o"},
    {"instruction": "i\n\u2028é", "output": "\U0001f600", "id": 2**70, "x": [0.1, {}]},
    {"instruction": '"\\', "output": "\x1f.", "": {"a": None}, "n": -0.0},
]


def test_they_are_read_as_they_were(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS)))
    for source, columns in ((path, None), (RECORDS, ["output=instruction"])):
        plain = read_examples(source, columns=columns)
        found = Stored(each_example(source, columns=columns))
        assert list(found) == plain
        assert found[0].keys == Keys.parse(columns)
        assert [found[i] for i in (-1, 0)] == [plain[-1], plain[0]]
        assert found[1:] == plain[1:]
        assert list(Some(found, np.array([2, 0]))) == [plain[2], plain[0]]
        assert list(Places(found)) == [each.place for each in plain]
        for view in (found, Places(found), Some(found, np.arange(3))):
            assert len(view) == 3
            with pytest.raises(IndexError):
                view[3]


def made(count, size):
    text = lambda i: {"instruction": f"{i} " + "x" * size, "output": "o"}
    return (Example(text(i), f"t.jsonl:{i}") for i in range(count))


def test_memory_has_their_places_alone():
    tracemalloc.start()
    try:
        found = Stored(made(20_000, 400))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 8 bytes each, which an array that grows may have twice; as objects, 700 and more.
    assert peak < 20_000 * 24 + 2**16
    assert found[19_999].record["instruction"].startswith("19999 ")


def test_their_file_goes_with_them():
    numbers = lambda: len(os.listdir("/proc/self/fd"))
    gc.collect()  # or those of other tests would be closed meanwhile
    before = numbers()
    found = Stored(made(3, 1))
    rest = Some(found, np.array([1]))
    del found
    gc.collect()
    assert rest[0].place == "t.jsonl:1"
    assert numbers() == before + 1
    del rest
    gc.collect()
    assert numbers() == before


def test_no_room_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full():
        yield from made(1, 1)
        raise OSError(errno.ENOSPC, "No space left on device")

    line = rf"{tmp_path}: no room for a temporary file: set TMPDIR"
    with pytest.raises(InputError, match=line):
        Stored(full())
