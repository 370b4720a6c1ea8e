from goracs_jax.prompts import format_prompt, seqrec_record


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
