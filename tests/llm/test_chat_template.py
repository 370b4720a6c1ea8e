"""How records of every form are written and scored; the table of docs/chat.md."""

import json
import re
import shutil
from pathlib import Path

import chats
import numpy as np
import pytest
from chats import scored_texts

from goracs_jax.data.examples import read_examples
from goracs_jax.errors import InputError, RecordError
from goracs_jax.llm.template_choice import TemplateChoice, encoder_template
from goracs_jax.llm.tokenization import load_tokenizer, tokenize

PAGE = (Path(__file__).parents[2] / "docs/chat.md").read_text()
ROWS = [
    [cell.strip().strip("`").replace("⏎", "\n") for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `{")
]
PLAIN = (
    "{% for m in messages %}{{ '<start>' + m.role + '\n' + m.content + '<end>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start>assistant\n' }}{% endif %}"
)
# A template that has marks, and answers outside of them.
NO_MARKS = "{{ messages[0].content }}{% if false %}{% generation %}{% endgeneration %}"
NO_MARKS += "{% endif %}"
# A template that writes earlier answers anew.
FORGETS = (
    "{% for m in messages %}{{ '<start>' + m.role + '\n' }}"
    "{% if m.role == 'user' or loop.last %}{{ m.content }}{% endif %}{{ '<end>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return chats.write_tokenizer(tmp_path_factory.mktemp("chats") / "llm", PLAIN)


@pytest.mark.parametrize("row", ROWS, ids=[row[1] for row in ROWS])
def test_the_table_of_the_documentation_is_true(row, folder):
    record, form, text, scored = row
    assert read_examples([json.loads(record)])[0].form == form
    assert scored_texts(folder, [json.loads(record)]) == [(text, scored)]
    assert scored_texts(folder, [json.loads(record)], "all") == [(text, text)]


def test_every_form_has_a_row():
    assert {row[1] for row in ROWS} == {"alpaca", "text", "messages", "completion"}


def test_all_turns_of_the_assistant_are_scored_and_no_system_turn(folder):
    records = [{"messages": each} for each in chats.WITH_SYSTEM.values()]
    (_, one), (_, two) = scored_texts(folder, records)
    assert (one, two) == ("yo<end>\n", "b<end>\nd<end>\n")


def test_any_form_is_written_by_any_template(folder, tmp_path):
    alpaca = {"instruction": "q", "input": "i", "output": "a"}
    ((text, scored),) = scored_texts(folder, [alpaca], name="chat")
    assert text == "<start>user\nq\ni<end>\n<start>assistant\na<end>\n"
    assert scored == "a<end>\n"
    plain = {"prompt": "q", "completion": "a"}
    ((text, _),) = scored_texts(folder, [plain], name="alpaca")
    assert text == "### Instruction:\nq\n\n### Response:\na<eos>"
    chat = {"messages": chats.TURNS["one"]}
    ((text, _),) = scored_texts(folder, [chat], name="alpaca")
    assert text.endswith("### Response:\nThat one.<eos>")
    (tmp_path / "t.jinja").write_text(chats.INST)
    ((text, scored),) = scored_texts(folder, [chat], name=str(tmp_path / "t.jinja"))
    assert (text, scored) == (
        "<bos>[INST] Which one? [/INST] That one.<eos>",
        " That one.<eos>",
    )


def test_answers_can_be_changed_and_prompts_end_where_they_start(folder):
    tokenizer = load_tokenizer(folder)
    for record in ({"messages": chats.TURNS["two"]}, json.loads(ROWS[-1][0])):
        (example,) = read_examples([record])
        template = TemplateChoice().of(example.form, tokenizer)
        said = example.conversation
        prompt, text = template.prompt(said).text, template.answered(said, "No").text
        assert text == prompt + "No<end>\n"
        assert prompt.endswith("<start>assistant\n")


def test_encoders_read_texts_without_control_tokens():
    (example,) = read_examples([{"messages": chats.TURNS["two"]}])
    template = encoder_template(example.form)
    assert template.whole(example.conversation, "all").text == "hi\nyo\nand?\nso."
    assert template.prompt(example.conversation).text == "hi\nyo\nand?"


@pytest.mark.parametrize(
    ("template", "turns", "named"),
    [
        (chats.INST, chats.WITH_SYSTEM["system"], "refuses it .*must alternate"),
        (FORGETS, chats.TURNS["two"], "writes an answer otherwise once more turns"),
        (None, chats.TURNS["one"], ".*the model has no chat template: give one"),
        (NO_MARKS, chats.TURNS["one"], "marks no answer of it"),
        (NO_MARKS.replace("false", "true"), chats.TURNS["one"], "marks no answer"),
        ("{{ messages[0].no.thing }}", chats.TURNS["one"], "the chat template refuses"),
        (PLAIN, chats.said(("assistant", "a")) + chats.TURNS["two"], "starts with an"),
    ],
)
def test_what_a_template_cannot_write_is_one_line(template, turns, named, tmp_path):
    folder = chats.write_tokenizer(tmp_path / "llm", template or "")
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    place = "" if template is None else "list, record 1: .*"
    with pytest.raises(InputError, match=f"^{place}{named}") as error:
        scored_texts(folder, [{"messages": turns}])
    assert "\n" not in str(error.value)


def test_of_several_templates_the_default_is_taken(folder, tmp_path):
    chat = [{"messages": chats.TURNS["one"]}]
    own = shutil.copytree(folder, tmp_path / "llm")
    (own / "chat_template.jinja").unlink()
    more = own / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text(chats.INST)
    with pytest.raises(InputError, match=r"is called default \(tool_use\)"):
        scored_texts(own, chat)
    (own / "chat_template.jinja").write_text(PLAIN)
    assert scored_texts(own, chat) == scored_texts(folder, chat)


def test_a_template_may_stand_in_json(folder, tmp_path):
    """As in chat_template.json; Jinja would write the braces as text."""
    records = [{"messages": chats.TURNS["two"]}]
    path = tmp_path / "chat_template.json"
    path.write_text(json.dumps({"chat_template": chats.INST, "other": 1}))
    (tmp_path / "t.jinja").write_text(chats.INST)
    found, expected = (
        scored_texts(folder, records, name=str(name))
        for name in (path, tmp_path / "t.jinja")
    )
    assert found == expected
    assert TemplateChoice.read(str(path)).identity == {
        "template": TemplateChoice.read(str(tmp_path / "t.jinja")).identity["template"]
    }


@pytest.mark.parametrize("scored", ["answer", "all"])
@pytest.mark.parametrize("template", [PLAIN, chats.CHATML_MARKED])
def test_a_template_that_reads_parts_is_given_parts(template, scored, tmp_path):
    """Templates of models that see pictures write nothing of content that is text."""
    folder = chats.write_tokenizer(tmp_path / "llm", template)
    (tmp_path / "parts.jinja").write_text(
        re.sub(r"\b(m\w*)(\.content|\['content'\])", r"\1\2[0]['text']", template)
    )
    records = [{"messages": chats.TURNS[name]} for name in ("one", "two")]
    given = scored_texts(folder, records, scored)
    name = str(tmp_path / "parts.jinja")
    assert scored_texts(folder, records, scored, name=name) == given


# What stands in PLAIN for the content: the question in parts alone, the answer in both
# ways; and content that is text is refused.
MIXED = (
    "{% if m.role == 'user' %}{% for p in m.content if p.type == 'text' %}{{ p.text }}"
    "{% endfor %}{% elif m.content is string %}{{ m.content }}"
    "{% elif m.content %}{{ m.content[0].text }}{% endif %}"
)
STRICT = (
    "{% if m.content is string %}{{ raise_exception('no parts') }}{% endif %}"
    "{% for p in m.content or () %}{{ p.text }}{% endfor %}"
)


@pytest.mark.parametrize("scored", ["answer", "all"])
@pytest.mark.parametrize("content", [MIXED, STRICT])
def test_a_template_is_given_that_of_which_it_writes_most(content, scored, tmp_path):
    assert "m.content + " in PLAIN
    wants = PLAIN.replace("m.content + '<end>\n'", f"'' }}}}{content}{{{{ '<end>\n'")
    call = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    calls = {"role": "assistant", "content": None, "tool_calls": call}
    tool = {"role": "tool", "content": "2"}
    plain = [{"messages": chats.TURNS[name]} for name in ("one", "two")]
    called = [
        {"messages": [*chats.TURNS["one"][:1], calls, tool, chats.TURNS["one"][1]]}
    ]
    expected = scored_texts(chats.write_tokenizer(tmp_path / "p", PLAIN), plain, scored)
    folder = chats.write_tokenizer(tmp_path / "llm", wants)
    assert scored_texts(folder, plain, scored) == expected
    ((text, _),) = scored_texts(folder, called, scored)
    assert text.startswith(expected[0][0].removesuffix("That one.<end>\n") + "<end>\n")
    assert text.endswith("That one.<end>\n")


@pytest.mark.parametrize("scored", ["answer", "all"])
@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("Hello.", "writes nothing of what messages say"),
        ("instruction: '{history}'", "writes nothing of what messages say"),
        ("{% for m in conversation %}{{ m.content }}{% endfor %}", "writes nothing"),
        ("{% for m in messages %}{{ m.text }}{% endfor %}", "writes nothing"),
        ("", "writes nothing of what messages say"),
        ("{% for m in messages %}{{ m.content }", r"is none of Jinja \(line 1"),
    ],
)
def test_what_is_no_template_of_chats(template, named, scored, tmp_path):
    """It is not that the records are bad, so they are not to be left out."""
    folder = chats.write_tokenizer(tmp_path / "llm", "")
    (folder / "chat_template.jinja").write_text(template)
    records = [{"messages": chats.TURNS["two"]}]
    with pytest.raises(InputError, match=f"^the model's chat template {named}") as err:
        scored_texts(folder, records, scored)
    assert not isinstance(err.value, RecordError)


@pytest.mark.parametrize("template", [PLAIN, chats.CHATML_MARKED])
@pytest.mark.parametrize(
    "name",
    [
        *("messages", "tools", "chat_template", "tokenize", "add_generation_prompt"),
        *("continue_final_message", "padding", "return_dict", "self", "conversation"),
    ],
)
def test_options_of_a_record_are_the_template_s_alone(name, template, tmp_path):
    folder = chats.write_tokenizer(tmp_path / "llm", template)
    record = {"messages": chats.TURNS["one"], "chat_template_kwargs": {name: True}}
    for scored in ("answer", "all"):
        with pytest.raises(RecordError, match=f"record 1: chat_.*kwargs has {name},"):
            scored_texts(folder, [record], scored)
    options = {"documents": [], "a b": 1, "bos_token": "x", "range": 3}
    record = record | {"chat_template_kwargs": options}
    assert scored_texts(folder, [record])[0][1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1]", "JSON without a text called chat_template"),
        ("{% for x in %}", "no chat template in Jinja .line 1"),
        (" ", "is empty"),
    ],
)
def test_a_file_that_is_no_template_is_refused(text, named, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(text)
    with pytest.raises(InputError, match=named):
        TemplateChoice.read(str(path))
    with pytest.raises(InputError, match="does not exist"):
        TemplateChoice.read(str(tmp_path / "none"))


def test_a_template_reads_no_file_and_runs_no_code(folder, tmp_path):
    """The sandbox of transformers: attributes of Python's inside are out of reach."""
    path = tmp_path / "t.jinja"
    path.write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InputError, match="the chat template refuses it"):
        scored_texts(folder, [{"messages": chats.TURNS["one"]}], name=str(path))


def test_prompts_have_the_tokens_of_training(folder):
    """What is generated from, or embedded alone, is the start of what is trained on."""
    tokenizer = load_tokenizer(folder)
    (example,) = read_examples([{"messages": chats.TURNS["two"]}])
    template = TemplateChoice().of(example.form, tokenizer)
    texts = [template.prompt(example.conversation)]
    prompt = tokenize(texts, tokenizer, context=999).ids
    whole = [template.whole(example.conversation, "answer")]
    found = tokenize(whole, tokenizer, labels="answer", context=999)
    np.testing.assert_array_equal(prompt, found.ids[: len(prompt)])
    assert found.labels[len(prompt)] >= 0 > found.labels[len(prompt) - 1]
