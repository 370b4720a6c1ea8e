"""Read records, with their places for messages, and write them as JSONL."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from goracs_jax.data.chat_checks import check_conversation
from goracs_jax.data.chats import ALPACA, Keys, conversation_of, with_answer
from goracs_jax.data.found import find_records
from goracs_jax.data.leakage import digest_of
from goracs_jax.data.skipped import Skipped
from goracs_jax.data.texts import check_record
from goracs_jax.errors import InputError, RecordError
from goracs_jax.files import atomic
from goracs_jax.llm.conversations import Conversation, Form

Written = TypeVar("Written")


class Example(NamedTuple):
    """One record as it stands in the file, with all of its keys, and its place."""

    record: dict
    place: str  # "train.jsonl:17", or "train.json, record 17" in a JSON array
    keys: Keys = Keys()  # what the file calls the parts of its records

    @property
    def form(self) -> Form:
        """The form of the record: Alpaca, prompt and completion, or a chat."""
        return self.keys.form_of(self.record)

    @property
    def conversation(self) -> Conversation:
        """What the record says, whatever its form."""
        return conversation_of(self.record, self.keys)

    @property
    def texts(self) -> tuple[str, ...]:
        """Its texts, by which records are compared: of Alpaca records, all three."""
        return self.conversation.texts

    @property
    def output(self) -> str:
        """The last answer: the output of an Alpaca record."""
        return self.conversation.answer

    def with_output(self, output: str) -> "Example":
        """Return the example with another last answer."""
        return self._replace(record=with_answer(self.record, self.keys, output))

    def written(self, write: Callable[[Conversation], Written]) -> Written:
        """Write the example with a method of a template; see `written` below."""
        try:
            return write(self.conversation)
        except InputError:  # the template can write none
            raise
        except ValueError as error:
            kind = "refused by the template"
            raise RecordError(f"{self.place}: {error}", kind) from None


def read_examples(
    source: Any,
    skipped: Skipped | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> list[Example]:
    """Read and check examples, which are told apart by their keys.

    A record has `instruction`, `output` and perhaps `input` (Alpaca; an input that is
    null or NaN is none); or `messages` or `conversations`, a list of messages with role
    and content, or from and value; or `prompt` and `completion`, two strings or two
    lists of messages. Other keys are kept.

    Args:
        source: As for `read_records`.
        skipped: Where records go that cannot be used; if None, the first one is an
            error.
        columns: What the file calls these keys, as "messages=dialog".

    Returns:
        The records in their order.

    Raises:
        InputError: The file cannot be read, or a record lacks a text or is of another
            form than the first (as a `RecordError`); the message names the place.

    >>> read_examples([{"instruction": "i", "input": None, "output": "o"}])[0].record
    {'instruction': 'i', 'input': '', 'output': 'o'}
    >>> named = ["prompt=q", "completion=a"]
    >>> read_examples([{"q": "1+1=", "a": "2"}], columns=named)[0].output
    '2'
    """
    return list(each_example(source, skipped, columns=columns))


def each_example(
    source: Any,
    skipped: Skipped | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> Iterator[Example]:
    """Read and check examples one by one; see `read_examples`."""
    keys, first = Keys.parse(columns), None

    def check(found: Example) -> Example:
        nonlocal first
        example = _with_input(_as_record(found)._replace(keys=keys))
        check_conversation(example.record, keys, example.place)
        first = first or example
        if example.form != first.form:
            raise RecordError(
                f"{example.place} is read as {example.form}, {first.place} as "
                f"{first.form}: give files of one form, or name its keys with "
                "--columns.",
                "of another form",
            )
        return example

    return _read(source, check, skipped)


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
    return list(_read(source, _as_record, None))


def written(
    examples: Iterable[Example], write: Callable[[Conversation], Written]
) -> Iterator[Written]:
    """Write examples with a method of a template, one after the other.

    Args:
        examples: The examples.
        write: Makes a text of what one says.

    Raises:
        RecordError: The template cannot write one; the message names its place.

    >>> record = {"instruction": "Add.", "input": "1 2", "output": "3"}
    >>> [*written([Example(record, "t.jsonl:1")], lambda said: said.answer)]
    ['3']
    """
    return (example.written(write) for example in examples)


def check_duplicates(examples: Sequence[Example]) -> None:
    """Check that no example repeats the texts of an earlier one.

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
    seen: dict[bytes, int] = {}
    for row, example in enumerate(examples):
        first = seen.setdefault(digest_of(example.texts), row)
        if first != row:
            raise InputError(
                f"{example.place} repeats the texts of {examples[first].place}: remove "
                "one, or pass --duplicates keep."
            )


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
) -> Iterator[Example]:
    """Yield records one by one; one that is left out is not held."""
    count = 0
    for row, (record, place, error) in enumerate(find_records(source)):
        try:
            if error:
                raise error
            example = check(Example(record, place))
        except RecordError as error:
            if skipped is None:
                raise
            skipped.add(row, place, error, record)
        else:
            count += 1
            yield example
    if count:
        return
    is_path = isinstance(source, str | Path)
    if skipped and skipped.rows:
        raise InputError(
            f"{source if is_path else 'the list'} has no record that can be used "
            f"({skipped.text}): leave out --bad-rows skip to see what is wrong with "
            "the first."
        )
    raise InputError(
        f"{source} is empty, or has nothing below its header: give a file with at "
        "least one record."
        if is_path
        else "there are no records: give at least one."
    )


def _with_input(example: Example) -> Example:
    """Write an input that is null as no text."""
    key = example.keys.key(example.record, ALPACA[1])
    if example.form != "alpaca" or example.record.get(key, "") is not None:
        return example
    return example._replace(record=example.record | {key: ""})


def _as_record(example: Example) -> Example:
    """Check what every record must be."""
    record, place, _ = example
    if not isinstance(record, dict):
        raise RecordError(
            f"{place}: not an object but {type(record).__name__}: write each record as "
            "one JSON object.",
            "no object",
        )
    check_record(record, place)
    return example
