"""Read and write Alpaca records (JSON or JSONL), with their places for messages."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.data.texts import check_record, check_texts
from goracs_jax.errors import InputError, one_line
from goracs_jax.files import atomic, existing_file

TEXT_KEYS = ("instruction", "input", "output")


class Example(NamedTuple):
    """One record as it stands in the file, with all of its keys, and its place."""

    record: dict
    place: str  # "train.jsonl:17", or "train.json, record 17" in a JSON array

    @property
    def texts(self) -> tuple[str, ...]:
        """The instruction, the input and the output; a missing input is empty."""
        return tuple(self.record.get(key, "") for key in TEXT_KEYS)


def read_examples(path: Path) -> list[Example]:
    """Read and check a file of Alpaca records: a JSON array, or JSONL.

    Args:
        path: UTF-8 file. Every record needs the strings `instruction` and `output`;
            `input` may be left out; other keys are kept.

    Returns:
        The records in the order of the file.

    Raises:
        InputError: The file cannot be read, or a record lacks a text; the message names
            the place.
    """
    examples = read_records(path)
    for example in examples:
        _check(example)
    return examples


def read_records(path: Path) -> list[Example]:
    """Read a file of JSON objects of any kind: a JSON array, or JSONL.

    Args:
        path: UTF-8 file.

    Returns:
        The objects in the order of the file, at least one.

    Raises:
        InputError: The file cannot be read, is empty, or contains anything but objects.
    """
    path = Path(path)
    text = _read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty: give a file with at least one record.")
    parse = _array if text.lstrip().startswith("[") else _lines
    records = [Example(record, place) for record, place in parse(text, path)]
    if not records:
        raise InputError(f"{path} contains no record: give at least one.")
    for record, place in records:
        if not isinstance(record, dict):
            raise InputError(
                f"{place}: not an object but {type(record).__name__}: write each "
                "record as one JSON object."
            )
        check_record(record, place)
    return records


def check_duplicates(examples: Sequence[Example]) -> None:
    """Check that no example repeats the three texts of an earlier one.

    A repeated example would spend budget and teach nothing new.

    Args:
        examples: The examples of one file.

    Raises:
        InputError: An example repeats an earlier one; the message names both places.

    >>> a = Example({"instruction": "i", "output": "o"}, "t.jsonl:1")
    >>> check_duplicates([a, a._replace(place="t.jsonl:2")])
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: t.jsonl:2 repeats the texts of t.jsonl:1: ...
    """
    seen: dict[tuple[str, ...], str] = {}
    for texts, place in ((example.texts, example.place) for example in examples):
        if texts in seen:
            raise InputError(
                f"{place} repeats the texts of {seen[texts]}: remove one, or pass "
                "--duplicates keep."
            )
        seen[texts] = place


def write_jsonl(path: Path, records: Iterable[dict]) -> None:
    r"""Write records as JSONL: one record per line, in UTF-8, keys in their own order.

    Args:
        path: The file, which appears only when it is complete.
        records: The records, which may be an iterator.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "out.jsonl"
    >>> write_jsonl(path, [{"instruction": "héé", "output": "o", "id": 7}])
    >>> path.read_text(encoding="utf-8")
    '{"instruction": "héé", "output": "o", "id": 7}\n'
    """
    with atomic(path) as file:
        file.writelines(json_lines(records))


def json_lines(records: Iterable[dict]) -> Iterator[bytes]:
    """Yield the line of each record, as `write_jsonl` writes it."""
    # One encoder for all records: json.dumps would make a new one for each.
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for record in records:
        yield (encode(record) + "\n").encode()


def _read_text(path: Path) -> str:
    raw = existing_file(path).read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8: convert the "
            "file (iconv -f latin1 -t utf-8)."
        ) from None


def _array(text: str, path: Path) -> Iterable[tuple[dict, str]]:
    try:
        records = _parsed(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}): if the file was cut "
            "off, write it again."
        ) from None
    return [(record, f"{path}, record {i}") for i, record in enumerate(records, 1)]


def _lines(text: str, path: Path) -> Iterable[tuple[dict, str]]:
    # Split at line feeds only: str.splitlines would also split inside JSON strings.
    lines = text.split("\n")
    last = max(i for i, line in enumerate(lines, 1) if line.strip())
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _parsed(line), f"{path}:{i}"
        except json.JSONDecodeError as error:
            hint = (
                "the last line is cut off: write the file again"
                if i == last
                else "JSONL needs one complete record on every line"
            )
            raise InputError(
                f"{path}:{i}: not valid JSON ({error.msg}): {hint}."
            ) from None


def _parsed(text: str) -> Any:
    """Parse JSON; numbers without end and deep nesting are no JSON either."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(one_line(error), text, 0) from None


def _check(example: Example) -> None:
    record, place = example
    for key in ("instruction", "output"):
        if key not in record:
            raise InputError(
                f"{place}: key {key!r} is missing: every record needs "
                "instruction and output."
            )
    for key in TEXT_KEYS:
        if not isinstance(text := record.get(key, ""), str):
            raise InputError(
                f"{place}: {key!r} must be a string, got {text!r:.40}: quote it."
            )
    check_texts(dict(zip(TEXT_KEYS, example.texts, strict=True)), place)
