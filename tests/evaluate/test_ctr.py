import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from goracs_jax.data.examples import Example
from goracs_jax.errors import InputError
from goracs_jax.evaluate.ctr import ask, read_answers, yes_margins
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokenization import load_tokenizer
from goracs_jax.models import load_decoder


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tiny.write_llm(tmp_path_factory.mktemp("ctr") / "llm")
    return load_decoder(path, key=jax.random.key(0)), load_tokenizer(path)


def examples(outputs):
    return [
        Example(
            {"instruction": "Like?", "input": "oakelm"[i:], "output": output},
            f"t.jsonl:{i + 1}",
        )
        for i, output in enumerate(outputs)
    ]


def test_margins_are_those_of_all_logits(llm):
    model, tokenizer = llm
    records = examples(["Yes", "No", "No", "Yes.", "No", "Yes"])
    questions = ask(records, tokenizer, context=256)
    found = yes_margins(model, questions, tokens_per_batch=160)
    pair = [tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No")]
    assert [questions.yes, questions.no] == pair
    logits = nnx.jit(lambda model, ids: model(ids))
    prompts = [
        tokenizer(format_prompt(each.record).prompt)["input_ids"] for each in records
    ]
    padded = np.full((6, max(map(len, prompts))), -1)
    for row, ids in zip(padded, prompts, strict=True):
        row[: len(ids)] = ids
    z = np.asarray(logits(model, jnp.asarray(padded)), np.float64)
    z = z[np.arange(6), [len(ids) - 1 for ids in prompts]][:, pair]
    # float32 through two layers; logits of the order of 1.
    np.testing.assert_allclose(found, z[:, 0] - z[:, 1], atol=1e-5)
    assert np.ptp(found) > 1e-3  # the prompts matter


def test_space_before_the_answer_chooses_the_token(llm):
    _, tokenizer = llm
    plain = ask(examples(["Yes", "No"]), tokenizer, context=256)
    spaced = ask(examples([" Yes", " No."]), tokenizer, context=256)
    assert tokenizer.convert_ids_to_tokens([spaced.yes, spaced.no]) == ["ĠYes", "ĠNo"]
    np.testing.assert_array_equal(plain.tokens.ids, spaced.tokens.ids)


def test_answers_are_read():
    assert read_answers(examples(["Yes", " No.", "No"])).tolist() == [
        True,
        False,
        False,
    ]
    with pytest.raises(InputError, match=r"t\.jsonl:2: output must be Yes or No, got"):
        read_answers(examples(["Yes", '"Heat"']))


def test_words_of_several_tokens_are_refused(llm, tmp_path):
    path = tiny.write_llm(tmp_path / "llm", words="### Response:")
    with pytest.raises(InputError, match=r"t\.jsonl:1: Yes is not one token"):
        ask(examples(["Yes", "No"]), load_tokenizer(path), context=256)
    _, tokenizer = llm
    mixed = examples(["Yes", " No"])
    with pytest.raises(InputError, match=r"t\.jsonl:2: Yes is not one token .* same"):
        ask(mixed, tokenizer, context=256)
    with pytest.raises(InputError, match=r"t\.jsonl:1 has \d+ tokens"):
        ask(examples(["Yes"]), tokenizer, context=10)
