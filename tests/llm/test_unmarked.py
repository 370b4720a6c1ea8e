"""Answers of templates without marks, where earlier ones are written otherwise."""

import chats
import pytest
from chats import called, said, scored_texts

from goracs_jax.errors import InputError

OPEN = "{% if add_generation_prompt %}{{ '<start>assistant\n' }}{% endif %}"
EACH = "{% for m in messages %}{{ '<start>' + m.role + '\n' + CONTENT }}{% endfor %}"
PLAIN = EACH.replace("CONTENT", "m.content + '<end>\n'")
# As gpt-oss: another token closes the last turn.
CLOSES = EACH.replace(
    "CONTENT",
    "m.content + ('<return>' if loop.last and m.role[0] == 'a' else '<end>') + '\n'",
)
# As Phi 3: something stands behind the whole chat.
ENDS = PLAIN + "{{ eos_token if messages[-1].role == 'assistant' }}"
# As GLM 4 and Nemotron 3: only what follows the last question keeps its thinking.
FORGETS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
) + PLAIN.replace(
    "m.content +",
    "(m.content if loop.index0 > ns.last else m.content.split('</think>')[-1]) +",
)
# As Qwen 3.5, Nemotron 3 and DeepSeek: thinking, or none, is opened.
OPENS = PLAIN + OPEN.replace("assistant\n", "assistant\n<think>\n")
OPENS_NONE = PLAIN + OPEN.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n")

THOUGHTS = "<think>\nhm\n</think>\n\nyo<end>\n<think>\nwell\n</think>\n\nso.<end>\n"


@pytest.mark.parametrize(
    ("template", "kind", "expected"),
    [
        (PLAIN + OPEN, "two", "yo<end>\nso.<end>\n"),
        (CLOSES + OPEN, "two", "yo<end>so.<return>\n"),
        (CLOSES.replace(" + '\n'", "") + OPEN, "two", "yo<end>so.<return>"),
        (CLOSES + OPEN, "open", "yo 😀<end>"),
        (ENDS + OPEN, "two", "yo<end>\nso.<end>\n<eos>"),
        (FORGETS + OPEN, "two", "yo<end>\nso.<end>\n"),
        (
            FORGETS + OPEN,
            "thinking",
            "\n\nyo<end>\n<think>\nwell\n</think>\n\nso.<end>\n",
        ),
        (FORGETS + OPEN, "open", "yo 😀<end>\n"),
        (OPENS, "thinking", THOUGHTS),
        (OPENS, "two", "yo<end>\nso.<end>\n"),
        (OPENS_NONE, "two", "yo<end>\nso.<end>\n"),
    ],
)
def test_answers_are_found_as_they_stand(template, kind, expected, tmp_path):
    folder = chats.write_tokenizer(tmp_path / "llm", template)
    ((_, scored),) = scored_texts(folder, [{"messages": chats.TURNS[kind]}])
    assert scored == expected


def test_what_cannot_be_told_apart_is_refused_not_half_scored(tmp_path):
    """A prompt that ends with a tool's output keeps the thinking in front of it."""
    folder = chats.write_tokenizer(tmp_path / "llm", FORGETS + OPEN)
    thought = "<think>\na\n</think>\n\nhm"
    chat = [*said(("user", "f?")), *called(thought, 1), *said(("assistant", "It is."))]
    ((_, scored),) = scored_texts(folder, [{"messages": chat}])
    assert scored == f"{thought}<end>\nIt is.<end>\n"
    longer = [*chat, *chats.TURNS["one"]]
    with pytest.raises(InputError, match=r"record 1: .* writes an answer otherwise"):
        scored_texts(folder, [{"messages": longer}])


def test_marks_take_all_tokens_of_the_last_letter(tmp_path):
    marked = PLAIN.replace(
        "+ m.content + '<end>\n' }}",
        "}}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '<end>\n' }}",
    )
    assert marked != PLAIN
    folder = chats.write_tokenizer(tmp_path / "llm", marked + OPEN)
    ((_, scored),) = scored_texts(folder, [{"messages": chats.TURNS["letters"]}])
    assert scored == "théâtre 😀😀"
