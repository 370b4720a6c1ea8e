"""Templates: how a conversation becomes the text that a model reads.

Each has the same three methods. Alpaca and plain text are here; a model's own template
is in `goracs_jax.llm.chat_template`.
"""

from typing import Protocol, runtime_checkable

from goracs_jax.choices import Scored
from goracs_jax.llm.conversations import Conversation
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.texts import Between, Text


@runtime_checkable
class Template(Protocol):
    """Writes conversations as text.

    A `ValueError` says why it cannot write one, an `InputError` why it can write none.
    """

    def whole(self, of: Conversation, scored: Scored) -> Text:
        """Write all of it, with the answers that are scored unless all is."""
        ...

    def prompt(self, of: Conversation) -> Text:
        """Write what stands in front of the last answer, up to where it starts."""
        ...

    def answered(self, of: Conversation, answer: str) -> Text:
        """Write it up to another last answer, which alone is scored."""
        ...


class Alpaca:
    r"""The template of Alpaca: one instruction, its input, and one response.

    >>> said = ({"role": "user", "content": "Add."}, {"role": "assistant"})
    >>> Alpaca().answered(Conversation("alpaca", said, input="1 2"), "3").text[-15:]
    '### Response:\n3'
    """

    def whole(self, of: Conversation, scored: Scored) -> Text:
        """Write instruction, input and response."""
        return self.answered(of, of.answer)

    def prompt(self, of: Conversation) -> Text:
        """Write instruction and input."""
        return Text(self._texts(of, "").prompt)

    def answered(self, of: Conversation, answer: str) -> Text:
        """Write instruction, input and another response."""
        return Text.of(*self._texts(of, answer))

    def _texts(self, of: Conversation, answer: str):
        roles = [message["role"] for message in of.messages]
        if roles != ["user", "assistant"]:
            raise ValueError(
                "the template of Alpaca has one question and one answer, this chat has "
                f"{', '.join(roles)}: take --template chat, or a file of your own."
            )
        record = {"instruction": of.messages[0]["content"], "input": of.input}
        return format_prompt(record | {"output": answer})


ALPACA = Alpaca()


class Plain:
    """Prompt and completion as they are, and the end of text, as TRL joins them.

    Args:
        eos: The end of text, which follows a completion that does not have it.

    >>> said = ({"role": "user", "content": "1+1="}, {"role": "assistant"})
    >>> Plain("</s>").answered(Conversation("text", said), "2").text
    '1+1=2</s>'
    """

    def __init__(self, eos: str) -> None:
        self._eos = eos

    def whole(self, of: Conversation, scored: Scored) -> Text:
        """Write the prompt and the completion."""
        return self.answered(of, of.answer)

    def prompt(self, of: Conversation) -> Text:
        """Write the prompt."""
        return Text(of.asked[0]["content"], ended=False)

    def answered(self, of: Conversation, answer: str) -> Text:
        """Write the prompt and another completion."""
        prompt = self.prompt(of).text
        end = "" if answer.endswith(self._eos) else self._eos
        return Text(prompt + answer + end, (Between(prompt),), ended=False)


class Contents:
    """The contents of all messages without roles, for sentence encoders."""

    def whole(self, of: Conversation, scored: Scored) -> Text:
        """Write all texts, one below the other."""
        return Text("\n".join(of.texts))

    def prompt(self, of: Conversation) -> Text:
        """Write the texts in front of the last answer."""
        return Text("\n".join(of._replace(messages=of.asked).texts))

    def answered(self, of: Conversation, answer: str) -> Text:
        """Write the texts up to another last answer."""
        return Text("\n".join(of._replace(messages=of.answered(answer)).texts))
