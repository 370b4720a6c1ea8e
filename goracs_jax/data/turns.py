"""The turns of a chat: a question, what belongs to it, and the answers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from goracs_jax.data.chats import Keys, conversation_of


class Turns(NamedTuple):
    """The turns in front of the last question, which a shorter chat can be without.

    A turn starts with a message of the user. What is in front of all of them stays if
    it is a system message.
    """

    key: str  # of the list of messages
    messages: list[Any]
    first: int  # the message behind those of the system
    starts: list[int]  # of the turns behind the first

    @property
    def most(self) -> int:
        """How many of the oldest turns can be left out."""
        return len(self.starts)

    def without(self, k: int) -> list[Any]:
        """Return the messages without the k oldest turns."""
        start = self.starts[k - 1] if k else self.first
        return self.messages[: self.first] + self.messages[start:]


def turns_of(record: Mapping[str, Any], keys: Keys) -> Turns:
    """Find the turns of a record, of which plain prompts have none to leave out.

    Args:
        record: Any but an Alpaca record, checked.
        keys: What its file calls its parts.

    >>> said = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    >>> said += [("assistant", "d")]
    >>> chat = {"messages": [{"role": role, "content": text} for role, text in said]}
    >>> turns = turns_of(chat, Keys())
    >>> turns.most, [message["content"] for message in turns.without(1)]
    (1, ['s', 'c', 'd'])
    """
    form = keys.form_of(record)
    key = keys.key(record, "messages" if form == "messages" else "prompt")
    if form == "text":
        return Turns(key, [], 0, [])
    said = conversation_of(record, keys)
    # The answer to the last question can be in another list, that of the completion.
    roles = [message["role"] for message in said.messages]
    asked = roles[: min(said.last, len(record[key]))]
    heads = ("system", "developer")
    first = next((i for i, role in enumerate(asked) if role not in heads), 0)
    # Several messages of a user in a row are one question.
    starts = [
        i
        for i in range(first + 1, len(asked))
        if asked[i] == "user" and asked[i - 1] != "user"
    ]
    return Turns(key, record[key], first, starts)
