"""What a conversation must have: texts to read, roles that are known, and an answer."""

import json
from collections.abc import Mapping
from typing import Any

from goracs_jax.data.chats import (
    ALPACA,
    FORMS,
    ROLES,
    Keys,
    conversation_of,
    joined,
    parts_of,
)
from goracs_jax.data.texts import MOST_CHARACTERS, check_record, is_blank
from goracs_jax.errors import RecordError
from goracs_jax.llm.conversations import Form

#: How a part of another type than it must have is counted.
WRONG_TYPE = "of a wrong type"


def check_conversation(record: Mapping[str, Any], keys: Keys, place: str) -> None:
    """Refuse a record that has no text to read, or none to learn.

    Args:
        record: The record.
        keys: What its file calls its parts.
        place: Its file and line, for the message.

    Raises:
        RecordError: A part is missing, of another type, empty or too long; a role is
            unknown; or no answer has a question in front of it.

    >>> chat = {"messages": [{"role": "user", "content": "Hi."}]}
    >>> check_conversation(chat, Keys(), "t.jsonl:1")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.RecordError: t.jsonl:1: no message is the assistant's: ...
    """
    form = keys.form_of(record)
    if form in ("alpaca", "text"):
        _check_strings(record, keys, form, place)
        return
    lists = ("messages",) if form == "messages" else ("prompt", "completion")
    for name in lists:
        key, messages = keys.key(record, name), keys.of(record, name)
        if not isinstance(messages, list) or not messages:
            raise RecordError(
                f"{place}: {key!r} must be a list of messages, got {messages!r:.40}: "
                "write it as a list of objects with role and content.",
                WRONG_TYPE,
            )
        if isinstance(record[key], str):
            check_record({key: messages}, place)  # what its JSON says
        for i, message in enumerate(messages, 1):
            _check_message(message, keys, f"{place}: {key!r}, message {i}")
    _check_options(record, keys, place)
    said = conversation_of(record, keys)
    learnt = [message["role"] for message in said.messages[max(said.start, 0) :]]
    if "assistant" not in learnt:
        where = "message" if form == "messages" else "message of the completion"
        raise RecordError(
            f"{place}: no {where} is the assistant's: there is nothing to learn; "
            "remove it.",
            "without an answer",
        )
    if not said.last:
        raise RecordError(
            f"{place}: the only answer has no question in front of it: add one, or "
            "remove the record.",
            "without a question",
        )


def _check_options(record: Mapping[str, Any], keys: Keys, place: str) -> None:
    """Refuse what a chat template could not read beside the messages."""
    tools, options = keys.of(record, "tools"), record.get("chat_template_kwargs")
    if not _is_list_of_objects(tools or []):
        raise RecordError(
            f"{place}: 'tools' must be a list of objects, or its JSON.", WRONG_TYPE
        )
    if isinstance(record.get("tools"), str):
        check_record({"tools": tools}, place)
    if not isinstance(options or {}, dict):
        raise RecordError(
            f"{place}: 'chat_template_kwargs' must be an object.", WRONG_TYPE
        )
    system = keys.of(record, "system")
    beside = {"tools": tools, "chat_template_kwargs": options}
    if isinstance(system, str):  # else it is a column of something else
        beside["system"] = system
    for name, part in beside.items():
        _check_length(f"{place}: {name!r}", part)


def _check_strings(
    record: Mapping[str, Any], keys: Keys, form: Form, place: str
) -> None:
    needed = ("instruction", "output") if form == "alpaca" else ("prompt", "completion")
    for name in needed:
        if (key := keys.key(record, name)) not in record:
            raise RecordError(
                f"{place}: key {key!r} is missing: every record needs {FORMS}.",
                "without a key",
            )
    names = ALPACA if form == "alpaca" else needed
    texts = {}
    for name in names:
        key = keys.key(record, name)
        text = record.get(key, "")
        if name == "input" and text is None:
            text = ""
        if not isinstance(text, str):
            cure = "quote it"
            if text is None or text != text:  # NaN, as pandas writes a gap
                cure = "write it, or leave the record out with --bad-rows skip"
            if isinstance(text, list):
                cure = f"give {' and '.join(needed)} both as text"
                cure += ", or both as lists of messages" if form == "text" else ""
            raise RecordError(
                f"{place}: {key!r} must be a string, got {text!r:.40}: {cure}.",
                WRONG_TYPE,
            )
        _check_length(f"{place}: {key!r}", text)
        texts[name] = text
    *asked, answer = (keys.key(record, name) for name in names)
    *prompt, learnt = texts.values()
    if all(map(is_blank, prompt)):
        both = f"{' and '.join(asked)} are both empty"
        empty = both if len(asked) > 1 else f"{asked[0]} is empty"
        raise RecordError(f"{place}: {empty}: fill one in.", "empty")
    if is_blank(learnt):
        raise RecordError(
            f"{place}: {answer} is empty: there is nothing to learn; remove it.",
            "empty",
        )


def _check_message(message: Any, keys: Keys, where: str) -> None:
    if not isinstance(message, dict):
        raise RecordError(
            f"{where}: not an object but {type(message).__name__}: write role and "
            "content.",
            WRONG_TYPE,
        )
    names = parts_of(message, keys)
    role, text = (message.get(key) for key in names)
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise RecordError(
            f"{where}: the role is {role!r:.40}: it must be system, user, assistant or "
            "tool, or human or gpt; --columns role=KEY,content=KEY names the keys.",
            "of an unknown role",
        )
    if isinstance(text, list):
        kinds = [
            part.get("type") if isinstance(part, dict) else type(part).__name__
            for part in text
        ]
        texts = [part.get("text") or "" for part in text if isinstance(part, dict)]
        if kinds != ["text"] * len(text) or not all(isinstance(t, str) for t in texts):
            raise RecordError(
                f"{where}: only parts of text are read, got {kinds!r:.60}: leave the "
                "record out.",
                WRONG_TYPE,
            )
        text = joined(text)
    if not _is_list_of_objects(message.get("tool_calls") or []):
        raise RecordError(
            f"{where}: 'tool_calls' must be a list of objects.", WRONG_TYPE
        )
    # A template may write any of it.
    _check_length(where, {k: v for k, v in message.items() if k not in names})
    if text is None and message.get("tool_calls"):
        return
    if not isinstance(text, str):
        raise RecordError(
            f"{where}: the content must be a string, got {text!r:.40}: write a "
            "text, or leave the record out.",
            WRONG_TYPE,
        )
    _check_length(where, text)
    speaks = ROLES[role.lower()] in ("user", "assistant")
    if speaks and is_blank(text) and not message.get("tool_calls"):
        raise RecordError(f"{where}: {role} says nothing: remove the message.", "empty")


def _is_list_of_objects(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(each, dict) for each in part)


def _check_length(where: str, part: Any) -> None:
    """Refuse a text, or what is written as JSON, that no model would read."""
    if not part:
        return
    text = part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)
    if len(text) > MOST_CHARACTERS:
        raise RecordError(
            f"{where} has {len(text):,} characters, more than {MOST_CHARACTERS:,}: cut "
            "the text, or leave the record out.",
            "too long",
        )
