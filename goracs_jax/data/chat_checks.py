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
from goracs_jax.data.texts import MOST_CHARACTERS, is_blank
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
        for i, message in enumerate(messages, 1):
            _check_message(message, keys, f"{place}: {key!r}, message {i}")
    _check_options(record, place)
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


def _check_options(record: Mapping[str, Any], place: str) -> None:
    """Refuse what a chat template could not read beside the messages."""
    tools, options = record.get("tools"), record.get("chat_template_kwargs")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise RecordError(
                f"{place}: 'tools' is no JSON: correct it.", WRONG_TYPE
            ) from None
    if not isinstance(tools or [], list):
        raise RecordError(f"{place}: 'tools' must be a list of objects.", WRONG_TYPE)
    if not isinstance(options or {}, dict):
        raise RecordError(
            f"{place}: 'chat_template_kwargs' must be an object.", WRONG_TYPE
        )


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
            raise RecordError(
                f"{place}: {key!r} must be a string, got {text!r:.40}: quote it.",
                WRONG_TYPE,
            )
        if len(text) > MOST_CHARACTERS:
            raise _too_long(f"{place}: {key!r}", text)
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
    role, text = (message.get(key) for key in parts_of(message, keys))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise RecordError(
            f"{where}: the role is {role!r:.40}: it must be system, user, assistant or "
            "tool, or human or gpt; --columns role=KEY,content=KEY names the keys.",
            "of an unknown role",
        )
    if isinstance(text, list):
        kinds = [part.get("type") for part in text if isinstance(part, dict)]
        if kinds != ["text"] * len(text):
            raise RecordError(
                f"{where}: only parts of text are read, got {kinds!r:.60}: leave the "
                "record out.",
                WRONG_TYPE,
            )
        text = joined(text)
    if text is None and message.get("tool_calls"):
        return
    if not isinstance(text, str):
        raise RecordError(
            f"{where}: the content must be a string, got {text!r:.40}: write a "
            "text, or leave the record out.",
            WRONG_TYPE,
        )
    if len(text) > MOST_CHARACTERS:
        raise _too_long(where, text)
    if is_blank(text) and not message.get("tool_calls"):
        raise RecordError(f"{where}: {role} says nothing: remove the message.", "empty")


def _too_long(where: str, text: str) -> RecordError:
    return RecordError(
        f"{where} has {len(text):,} characters, more than {MOST_CHARACTERS:,}: cut the "
        "text, or leave the record out.",
        "too long",
    )
