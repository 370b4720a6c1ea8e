"""The entry by which LLaMA-Factory reads a file of records, whatever its form."""

from collections.abc import Sequence
from typing import Any

from goracs_jax.data.chats import ALPACA, parts_of
from goracs_jax.data.examples import Example

#: What LLaMA-Factory calls the parts of an Alpaca record.
_COLUMNS = dict(zip(("prompt", "query", "response"), ALPACA, strict=True))


def dataset_info(examples: Sequence[Example], file: str) -> dict[str, Any] | None:
    """Describe a file as dataset_info.json does.

    Args:
        examples: Its records.
        file: Its name.

    Returns:
        The entry; None for prompt and completion that are lists of messages, which
        LLaMA-Factory does not read.

    >>> some = [Example({"prompt": "a", "completion": "b"}, "t.jsonl:1")]
    >>> dataset_info(some, "t.jsonl")["columns"]
    {'prompt': 'prompt', 'response': 'completion'}
    """
    (record, _, keys), form = examples[0], examples[0].form
    if form == "completion":
        return None
    if form == "messages":
        return _of_messages(examples, file)
    if form == "text":
        names = {"prompt": "prompt", "response": "completion"}
    else:
        has = lambda part: any(keys.key(x.record, part) in x.record for x in examples)
        names = {name: part for name, part in _COLUMNS.items() if has(part)}
    columns = {name: keys.key(record, part) for name, part in names.items()}
    return {"file_name": file, "formatting": "alpaca", "columns": columns}


def _of_messages(examples: Sequence[Example], file: str) -> dict[str, Any]:
    record, _, keys = examples[0]
    lists = [keys.of(example.record, "messages") for example in examples]
    speaker, words = parts_of(lists[0][0], keys)
    roles = {message.get(speaker) for messages in lists for message in messages}
    # Two names are ShareGPT's own, and stand for a question and for an answer.
    user, assistant = ("human", "gpt") if "gpt" in roles else ("user", "assistant")
    tags = {
        "role_tag": speaker,
        "content_tag": words,
        "user_tag": user,
        "assistant_tag": assistant,
        "system_tag": "system",
    }
    columns = {"messages": keys.key(record, "messages")}
    if isinstance(record.get("tools"), str):
        columns["tools"] = "tools"
    return {
        "file_name": file,
        "formatting": "sharegpt",
        "columns": columns,
        "tags": tags,
    }
