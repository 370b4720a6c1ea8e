"""Read Alpaca records, with their places for messages, and write them as JSONL."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.buckets import as_path
from goracs_jax.data.skipped import Skipped
from goracs_jax.data.texts import check_record, check_texts
from goracs_jax.errors import InputError, RecordError
from goracs_jax.files import atomic
from goracs_jax.inputs.parsed import reason
from goracs_jax.inputs.records import records_of
from goracs_jax.inputs.tables import as_frame, is_frame, rows_of

TEXT_KEYS = ("instruction", "input", "output")


class Example(NamedTuple):
    """One record as it stands in the file, with all of its keys, and its place."""

    record: dict
    place: str  # "train.jsonl:17", or "train.json, record 17" in a JSON array

    @property
    def texts(self) -> tuple[str, ...]:
        """The instruction, the input and the output; a missing input is empty."""
        return tuple(self.record.get(key, "") for key in TEXT_KEYS)


def read_examples(source: Any, skipped: Skipped | None = None) -> list[Example]:
    """Read and check Alpaca records.

    Args:
        source: As for `read_records`. Every record needs the strings `instruction` and
            `output`; `input` may be left out, null or NaN, which all mean that there is
            none; other keys are kept.
        skipped: Where records go that cannot be used; if None, the first one is an
            error.

    Returns:
        The records in their order.

    Raises:
        InputError: The file cannot be read, or a record lacks a text (as a
            `RecordError`); the message names the place.

    >>> read_examples([{"instruction": "i", "input": None, "output": "o"}])[0].record
    {'instruction': 'i', 'input': '', 'output': 'o'}
    """
    return _read(source, _as_example, skipped)


def read_records(source: Any) -> list[Example]:
    """Read records of any kind.

    Args:
        source: A path: JSON (a list of records, a list inside an object, or columns),
            JSONL, CSV, Parquet or Arrow, packed or not; a folder or a pattern of
            shards; or a saved dataset. Or a value: a list of dictionaries, a frame of
            polars or pandas, a table of PyArrow, or a dataset of `datasets`.

    Returns:
        The records in their order, at least one. NaN is None in them.

    Raises:
        InputError: The file cannot be read, is empty, or contains anything but records.
    """
    return _read(source, _as_record, None)


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


def _read(
    source: Any, check: Callable[[Example], Example], skipped: Skipped | None
) -> list[Example]:
    """Read records one by one: one that is left out is not held."""
    if isinstance(source, str | Path):
        found = _of_file(as_path(source))
        empty = f"{source} is empty: give a file with at least one record."
    else:
        found = _of_value(source)
        empty = "there are no records: give at least one."
    examples = []
    for row, (example, error) in enumerate(found):
        try:
            if error:
                raise error
            examples.append(check(example))
        except RecordError as error:
            if skipped is None:
                raise
            skipped.add(row, example.place, error, example.record)
    if not examples and skipped and skipped.rows:
        raise InputError(
            f"{source if isinstance(source, str | Path) else 'the list'} has no record "
            f"that can be used ({skipped.text}): leave out --bad-rows skip to see what "
            "is wrong with the first."
        )
    if not examples:
        raise InputError(empty)
    return examples


#: A record, or what is in its place, and why it cannot be read.
Found = tuple[Example, RecordError | None]


def _of_file(path: Path) -> Iterator[Found]:
    found = records_of(path)
    after = next(found, None)
    while after:
        (file, parsed), after = after, next(found, None)
        place = f"{file}{parsed.place}"
        if parsed.error:
            text = f"{place}: {_why(parsed.error, last=after is None)}."
            line = parsed.line.decode(errors="backslashreplace")
            yield Example(line, place), RecordError(text, "unreadable")  # type: ignore
        else:
            yield Example(_plain(parsed.fields), place), None


def _of_value(source: Any) -> Iterator[Found]:
    what = type(source).__name__
    if is_frame(source):
        source = rows_of(as_frame(source), what)
    elif isinstance(source, Mapping) or not isinstance(source, Iterable):
        splits = f": give one of {', '.join(map(str, source or ()))}"
        raise InputError(
            "records must be a path, a list of dictionaries or a frame, got "
            f"{what}{splits if _has_splits(source) else ''}."
        )
    for i, record in enumerate(source, 1):
        yield Example(_plain(record), f"{what}, record {i}"), None


def _has_splits(source: Any) -> bool:
    return isinstance(source, Mapping) and any(map(is_frame, source.values()))


def _plain(record: Any) -> Any:
    """Replace NaN, which pandas writes for what is missing, by None."""
    if not isinstance(record, dict):
        return record
    is_nan = lambda value: isinstance(value, float) and value != value
    if not any(map(is_nan, record.values())):
        return record
    return {key: None if is_nan(value) else value for key, value in record.items()}


def _why(error: BaseException, last: bool) -> str:
    """Say what is wrong with a record, and how to mend it."""
    if isinstance(error, UnicodeDecodeError):
        return (
            f"byte 0x{error.object[error.start]:02x} is not UTF-8: convert the file "
            "(iconv -f latin1 -t utf-8)"
        )
    if not isinstance(error, json.JSONDecodeError):
        return f"cannot be read ({reason(error)}): correct it"
    hint = "JSONL needs one complete record on every line"
    ends_early = error.msg.startswith("Unterminated") or error.pos >= len(error.doc)
    if last and ends_early:
        hint = "the last line is cut off: write the file again"
    return f"not valid JSON ({error.msg}): {hint}"


def _as_record(example: Example) -> Example:
    """Check what every record must be."""
    record, place = example
    if not isinstance(record, dict):
        raise RecordError(
            f"{place}: not an object but {type(record).__name__}: write each record as "
            "one JSON object.",
            "no object",
        )
    check_record(record, place)
    return example


def _as_example(example: Example) -> Example:
    """Check an Alpaca record, and write an input that is null as no text."""
    record, place = _as_record(example)
    if record.get("input", "") is None:
        example = Example(record | {"input": ""}, place)
        record = example.record
    for key in ("instruction", "output"):
        if key not in record:
            raise RecordError(
                f"{place}: key {key!r} is missing: every record needs "
                "instruction and output.",
                "without a key",
            )
    for key in TEXT_KEYS:
        if not isinstance(text := record.get(key, ""), str):
            raise RecordError(
                f"{place}: {key!r} must be a string, got {text!r:.40}: quote it.",
                "of a wrong type",
            )
    check_texts(dict(zip(TEXT_KEYS, example.texts, strict=True)), place)
    return example
