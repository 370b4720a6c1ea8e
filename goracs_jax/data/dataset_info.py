"""The entry by which LLaMA-Factory reads a file of records, whatever its form."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from goracs_jax.data.chats import ALPACA, ROLES, parts_of
from goracs_jax.data.examples import Example

#: What LLaMA-Factory calls the parts of an Alpaca record.
_COLUMNS = dict(zip(("prompt", "query", "response"), ALPACA, strict=True))
#: What it calls the names of roles. Where some are given, it forgets its own defaults.
_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
}


def dataset_info(examples: Sequence[Example], file: str) -> dict[str, Any] | None:
    """Describe a file as dataset_info.json does.

    Args:
        examples: Its records.
        file: Its name.

    Returns:
        The entry; None for what LLaMA-Factory does not read: prompt and completion that
        are lists of messages, messages that are JSON in a text, and lists of messages
        under several keys.

    >>> some = [Example({"prompt": "a", "completion": "b"}, "t.jsonl:1")]
    >>> dataset_info(some, "t.jsonl")["columns"]
    {'prompt': 'prompt', 'response': 'completion'}
    """
    (record, _, keys), form = examples[0], examples[0].form
    if form == "messages":
        return _of_messages(examples, file)
    if form == "completion":
        return None
    if form == "text":
        names = {"prompt": "prompt", "response": "completion"}
    else:
        has = lambda part: any(keys.key(x.record, part) in x.record for x in examples)
        names = {name: part for name, part in _COLUMNS.items() if has(part)}
    columns = {name: keys.key(record, part) for name, part in names.items()}
    return {"file_name": file, "formatting": "alpaca", "columns": columns}


def _of_messages(examples: Sequence[Example], file: str) -> dict[str, Any] | None:
    record, _, keys = examples[0]
    key = keys.key(record, "messages")
    if any(not isinstance(example.record.get(key), list) for example in examples):
        return None
    messages = [message for example in examples for message in example.record[key]]
    speaker, words = parts_of(messages[0], keys)
    spoken = Counter(str(message.get(speaker)) for message in messages)
    # A tag has one name: the one that most messages have.
    usual = {}
    for name, _ in spoken.most_common():
        usual.setdefault(ROLES.get(name.lower()), name)
    tags = {"role_tag": speaker, "content_tag": words, "function_tag": "function_call"}
    tags |= {tag: usual.get(role, role) for tag, role in _TAGS.items()}
    called = any(message.get("tool_calls") for message in messages)
    columns = {"messages": key}
    for name in ("system", "tools"):
        found = [x.record.get(keys.key(x.record, name)) for x in examples]
        # Tools are JSON in a text, unless messages are as OpenAI has them.
        if any(part and (isinstance(part, str) or called) for part in found):
            columns[name] = keys.key(record, name)
    return {
        "file_name": file,
        "formatting": "openai" if called else "sharegpt",
        "columns": columns,
        "tags": tags,
    }
