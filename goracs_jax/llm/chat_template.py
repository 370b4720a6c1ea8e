"""A model's own chat template, or one of a file, rendered by transformers.

transformers runs the template in Jinja's sandbox. Which tokens are scored is what TRL's
SFTTrainer decides: of a prompt and its completion, those behind the prompt; of a list
of messages, those of the assistant's turns, which the template marks ({% generation
%}). Those of a template without marks are found in `goracs_jax.llm.unmarked`.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from goracs_jax.choices import Scored
from goracs_jax.errors import InputError, one_line
from goracs_jax.llm.conversations import Conversation, Message, in_parts
from goracs_jax.llm.texts import Between, Span, Text
from goracs_jax.llm.unmarked import Variant, find_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: What a template that writes messages at all writes.
_PROBES = ("Hoopoe-4711", "Lapwing-1147")
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
        self._in_parts: dict[str, bool] = {}

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
        end = self._closed(text)
        return self._text(
            text, Between(self.prompt(of).text, None if end == text else end)
        )

    def _marked(self, of: Conversation, source: str) -> Text:
        from transformers.utils.chat_template_utils import render_jinja_template

        values = {**self._tokenizer.special_tokens_map, **_options(of)}
        try:
            texts, spans = render_jinja_template(
                conversations=[_plain(self._as_read(of.messages, source))],
                tools=of.tools,
                chat_template=source,
                return_assistant_tokens_mask=True,
                **values,
            )
        except Exception as error:  # noqa: BLE001 (the template's, of any type)
            raise _refused(error) from None
        # transformers gives characters, whatever its annotations say.
        found: Any = spans[0]
        if all(start >= end for start, end in found):
            raise ValueError(
                "the chat template marks no answer of it: leave it out, or score "
                "everything with --labels all."
            )
        return self._text(texts[0], *(Span(start, end) for start, end in found))

    def _found(self, of: Conversation, source: str) -> Text:
        variant = Variant.of(source)
        # An answer starts with its thinking, if only to say that there is none.
        options = {k: v for k, v in of.options.items() if k != "enable_thinking"}
        asked = of._replace(options=options)

        def write(messages: Sequence[Message]) -> str:
            return self._render(messages, of, source=variant.source)

        def opened(messages: Sequence[Message]) -> str:
            return variant.unscored(
                self._render(messages, asked, opening=True, source=variant.source)
            )

        special = self._tokenizer.get_added_vocab()
        answers = find_answers(of.messages, write, opened, self._closed, special)
        return self._text(write(of.messages), *answers)

    def _closed(self, text: str) -> str:
        """Leave out spaces behind the end of text, which part turns: TRL scores none.

        Line feeds it scores.
        """
        closed, end = text.rstrip(" "), self._tokenizer.eos_token
        return closed if end and closed.endswith(str(end)) else text

    def _text(self, text: str, *answers: Span | Between) -> Text:
        return Text(text, answers, special=False, ended=False)

    def _chosen(self, of: Conversation) -> str:
        """Return the template's text: of several, transformers takes the default."""
        found = self._own(of) if self._source is None else self._source
        if found not in self._in_parts:
            self._in_parts[found] = self._try(found)
        return found

    def _as_read(self, messages: Sequence[Message], source: str) -> list[Message]:
        """Give a template of a model that sees pictures too its content in parts."""
        return in_parts(messages) if self._in_parts[source] else list(messages)

    def _try(self, source: str) -> bool:
        """Refuse what is no template of chats, and say whether it wants parts.

        It may refuse a chat of one question and one answer, which proves nothing.
        """
        roles = zip(("user", "assistant"), _PROBES, strict=True)
        chat: list[Message] = [{"role": role, "content": text} for role, text in roles]
        plain, parts = (self._probes(each, source) for each in (chat, in_parts(chat)))
        if max(plain or 0, parts or 0) == 0 and (plain, parts) != (None, None):
            raise self._faulty("writes nothing of what messages say (their content)")
        return (parts or 0) > (plain or 0)

    def _probes(self, chat: Sequence[Message], source: str) -> int | None:
        """Count what a template writes of a chat of probes; None if it refuses it."""
        from jinja2 import TemplateSyntaxError

        try:
            text = self._tokenizer.apply_chat_template(
                list(chat), chat_template=source, tokenize=False
            )
        except TemplateSyntaxError as error:
            raise self._faulty(
                f"is none of Jinja (line {error.lineno}: {one_line(error)})"
            ) from None
        except Exception:  # noqa: BLE001 (the template's, of any type)
            return None
        return sum(probe in str(text) for probe in _PROBES)

    def _faulty(self, why: str) -> InputError:
        which = "the model's chat template"
        if self._source is not None:
            which = "the chat template of --template"
        return InputError(
            f"{which} {why}: correct it, or give another one with --template FILE."
        )

    def _own(self, of: Conversation) -> str:
        try:
            found = self._tokenizer.get_chat_template(None, of.tools)
        except ValueError:
            several = self._tokenizer.chat_template
            lacks = "the model has no chat template"
            if isinstance(several, dict) and several:
                names = ", ".join(map(str, several))
                lacks = f"no chat template of the model is called default ({names})"
            raise InputError(
                f"these are chats, and {lacks}: give one with --template FILE, or take "
                "a model that was trained for chats."
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
        chosen, options = self._chosen(of), _options(of)
        try:
            found = self._tokenizer.apply_chat_template(
                self._as_read(messages, chosen),
                tools=of.tools,
                chat_template=source or chosen,
                add_generation_prompt=opening,
                tokenize=False,
                **options,
            )
        except Exception as error:  # noqa: BLE001 (the template's, of any type)
            raise _refused(error) from None
        return str(found)


def _options(of: Conversation) -> Mapping[str, Any]:
    """Return what a record gives its template, none of which is for the renderer."""
    if taken := sorted(of.options.keys() & _of_renderer()):
        raise ValueError(
            f"chat_template_kwargs has {', '.join(taken)}, which no template can have "
            "from a record: take it out."
        )
    return of.options


@cache
def _of_renderer() -> frozenset[str]:
    """The names that transformers takes for itself; documents are the template's."""
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.chat_template_utils import render_jinja_template

    calls = (PreTrainedTokenizerFast.apply_chat_template, render_jinja_template)
    names = {name for call in calls for name in inspect.signature(call).parameters}
    return frozenset(names | {"messages"}) - {"documents", "kwargs"}


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Leave out what is null, as `apply_chat_template` does."""
    return [{k: v for k, v in each.items() if v is not None} for each in messages]


def _refused(error: Exception) -> ValueError:
    return ValueError(
        f"the chat template refuses it ({one_line(error)}): change its roles or leave "
        "it out, or give another template with --template FILE."
    )
