"""Examples that lie on the disk, so that a pool may be larger than the memory."""

import json
import os
import weakref
from array import array
from collections.abc import Iterable, Sequence
from typing import SupportsIndex, TypeVar, overload

import numpy as np

from goracs_jax.data.chats import Keys
from goracs_jax.data.examples import Example
from goracs_jax.files import unnamed

Item = TypeVar("Item")


class _Lazy(Sequence[Item]):
    """Items that are read one by one, when they are asked for."""

    def _at(self, row: int) -> Item:
        raise NotImplementedError

    @overload
    def __getitem__(self, row: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, row: slice) -> list[Item]: ...

    def __getitem__(self, row: SupportsIndex | slice) -> Item | list[Item]:
        found = range(len(self))[row]
        return self._at(found) if isinstance(found, int) else [*map(self._at, found)]


class Stored(_Lazy[Example]):
    """Examples in a file without a name; memory has 8 bytes for each, its place there.

    They are written as JSON: what is read is what a file of JSON Lines would give.

    Args:
        examples: The examples, which all have the same keys.

    >>> some = Stored([Example({"instruction": "i", "output": "o"}, "t.jsonl:1")])
    >>> some[-1].place, some[:1][0].record
    ('t.jsonl:1', {'instruction': 'i', 'output': 'o'})
    """

    def __init__(self, examples: Iterable[Example]):
        # One encoder for all records: json.dumps would make a new one for each.
        encode, ends = json.JSONEncoder(ensure_ascii=False).encode, array("q", [0])
        self._keys = Keys()
        with unnamed() as file:
            for record, place, self._keys in examples:
                line = encode([record, place])
                ends.append(ends[-1] + file.write(line.encode()))
            file.flush()
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._ends = np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def _at(self, row: int) -> Example:
        start, end = self._ends[row : row + 2].tolist()
        record, place = json.loads(os.pread(self._file, end - start, start))
        return Example(record, place, self._keys)


class Some(_Lazy[Example]):
    """Some of the rows of examples, which stay where they are.

    Args:
        whole: The examples.
        rows: Their numbers among these.

    >>> whole = [Example({"output": text}, f"t.jsonl:{text}") for text in "abc"]
    >>> [example.place for example in Some(whole, np.array([2, 0]))]
    ['t.jsonl:c', 't.jsonl:a']
    """

    def __init__(self, whole: Sequence[Example], rows: np.ndarray):
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, row: int) -> Example:
        return self._whole[int(self._rows[row])]


class Places(_Lazy[str]):
    """The place of each of some examples, which is read where a message needs it."""

    def __init__(self, examples: Sequence[Example]):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def _at(self, row: int) -> str:
        return self._examples[row].place
