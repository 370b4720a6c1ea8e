import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from families import FAMILIES, old_spelling
from flax import nnx
from transformers import AutoModelForCausalLM, AutoTokenizer

from goracs_jax.llm.tokenization import load_tokenizer
from goracs_jax.models import load_decoder

KEY = jax.random.key(0)
# Through many layers of float32; a relative error is one of the largest logit.
F32 = 1e-4
run = nnx.jit(lambda model, ids: model(ids))
IDS = np.random.default_rng(0).integers(0, 96, (2, 40))
TEXTS = [
    "The capital of France is 12345",
    'Below is an instruction that describes a task.\n\n### Input:\n  "Toy Story"\n',
    "naïve café, they'll don't — 3.14159\t\r\n\n  x=1; Ünïcödé 日本 😀",
]


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.float().numpy()


def assert_close(ours, theirs, tolerance):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * abs(theirs).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_logits(save_decoder, family):
    theirs, folder = save_decoder(family)
    expected = logits(theirs)
    assert_close(run(load_decoder(folder, key=KEY), IDS), expected, F32)
    old_spelling(folder)
    assert_close(run(load_decoder(folder, key=KEY), IDS), expected, F32)


@pytest.mark.parametrize("num_kv_heads", [1, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_other_shapes(save_decoder, num_kv_heads, tied):
    shape = {"num_key_value_heads": num_kv_heads, "head_dim": 12}
    theirs, folder = save_decoder(tie_word_embeddings=tied, **shape)
    assert_close(run(load_decoder(folder, key=KEY), IDS), logits(theirs), F32)


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"]
)
def test_bfloat16_logits(save_decoder, family):
    """bfloat16 rounds by up to 2^-9, at the same places here as in torch.

    (Here less often: norms and angles stay in float32 until their end.) So the distance
    to the exact logits has the same size in the mean.
    """
    theirs, folder = save_decoder(family)
    exact = logits(theirs)
    error = lambda x: np.sqrt(np.mean((np.asarray(x, np.float32) - exact) ** 2))
    expected = error(logits(theirs.bfloat16()))
    assert expected < 0.05 * np.std(exact)
    ours = run(load_decoder(folder, key=KEY, dtype=jnp.bfloat16), IDS)
    assert ours.dtype == jnp.bfloat16
    # A quarter for chance: the mean is over 7,680 logits, but they share roundings.
    assert error(ours) <= 1.25 * expected


@pytest.fixture(scope="module")
def both(smollm2):
    where = {"gguf_file": smollm2.name}
    return (
        AutoModelForCausalLM.from_pretrained(
            smollm2.parent, dtype=torch.float32, **where
        ).eval(),
        AutoTokenizer.from_pretrained(smollm2.parent, **where),
    )


def test_smollm2_logits(smollm2, both):
    theirs, tokenizer = both
    model = load_decoder(smollm2, key=KEY)
    for text in TEXTS:
        ids = np.array([tokenizer(text)["input_ids"]])
        assert_close(run(model, ids), logits(theirs, ids), F32)


def test_smollm2_tokens(smollm2, both):
    _, theirs = both
    ours = load_tokenizer(smollm2)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours(TEXTS[0])["input_ids"] == [
        *(504, 3575, 282, 4649, 314, 216, 33, 34, 35, 36, 37)
    ]
    assert ours.eos_token_id == theirs.eos_token_id
