"""A model's own chat template, or one of a file, rendered by transformers.

transformers runs the template in Jinja's sandbox. Which tokens are scored is what TRL's
SFTTrainer decides: of a prompt and its completion, those behind the prompt; of a list
of messages, those of the assistant's turns, which the template marks ({% generation
%}). TRL has marked variants of the templates that it knows. Here the turns of a
template without marks are found by rendering the chat up to each of them, and what
TRL's variants do otherwise is in the two tables below.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from goracs_jax.choices import Scored
from goracs_jax.errors import InputError, one_line
from goracs_jax.llm.conversations import Conversation, Message
from goracs_jax.llm.texts import Between, Span, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Conditions by which Qwen 3 and its successors leave out the thinking of all answers
#: but the last. TRL trains on answers as the model wrote them: with it.
_HIDES_THINKING = (
    "loop.index0 > ns.last_query_index",
    "loop.last or (not loop.last and reasoning_content)",
)
#: Where TRL scores more than what the model writes: the end of the opening of a turn,
#: by the SHA-256 of the template.
_SCORED_OPENING = {
    # Qwen 2.5
    "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f": "\n",
    # Qwen 3.5 (thinking), 3.6 and 3.8
    "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715": "<think>\n",
    "e84f32a23fdda27689f868aa4a1a5621f41133e51a48d7f3efcbea2839574259": "<think>\n",
    "c3cf9e34abf4f9e36c2d72165aa9c132d3e2a725b6c2586aaa3a8af9d7a81041": "<think>\n",
}
#: Where a template says that an answer starts.
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatTemplate:
    """A chat template and the tokenizer whose special tokens it writes.

    Args:
        tokenizer: The model's tokenizer, which has its template.
        source: The text of another template.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", source: str | None = None
    ) -> None:
        self._tokenizer, self._source = tokenizer, source

    def whole(self, of: Conversation, scored: Scored) -> Text:
        """Write all messages, with the answers as TRL masks them."""
        if of.form == "completion":
            before = self._render(of.messages[: of.start], of, opening=True)
            return self._text(self._render(of.messages, of), Between(before))
        if of.form != "messages":
            return self.answered(of, of.answer)
        if scored == "all":
            return self._text(self._render(of.messages, of))
        source = self._chosen(of)
        if _MARK.search(source):
            return self._marked(of, source)
        return self._found(of, source)

    def prompt(self, of: Conversation) -> Text:
        """Write the messages in front of the last answer, and open its turn."""
        return self._text(self._render(of.asked, of, opening=True))

    def answered(self, of: Conversation, answer: str) -> Text:
        """Write the messages up to another last answer, which alone is scored."""
        text = self._render(of.answered(answer), of)
        return self._text(text, Between(self.prompt(of).text))

    def _marked(self, of: Conversation, source: str) -> Text:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[_plain(of.messages)],
                tools=of.tools,
                chat_template=source,
                return_assistant_tokens_mask=True,
                **{**self._tokenizer.special_tokens_map, **of.options},
            )
        except Exception as error:  # noqa: BLE001 (the template's, of any type)
            raise _refused(error) from None
        # transformers gives characters, whatever its annotations say.
        found: Any = spans[0]
        return self._text(texts[0], *(Span(start, end) for start, end in found))

    def _found(self, of: Conversation, source: str) -> Text:
        """Find the turns of the assistant: each between the chat before and with it."""
        opening = _SCORED_OPENING.get(hashlib.sha256(source.encode()).hexdigest(), "")
        for condition in _HIDES_THINKING:
            source = source.replace(condition, "true")
        # An answer starts with its thinking, if only to say that there is none.
        options = {k: v for k, v in of.options.items() if k != "enable_thinking"}
        asked, found = of._replace(options=options), []
        for i, message in enumerate(of.messages):
            if message["role"] != "assistant":
                continue
            if not i:
                raise ValueError(
                    "the chat starts with an answer: leave it out, or put a question "
                    "in front."
                )
            before = self._render(of.messages[:i], asked, opening=True, source=source)
            upto = None
            if i + 1 < len(of.messages):
                upto = self._render(of.messages[: i + 1], of, source=source)
            found.append(Between(before.removesuffix(opening), upto))
        return self._text(self._render(of.messages, of, source=source), *found)

    def _text(self, text: str, *answers: Span | Between) -> Text:
        return Text(text, answers, special=False, ended=False)

    def _chosen(self, of: Conversation) -> str:
        """Return the template's text: of several, transformers takes the default."""
        if self._source is not None:
            return self._source
        try:
            found = self._tokenizer.get_chat_template(None, of.tools)
        except ValueError:
            raise InputError(
                "these are chats, and the model has no chat template: give one with "
                "--template FILE, or take a model that was trained for chats."
            ) from None
        if not isinstance(found, str):
            raise InputError(
                "the model's chat template is no text: correct chat_template in its "
                "tokenizer_config.json, or give one with --template FILE."
            )
        return found

    def _render(
        self,
        messages: Sequence[Message],
        of: Conversation,
        *,
        opening: bool = False,
        source: str | None = None,
    ) -> str:
        source = source or self._chosen(of)
        try:
            found = self._tokenizer.apply_chat_template(
                list(messages),
                tools=of.tools,
                chat_template=source,
                add_generation_prompt=opening,
                tokenize=False,
                **of.options,
            )
        except Exception as error:  # noqa: BLE001 (the template's, of any type)
            raise _refused(error) from None
        return str(found)


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Leave out what is null, as `apply_chat_template` does."""
    return [{k: v for k, v in each.items() if v is not None} for each in messages]


def _refused(error: Exception) -> ValueError:
    return ValueError(
        f"the chat template refuses it ({one_line(error)}): change its roles or leave "
        "it out, or give another template with --template FILE."
    )
