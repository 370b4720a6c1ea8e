"""What a record says, whatever its form: messages, of which an assistant's are learnt.

The form decides the text all the same: Alpaca records and plain prompts have templates
of their own, and TRL masks a list of messages otherwise than prompt and completion.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

#: Alpaca: instruction, input, output. Text: prompt and completion as strings. Messages:
#: one list of them. Completion: two lists, the prompt's and the completion's.
Form = Literal["alpaca", "text", "messages", "completion"]

Message = dict[str, Any]


class Conversation(NamedTuple):
    """The messages of a record, and what else of it a template may read."""

    form: Form
    messages: tuple[Message, ...]  # role and content, and what else a message has
    start: int = -1  # the first message of the completion, where it is given apart
    input: str = ""  # of Alpaca, beside the instruction in the first message
    tools: Any = None
    options: Mapping[str, Any] = {}

    @property
    def last(self) -> int:
        """The number of the last answer."""
        return last_answer(self.messages)

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[self.last].get("content") or ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts in their order, by which two records are compared."""
        found = [_text(message) for message in self.messages]
        if self.form == "alpaca":
            found.insert(1, self.input)
        return tuple(found)

    @property
    def asked(self) -> tuple[Message, ...]:
        """The messages in front of the last answer; an input belongs to the first."""
        first, *rest = self.messages[: self.last]
        if self.input:
            first = first | {"content": f"{first['content']}\n{self.input}"}
        return (first, *rest)

    def answered(self, answer: str) -> tuple[Message, ...]:
        """The messages up to the last answer, with another one in its place."""
        return (*self.asked, self.messages[self.last] | {"content": answer})


def in_parts(messages: Sequence[Message]) -> list[Message]:
    """Return messages whose content is a list of parts, here of one text.

    >>> in_parts([{"role": "user", "content": "Hi."}])
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hi.'}]}]
    """
    said = lambda text: (
        [{"type": "text", "text": text}] if isinstance(text, str) else text
    )
    return [each | {"content": said(each.get("content"))} for each in messages]


def last_answer(messages: Sequence[Message]) -> int:
    """Return the number of the last message of the assistant.

    >>> last_answer([{"role": role} for role in ("user", "assistant", "user")])
    1
    """
    return max(i for i, each in enumerate(messages) if each["role"] == "assistant")


def is_chat(form: Form) -> bool:
    """Tell whether records of a form are chats.

    >>> is_chat("messages"), is_chat("text")
    (True, False)
    """
    return form in ("messages", "completion")


def _text(message: Message) -> str:
    calls = message.get("tool_calls")
    return "".join([message.get("content") or "", json.dumps(calls) if calls else ""])
