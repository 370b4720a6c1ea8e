import jax
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import AutoModelForCausalLM, AutoTokenizer

from goracs_jax.models import load_decoder
from goracs_jax.tokens import load_tokenizer

run = nnx.jit(lambda model, ids: model(ids))
TEXTS = [
    "The capital of France is 12345",
    'Below is an instruction that describes a task.\n\n### Input:\n  "Toy Story"\n',
    "naïve café, they'll don't — 3.14159\t\r\n\n  x=1; Ünïcödé 日本 😀",
]


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("old_rope", [True, False])
def test_logits(save_llama, num_kv_heads, tied, old_rope):
    theirs, folder = save_llama(
        old_rope=old_rope, num_key_value_heads=num_kv_heads, tie_word_embeddings=tied
    )
    ids = np.random.default_rng(0).integers(0, 96, (2, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    ours = run(load_decoder(folder, key=jax.random.key(0)), ids)
    # float32 through three layers, logits of size ten.
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_logits_with_wide_heads(save_llama):
    theirs, folder = save_llama(head_dim=12)
    ids = np.random.default_rng(0).integers(0, 96, (2, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    ours = run(load_decoder(folder, key=jax.random.key(0)), ids)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


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
    model = load_decoder(smollm2, key=jax.random.key(0))
    for text in TEXTS:
        ids = np.array([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected = theirs(torch.tensor(ids)).logits.numpy()
        # Thirty layers of float32, logits of size thirty.
        np.testing.assert_allclose(run(model, ids), expected, rtol=1e-3, atol=1e-3)


def test_smollm2_tokens(smollm2, both):
    _, theirs = both
    ours = load_tokenizer(smollm2)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours(TEXTS[0])["input_ids"] == [
        *(504, 3575, 282, 4649, 314, 216, 33, 34, 35, 36, 37)
    ]
    assert ours.eos_token_id == theirs.eos_token_id
