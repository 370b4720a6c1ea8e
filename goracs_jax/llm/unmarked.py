"""The answers of a chat whose template marks none, found as TRL's variants mark them.

TRL scores the answers of templates that it knows by variants of them with marks. What
these do otherwise than the template says is in the tables below.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from goracs_jax.llm.conversations import Message
from goracs_jax.llm.texts import WRITES_ANEW, Between, common

#: Conditions by which Qwen 3 and its successors leave out the thinking of all answers
#: but the last. TRL trains on answers as the model wrote them: with it.
_HIDES_THINKING = (
    "loop.index0 > ns.last_query_index",
    "loop.last or (not loop.last and reasoning_content)",
)
#: Where a template opens an answer with its thinking, or with none, TRL scores that.
_THINKING = re.compile(r"<think>\n(\n</think>\n\n)?\Z")
_DEEPSEEK = "<｜Assistant｜>|<｜tool▁outputs▁end｜>"
_HARMONY = r"<\|start\|>assistant"
#: The pattern of what else TRL scores of an opening, by the SHA-256 of the template.
_SCORED_OPENING = {
    # Qwen 2.5
    "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f": "\n",
    # DeepSeek V3, and R1 in the distilled models
    "563b1ce7d61d50a9b4c7439a912a1116f095b712df5b5e4d3e1116049874eb64": _DEEPSEEK,
    "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f": _DEEPSEEK,
    # gpt-oss and Muse Glimmer
    "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146": _HARMONY,
    "cfc67e5f349f37690dfd31ed1f18bc4442a9dd32fe39a648f993cb4eb3cae678": _HARMONY,
}
#: What TRL replaces in a template, by its SHA-256.
_REWRITTEN = {
    # DeepSeek R1, distilled: it drops the thinking of all answers.
    "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f": (
        "if '</think>' in content",
        "if false",
    ),
    # GLM 4 MoE: no turn has an end, and the opening of the next one ends an answer.
    "44f815868bf02fa458dd2f741a338046f4bf45f398eb6d067766726b9d96cce3": (
        "{%- if add_generation_prompt -%}",
        "{%- if messages[-1].role == 'assistant' -%}{{ '<|observation|>' if "
        "messages[-1].tool_calls else '<|user|>' }}{%- endif -%}"
        "{%- if add_generation_prompt -%}",
    ),
}
#: What is behind the content to find its end: no template writes it of itself.
_PROBE = "Hoopoe-4711"


class Variant(NamedTuple):
    """What TRL makes of a template: its text, and what it scores of an opening."""

    source: str
    scored: str = ""

    @classmethod
    def of(cls, source: str) -> "Variant":
        """Return the variant of a template: for most, thinking that is not hidden."""
        name = hashlib.sha256(source.encode()).hexdigest()
        source = source.replace(*_REWRITTEN.get(name, ("", "")))
        for condition in _HIDES_THINKING:
            source = source.replace(condition, "true")
        return cls(source, _SCORED_OPENING.get(name, ""))

    def unscored(self, opened: str) -> str:
        """Take what is scored of the opening of an answer from the end of a text."""
        return re.sub(rf"({self.scored})\Z", "", _THINKING.sub("", opened))


def find_answers(
    messages: Sequence[Message],
    write: Callable[[Sequence[Message]], str],
    opened: Callable[[Sequence[Message]], str],
    closed: Callable[[str], str],
    special: Collection[str],
) -> list[Between]:
    """Find the turns of the assistant: each between the chat before and with it.

    Args:
        messages: The chat.
        write: Writes messages as text.
        opened: Writes messages and what is not scored of the opening of an answer.
        closed: Takes from a text what is behind the end of its last turn.
        special: The special tokens, of which one may close a turn.

    Raises:
        ValueError: The chat starts with an answer, or an answer cannot be found.
    """
    text, found, reached = write(messages), [], 0
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if not i:
            raise ValueError(
                "the chat starts with an answer: leave it out, or put a question in "
                "front."
            )
        before, last = opened(messages[:i]), i + 1 == len(messages)
        upto = closed(text if last else write(messages[: i + 1]))
        if not text.startswith(upto):
            upto = _in_place(text, upto, messages, i, write, special)
        # A chat that goes on may write earlier answers otherwise than a chat that ends
        # with a question, as those that hide the thinking in front of the last one.
        if common(text, before) < reached:
            raise ValueError(WRITES_ANEW)
        reached = common(text, upto)
        found.append(Between(before, None if upto == text else upto))
    return found


def _in_place(
    text: str,
    upto: str,
    messages: Sequence[Message],
    i: int,
    write: Callable[[Sequence[Message]], str],
    special: Collection[str],
) -> str:
    """Write a chat up to the end of an answer as it stands once more turns follow."""
    longer = [*messages]
    longer[i] = longer[i] | {"content": f"{longer[i].get('content') or ''}{_PROBE}"}
    end = common(text, write(longer))
    end_alone = common(upto, write(longer[: i + 1]))
    closing, rest = upto[end_alone:], text[end:]
    if text[:end] == upto[:end_alone]:
        # Where one token closes the last turn, another one may close those before it,
        # as in gpt-oss. What some write behind a whole chat is no part of the answer.
        others = [token for token in special if rest.startswith(token)]
        if closing.strip() in special and others:
            return text[:end] + max(others, key=len)
        return upto
    if not rest.startswith(closing) or end == len(text):
        raise ValueError(WRITES_ANEW)
    return text[:end] + closing
