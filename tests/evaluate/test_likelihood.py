import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.evaluate.likelihood import answer_likelihoods, pack
from goracs_jax.llm.tokenization import load_tokenizer, tokenize
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import load_decoder

PROMPTS = ["oak elm\n### Response:\n", "a\n### Response:\n", "yew fir oak"]
ANSWERS = [['"oak"', '"elm and pine"', '"x"'], ['"ash"', '"a b c"'], ["o", "k", " k"]]
PLACES = ["t.jsonl:1", "t.jsonl:2", "t.jsonl:3"]


def joined(prompts, answers):
    rows = zip(prompts, answers, strict=True)
    return [[(prompt, answer) for answer in each] for prompt, each in rows]


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tiny.write_llm(tmp_path_factory.mktemp("likelihood") / "llm")
    return load_decoder(path, key=jax.random.key(0)), load_tokenizer(path)


def test_sums_are_those_of_each_text_alone(llm):
    model, tokenizer = llm
    packed = pack(joined(PROMPTS, ANSWERS), tokenizer, context=256, places=PLACES)
    found = answer_likelihoods(model, packed, tokens_per_batch=192)
    assert found.shape == (3, 3, 2)
    assert (found[1, 2] == 0).all()  # two answers only
    pairs = [(p, a) for p, row in zip(PROMPTS, ANSWERS, strict=True) for a in row]
    tokens = tokenize(pairs, tokenizer, labels="answer", context=256)
    rows = np.split(tokens.ids, tokens.offsets[1:-1])
    labels = np.split(tokens.labels, tokens.offsets[1:-1])
    padded = np.full((len(rows), max(map(len, rows))), -1)
    for slots, row in zip(padded, rows, strict=True):
        slots[: len(row)] = row
    logits = nnx.jit(lambda model, ids: model(ids))(model, jnp.asarray(padded))
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    expected = []
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        places = np.flatnonzero(label >= 0)
        total = sum(log_p[i, place - 1, row[place]] for place in places)
        expected.append([total, len(places)])
    found = np.concatenate([found[0], found[1, :2], found[2]])
    # Sums of some ten float32 logarithms of size ten.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_padding_changes_nothing(llm):
    """A hundred answers and more: what is read as an index must not come round."""
    model, _ = llm
    ids = np.random.default_rng(0).integers(0, 300, 144).tolist()
    branches = [0] * 5 + list(range(1, 129)) + [128] * 11
    one = ragged([ids, ids[:133]], [branches, branches[:133]])
    found = answer_likelihoods(model, one, tokens_per_batch=288)
    np.testing.assert_allclose(found[0, :127], found[1, :127], rtol=1e-5)
    assert (found[1, :, 1] == 1).all()


def test_the_prompt_stands_once_and_answers_end_with_the_text(llm):
    _, tokenizer = llm
    packed = pack(
        joined(PROMPTS[:1], ANSWERS[:1]), tokenizer, context=256, places=PLACES[:1]
    )
    parts = [packed.ids[packed.labels == i] for i in range(4)]
    assert tokenizer.decode(parts[0]) == PROMPTS[0]
    assert [tokenizer.decode(part) for part in parts[1:]] == [
        answer + "<eos>" for answer in ANSWERS[0]
    ]


def test_likelihoods_that_are_not_finite_are_refused(llm):
    graph, state = nnx.split(llm[0])
    spoilt = nnx.merge(graph, jax.tree.map(lambda x: x * jnp.nan, state))
    packed = pack(
        joined(PROMPTS[:2], ANSWERS[:2]), llm[1], context=256, places=PLACES[:2]
    )
    with pytest.raises(NumericalError, match=r"of example 1 are not finite \(2 of 2"):
        answer_likelihoods(spoilt, packed)


def test_what_is_too_long_is_named(llm):
    _, tokenizer = llm
    texts = joined(PROMPTS, [["a"], ["b" * 300], ["c"]])
    with pytest.raises(InputError, match=r"t\.jsonl:2 has \d+ tokens, more than"):
        pack(texts, tokenizer, context=99, places=PLACES)
