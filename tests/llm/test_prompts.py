import json

import pytest

from goracs_jax.errors import InputError
from goracs_jax.llm.prompts import (
    ctr_record,
    format_prompt,
    read_template,
    seqrec_record,
)


def test_input_may_be_empty_or_missing():
    bare = format_prompt({"instruction": "Say hi.", "output": "hi"})
    assert bare == format_prompt(
        {"instruction": "Say hi.", "input": "", "output": "hi"}
    )
    assert "### Input" not in bare.prompt
    assert bare.prompt.endswith("### Response:\n")


def test_seqrec_text():
    prompt, answer = format_prompt(seqrec_record(["Heat", "Fargo"], "Alien"))
    assert '"Heat", "Fargo"' in prompt
    assert "movie the user will choose next" in prompt
    assert answer == '"Alien"'
    assert "Alien" not in prompt


def test_titles_with_braces_stay_as_they_are():
    assert seqrec_record(["{target}"], "{0}")["input"] == '"{target}"'


def write_template(folder, **changes):
    fields = {"instruction": "Next?", "input": "{history}", "output": "{target}"}
    path = folder / "t.yaml"
    path.write_text(json.dumps({k: v for k, v in (fields | changes).items() if v != 0}))
    return path


def test_own_template(tmp_path):
    path = write_template(tmp_path, quote="*", separator=" / ", empty="-")
    record = seqrec_record(["A", "B"], "C", template=read_template(path, "seqrec"))
    assert record == {"instruction": "Next?", "input": "*A* / *B*", "output": "*C*"}


def test_own_template_in_yaml_for_ctr(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(
        "instruction: Will {target} do?\ninput: '{liked}'\noutput: '{answer}.'\n"
    )
    template = read_template(path, "ctr")
    record = ctr_record([("A", False)], ("C", True), template=template)
    assert record == {
        "instruction": 'Will "C" do?',
        "input": "none",
        "output": "Yes.",
    }


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("seqrec", {"output": 0}, r"missing: output; a template has input, instru"),
        ("seqrec", {"outptu": "x"}, r"unknown: outptu; a template has"),
        ("seqrec", {"input": 7}, r"input must be a string: quote it"),
        ("seqrec", {"instruction": "a\0"}, r"instruction has NUL or half of a"),
        ("seqrec", {"output": "{target}\ud800"}, r"output has NUL or half of a"),
        ("seqrec", {"input": "{past}"}, r"input: \{past\} is unknown: there is \{hist"),
        ("seqrec", {"input": "{history.x}"}, r"input: \{history\.x\} is unknown"),
        ("seqrec", {"input": "{history:>9}"}, r"input: \{history\} is unknown"),
        ("seqrec", {"input": "{history"}, r"input: expected '\}' before end.*\{\{ and"),
        (
            "seqrec",
            {"input": "{history} {target}"},
            r"\{target\} is what .* in output only",
        ),
        ("seqrec", {"output": "x"}, r"output needs \{target\}"),
        ("seqrec", {"input": "x"}, r"the prompt needs \{history\}"),
        ("seqrec", {"input": "{liked}"}, r"input: \{liked\} is unknown"),
        ("ctr", {"output": "{answer}"}, r"the prompt needs \{target\}, the title"),
        ("ctr", {"input": "{answer}"}, r"\{answer\} is what the model is to learn"),
        (
            "ctr",
            {"input": "{target}", "output": "{answer}"},
            r"the prompt needs \{disliked\} or \{history\} or \{liked\}",
        ),
    ],
)
def test_bad_templates(tmp_path, task, changes, message):
    with pytest.raises(InputError, match=message):
        read_template(write_template(tmp_path, **changes), task)
