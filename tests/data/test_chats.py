"""Records of all forms: how they are told apart, and what is refused."""

import json

import polars as pl
import pytest

from goracs_jax.data.chats import Keys
from goracs_jax.data.dataset_info import dataset_info
from goracs_jax.data.examples import read_examples
from goracs_jax.data.skipped import Skipped
from goracs_jax.data.texts import MOST_CHARACTERS
from goracs_jax.data.turns import turns_of
from goracs_jax.errors import InputError, RecordError

ASKED, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
FORMS = {
    "alpaca": {"instruction": "q", "output": "a"},
    "text": {"prompt": "q", "completion": "a"},
    "messages": {"messages": [ASKED, SAID]},
    "completion": {"prompt": [ASKED], "completion": [SAID]},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_keys_tell_the_form(form, tmp_path):
    record = FORMS[form] | {"id": 7}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(record))
    (example,) = read_examples(path)
    assert example.form == form
    assert example.record == record
    texts = ("q", "", "a") if form == "alpaca" else ("q", "a")
    assert (example.texts, example.output) == (texts, "a")
    changed = example.with_output("b")
    assert changed.output == "b"
    assert json.dumps(changed.record) == json.dumps(record).replace('"a"', '"b"')


@pytest.mark.parametrize("key", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize("messages", [[ASKED, SAID], SHARED])
def test_messages_have_several_names(key, messages):
    (example,) = read_examples([{key: messages}])
    roles = [message["role"] for message in example.conversation.messages]
    assert (roles, example.texts) == (["user", "assistant"], ("q", "a"))


def test_keys_can_be_named():
    dialog = [{"who": "human", "text": "q"}, {"who": "bot", "text": "a"}]
    columns = ["messages=dialog", "role=who", "content=text"]
    (example,) = read_examples([{"dialog": dialog, "output": "z"}], columns=columns)
    assert (example.form, example.texts) == ("messages", ("q", "a"))
    both = FORMS["alpaca"] | {"prompt": "p", "completion": "c"}
    assert read_examples([both])[0].output == "a"
    named = read_examples([both], columns=["prompt=prompt", "completion=completion"])
    assert named[0].output == "c"
    (example,) = read_examples([{"q": "x", "output": "o"}], columns=["instruction=q"])
    assert example.texts == ("x", "", "o")


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_one_chat_alone_is_one_record_whatever_its_turns_are(key, tmp_path):
    """An object around a list of objects can be a file of records, too."""
    path = tmp_path / "t.jsonl"
    turn = lambda who, text: {"speaker": who, "utterance": text}
    path.write_text(json.dumps({key: [turn("user", "q"), turn("bot", "a")]}) + "\n")
    with pytest.raises(RecordError, match=r"t\.jsonl:1: .*: the role is None"):
        read_examples(path)
    columns = ["role=speaker", "content=utterance"]
    assert read_examples(path, columns=columns)[0].texts == ("q", "a")
    for record in FORMS.values():
        path.write_text(json.dumps({key: [record, record]}))
        assert len(read_examples(path)) == 2


def test_parts_of_text_are_joined_and_tables_of_arrow_have_null(tmp_path):
    parts = [{"type": "text", "text": "q"}, {"type": "text", "text": "1"}]
    (example,) = read_examples([{"messages": [ASKED | {"content": parts}, SAID]}])
    assert example.texts == ("q1", "a")
    messages = [ASKED | {"from": None, "value": None}, SAID]
    pl.DataFrame({"messages": [messages]}).write_parquet(tmp_path / "t.parquet")
    (example,) = read_examples(tmp_path / "t.parquet")
    assert example.texts == ("q", "a")


def test_tables_have_all_keys_and_null_where_there_was_none(tmp_path):
    """A table of several forms at once, from which one was taken."""
    none = {key: None for record in FORMS.values() for key in record}
    for form, record in FORMS.items():
        (example,) = read_examples([none | record])
        assert example.form == form
    both = {"messages": None, "conversations": SHARED}
    assert read_examples([both])[0].texts == ("q", "a")


def test_messages_may_be_json_as_cells_of_csv_are(tmp_path):
    chats = [[ASKED, SAID], [ASKED, SAID, ASKED | {"content": "r"}, SAID]]
    rows = [{"id": i, "messages": json.dumps(chat)} for i, chat in enumerate(chats)]
    for kind in ("csv", "parquet"):
        path = tmp_path / f"t.{kind}"
        getattr(pl.DataFrame(rows), f"write_{kind}")(path)
        found = read_examples(path)
        assert [example.texts for example in found] == [
            ("q", "a"),
            ("q", "a", "r", "a"),
        ]
        assert [example.record["messages"] for example in found] == [
            row["messages"] for row in rows
        ]
        assert turns_of(found[1].record, Keys()).without(1) == chats[1][2:]
        changed = found[1].with_output("b")
        assert changed.texts == ("q", "a", "r", "b")
    assert dataset_info(found, "c.jsonl") is None


@pytest.mark.parametrize("key", ["system", "rules"])
def test_a_system_turn_may_stand_beside_the_messages(key):
    columns = [f"system={key}"] * (key != "system")
    record = {"conversations": SHARED, key: "Be brief."}
    (example,) = read_examples([record], columns=columns)
    roles = [message["role"] for message in example.conversation.messages]
    assert (roles, example.texts) == (
        ["system", "user", "assistant"],
        ("Be brief.", "q", "a"),
    )
    assert example.with_output("b").texts == ("Be brief.", "q", "b")
    assert dataset_info([example], "c.jsonl")["columns"]["system"] == key
    apart = FORMS["completion"] | {"system": "Be brief."}
    said = read_examples([apart])[0].conversation
    assert [message["role"] for message in said.messages[: said.start]] == roles[:2]
    for other in ({"system": ""}, {"system": {"os": "x"}}, {"system": None}):
        assert read_examples([FORMS["messages"] | other])[0].texts == ("q", "a")
    own = {"role": "system", "content": "Own."}
    (example,) = read_examples([chat(own, ASKED, SAID, system="Be brief.")])
    assert example.texts == ("Own.", "q", "a")
    turns = turns_of(chat(ASKED, SAID, ASKED, SAID, system="Be brief."), Keys())
    assert (turns.most, turns.without(1)) == (1, [ASKED, SAID])


@pytest.mark.parametrize("role", ["system", "tool"])
def test_only_questions_and_answers_must_say_something(role):
    (example,) = read_examples([chat({"role": role, "content": ""}, ASKED, SAID)])
    assert example.texts == ("", "q", "a")


def chat(*messages, **more):
    return {"messages": list(messages), **more}


def part(text):
    return {"type": "text", "text": text}


LONG = "a" * (MOST_CHARACTERS + 1)
REFUSED = {
    "no list": ({"messages": "hello"}, "'messages' must be a list of messages, got"),
    "nothing": ({"messages": []}, "'messages' must be a list of messages, got"),
    "text": (chat("hello", "you"), "'messages', message 1: not an object but str"),
    "role": (chat({"role": "judge", "content": "x"}, SAID), "the role is 'judge'"),
    "no role": (chat({"content": "x"}, SAID), "message 1: the role is None"),
    "empty": (chat(ASKED | {"content": " \n"}, SAID), "message 1: user says nothing"),
    "no content": (chat(ASKED, SAID | {"content": None}), "message 2: the content mus"),
    "parts": (chat(ASKED | {"content": ["q"]}, SAID), r"parts of text .*\['str'\]"),
    "image": (chat(ASKED | {"content": [{"type": "image"}]}, SAID), "parts of text"),
    "no answer": (chat(ASKED), "no message is the assistant's"),
    "no question": (chat(SAID), "the only answer has no question in front"),
    "tools": (chat(ASKED, SAID, tools="{"), "'tools' must be a list"),
    "no tools": (chat(ASKED, SAID, tools=["f"]), "'tools' must be a list of objects"),
    "calls": (chat(ASKED, SAID | {"tool_calls": 5}), "2: 'tool_calls' must be a list"),
    "part": (chat(ASKED | {"content": [part(5)]}, SAID), "only parts of text are read"),
    "long system": (chat(ASKED, SAID, system=LONG), "'system' has 500,001 characters"),
    "long tools": (chat(ASKED, SAID, tools=[{"f": LONG}]), "'tools' has 500,0.. char"),
    "long call": (chat(ASKED, SAID | {"tool_calls": [{"f": LONG}]}), "2 has 500,0"),
    "long thought": (chat(ASKED, SAID | {"thinking": LONG}), "message 2 has 500,0"),
    "half a pair": ({"messages": r'["\ud83d"]'}, "half of a surrogate pair"),
    "JSON of no list": ({"messages": '{"a": 1}'}, "'messages' must be a list of mess"),
    "no JSON": ({"messages": "[" * 10**5}, r"'messages' must be a list .*'\[\["),
    "null": ({"messages": None}, "'messages' must be a list of messages, got None"),
    "tools kind": (chat(ASKED, SAID, tools=5), "'tools' must be a list"),
    "options": (chat(ASKED, SAID, chat_template_kwargs=[1]), "must be an object"),
    "sides": ({"prompt": [ASKED], "completion": "a"}, "'completion' must be a list"),
    "other sides": ({"prompt": "q", "completion": [SAID]}, "must be .* both as lists"),
    "blank": ({"prompt": "q", "completion": " "}, "completion is empty: there is"),
    "side": ({"prompt": [ASKED], "completion": [ASKED]}, "no message of the comp"),
    "no form": ({"question": "q"}, "'instruction' is missing: .* --columns"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_place(case, tmp_path):
    record, named = REFUSED[case]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (FORMS["messages"], record)))
    kind = "prompt" if "prompt" in record else "messages"
    if kind == "prompt":
        path.write_text(json.dumps(FORMS["text"]) + "\n" + json.dumps(record))
    with pytest.raises(RecordError, match=rf"t\.jsonl:2: .*{named}"):
        read_examples(path)
    skipped = Skipped()
    (example,) = read_examples(path, skipped)
    assert (example.place[-2:], skipped.rows) == (":1", [1])


def test_two_forms_in_one_file_are_refused():
    with pytest.raises(InputError, match=r"record 2 is read as alpaca, .* as messages"):
        read_examples([FORMS["messages"], FORMS["alpaca"]])
    skipped = Skipped()
    assert len(read_examples([3, FORMS["messages"], FORMS["alpaca"]], skipped)) == 1
    assert dict(skipped.kinds) == {"no object": 1, "of another form": 1}


@pytest.mark.parametrize(
    "columns", [["messages"], ["dialog=x"], ["messages=a", "messages=b"], ["role="]]
)
def test_columns_that_name_nothing_are_refused(columns):
    with pytest.raises(InputError, match="--columns must be NAME=KEY"):
        read_examples([FORMS["messages"]], columns=columns)
    with pytest.raises(InputError, match="--columns messages, prompt are of different"):
        read_examples([FORMS["messages"]], columns=["messages=a", "prompt=b"])


def test_the_entry_of_llama_factory_has_the_names_of_the_file():
    info = lambda *records: dataset_info(read_examples(records), "c.jsonl")
    alpaca = [FORMS["alpaca"], FORMS["alpaca"] | {"input": "i"}]
    found = info(*alpaca)
    assert found["formatting"] == "alpaca"
    assert found["columns"] == {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
    }
    assert "query" not in info(FORMS["alpaca"])["columns"]
    found = info({"conversations": SHARED})
    assert found["columns"] == {"messages": "conversations"}
    assert found["tags"]["user_tag"] == "human"
    tags = info(FORMS["messages"])["tags"]
    assert (tags["role_tag"], tags["assistant_tag"]) == ("role", "assistant")
    assert info(FORMS["completion"]) is None
    turn = lambda name, text="x": {"from": name, "value": text}
    odd = [turn("Human"), turn("bing"), turn("function"), turn("bing")]
    few = [turn("Human"), turn("gpt")]
    tags = info({"conversations": few}, {"conversations": odd})["tags"]
    assert (tags["user_tag"], tags["assistant_tag"]) == ("Human", "bing")
    assert (tags["observation_tag"], tags["system_tag"]) == ("function", "system")
    assert info({"conversations": SHARED}, FORMS["messages"]) is None
    call = {"function": {"name": "f", "arguments": "{}"}}
    calls = chat(ASKED, SAID | {"content": "", "tool_calls": [call]}, ASKED, SAID)
    found = info(calls | {"tools": [call]})
    assert (found["formatting"], found["columns"]["tools"]) == ("openai", "tools")
    assert "tools" not in info(chat(ASKED, SAID, tools=[call]))["columns"]
    assert "tools" in info(chat(ASKED, SAID, tools=json.dumps([call])))["columns"]
