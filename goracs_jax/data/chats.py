"""Read a record as a conversation: its form is told by its keys, or by --columns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from goracs_jax.errors import InputError
from goracs_jax.llm.conversations import Conversation, Form, Message

ALPACA = ("instruction", "input", "output")
#: What --columns can name.
NAMES = (*ALPACA, "messages", "prompt", "completion", "role", "content")
#: Names of roles in ShareGPT files and others, and what chat templates call them.
ROLES = {
    **{name: name for name in ("system", "developer", "user", "assistant", "tool")},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "model"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response"), "tool"),
}
#: Where a message has its role and its text: OpenAI's names, then ShareGPT's.
SPEAKERS, WORDS = ("role", "from"), ("content", "value")
#: The forms of records, for messages.
FORMS = (
    "instruction and output, messages or conversations (a list of messages), or prompt "
    "and completion; or name its keys with --columns"
)

#: Keys of a list of messages.
LISTS = ("messages", "conversations", "conversation")
_OF_FORM: dict[Form, set[str]] = {
    "alpaca": set(ALPACA),
    "messages": {"messages"},
    "text": {"prompt", "completion"},
}


class Keys(NamedTuple):
    """What a file calls the parts of its records, where that is not told by itself.

    >>> Keys.parse(("messages=dialog", "role=who")).names["role"]
    'who'
    """

    names: Mapping[str, str] = {}  # by a name of NAMES

    @classmethod
    def parse(cls, pairs: Sequence[str] | None) -> "Keys":
        """Read `NAME=KEY` pairs.

        Raises:
            InputError: A pair is none, its name is unknown, or they are of two forms.
        """
        found: dict[str, str] = {}
        for pair in pairs or ():
            name, equals, key = (part.strip() for part in pair.partition("="))
            if not equals or not key or name not in NAMES or name in found:
                raise InputError(
                    f"--columns must be NAME=KEY, once for each name, with a name of "
                    f"{', '.join(NAMES)}, got {pair!r:.60}."
                )
            found[name] = key
        keys = cls(found)
        if found:
            keys.form_of({})
        return keys

    def form_of(self, record: Mapping[str, Any]) -> Form:
        """Tell the form of a record; the keys that are named decide."""
        named = self.names.keys() - {"role", "content"}
        has = lambda *keys: all(key in record for key in keys)
        if named:
            forms: list[Form] = [f for f, names in _OF_FORM.items() if named <= names]
            if not forms:
                raise InputError(
                    f"--columns {', '.join(sorted(named))} are of different forms: a "
                    f"record has {FORMS}."
                )
            form = forms[0]
        elif has("instruction", "output"):
            form = "alpaca"
        elif any(map(has, LISTS)):
            form = "messages"
        else:
            form = "text" if has("prompt", "completion") else "alpaca"
        if form == "text" and isinstance(self.of(record, "prompt"), list):
            return "completion"
        return form

    def key(self, record: Mapping[str, Any], name: str) -> str:
        """Return the key of a part of a record."""
        if name == "messages" and name not in self.names:
            return next((key for key in LISTS if key in record), name)
        return self.names.get(name, name)

    def of(self, record: Mapping[str, Any], name: str) -> Any:
        """Return a part of a record; None where there is none."""
        return record.get(self.key(record, name))


def conversation_of(record: Mapping[str, Any], keys: Keys) -> Conversation:
    """Read a record that `goracs_jax.data.chat_checks.check_conversation` has passed.

    >>> found = conversation_of({"prompt": "1+1=", "completion": "2"}, Keys())
    >>> found.form, found.answer
    ('text', '2')
    """
    form = keys.form_of(record)
    part = lambda name: keys.of(record, name)
    if form == "alpaca":
        said = _pair(part("instruction") or "", part("output"))
        return Conversation(form, said, input=part("input") or "")
    if form == "text":
        return Conversation(form, _pair(part("prompt"), part("completion")))
    tools = record.get("tools")
    if isinstance(tools, str):
        tools = json.loads(tools)
    options = record.get("chat_template_kwargs") or {}
    lists = ("messages",) if form == "messages" else ("prompt", "completion")
    asked, *rest = ([_message(each, keys) for each in part(name)] for name in lists)
    said = (*asked, *(message for side in rest for message in side))
    start = len(asked) if rest else -1
    return Conversation(form, said, start, tools=tools or None, options=options)


def with_answer(record: Mapping[str, Any], keys: Keys, answer: str) -> dict[str, Any]:
    """Return a record with another last answer, in its own form.

    >>> chat = [{"from": "human", "value": "1+1="}, {"from": "gpt", "value": "3"}]
    >>> with_answer({"conversations": chat}, Keys(), "2")["conversations"][1]
    {'from': 'gpt', 'value': '2'}
    """
    names = {"alpaca": "output", "messages": "messages"}
    key = keys.key(record, names.get(keys.form_of(record), "completion"))
    if isinstance(record[key], str):
        return {**record, key: answer}
    messages = list(record[key])
    roles = [_message(message, keys)["role"] for message in messages]
    last = len(roles) - 1 - roles[::-1].index("assistant")
    messages[last] = messages[last] | {parts_of(messages[last], keys)[1]: answer}
    return {**record, key: messages}


def _message(message: Mapping[str, Any], keys: Keys) -> Message:
    """Return a message under the names that chat templates read."""
    speaker, words = parts_of(message, keys)
    text = message.get(words)
    rest = {k: v for k, v in message.items() if k not in (speaker, words)}
    text = joined(text) if isinstance(text, list) else text
    return {"role": ROLES[message[speaker].lower()], "content": text, **rest}


def parts_of(message: Mapping[str, Any], keys: Keys) -> tuple[str, str]:
    """Find the keys of a message's role and text.

    >>> parts_of({"from": "human", "value": "Hi."}, Keys())
    ('from', 'value')
    """
    # Tables of Arrow have all keys in all messages, and null where there was none.
    first = lambda known: next((k for k in known if message.get(k) is not None), None)
    return (
        keys.names.get("role") or first(SPEAKERS) or SPEAKERS[0],
        keys.names.get("content") or first(WORDS) or WORDS[0],
    )


def joined(parts: Sequence[Mapping[str, Any]]) -> str:
    """Join the parts of a message's text.

    >>> joined([{"type": "text", "text": "1 + "}, {"type": "text", "text": "1"}])
    '1 + 1'
    """
    return "".join(str(part.get("text") or "") for part in parts)


def _pair(asked: str, answer: str) -> tuple[Message, ...]:
    return (
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer},
    )
