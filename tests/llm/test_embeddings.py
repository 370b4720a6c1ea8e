import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.embeddings import (
    embed_with_decoder,
    embed_with_encoder,
    encoder_tokens,
)
from goracs_jax.llm.lower import lower_states
from goracs_jax.llm.tokens import NOT_SCORED, ragged
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    LoraConfig,
)
from goracs_jax.models.targets import Rules

TINY = DecoderConfig.tiny()
ENCODER = EncoderConfig(
    vocab_size=20,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=2,
    num_positions=12,
    first_position=2,
    num_types=1,
    norm_eps=1e-12,
    gelu="exact",
    pooling="mean",
    normalize=False,
    lowercase=False,
    max_tokens=8,
)
TEXTS = ["a b c d", "c", "b b a d c a", "d a"]
F32 = {"rtol": 1e-5, "atol": 1e-6}
hidden = nnx.jit(lambda model, ids: model.hidden(ids))


@pytest.fixture(scope="module")
def tokenizer():
    words = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "a": 3, "b": 4, "c": 5, "d": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def encoder(**changes):
    return Encoder(dataclasses.replace(ENCODER, **changes), key=jax.random.key(0))


def test_decoder_vectors_are_those_of_each_example_alone():
    model = Decoder(TINY, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    examples = [rng.integers(0, 96, n).tolist() for n in (5, 40, 1, 17)]
    found = embed_with_decoder(model, ragged(examples), tokens_per_batch=48)
    expected = [jnp.mean(hidden(model, jnp.asarray(row)), axis=0) for row in examples]
    np.testing.assert_allclose(found, np.stack(expected), **F32)
    last = embed_with_decoder(
        model, ragged(examples), pooling="last", tokens_per_batch=48
    )
    expected = [hidden(model, jnp.asarray(row))[-1] for row in examples]
    np.testing.assert_allclose(last, np.stack(expected), **F32)
    assert found.dtype == np.float32


def test_weighted_states_are_those_of_a_loop():
    """RDS+: w_t = t / sum_s s, token by token, in float64."""
    model = Decoder(TINY, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    examples = [rng.integers(0, 96, n).tolist() for n in (5, 40, 1, 17)]
    found = embed_with_decoder(
        model, ragged(examples), pooling="weighted", tokens_per_batch=48
    )
    for ids, row in zip(examples, found, strict=True):
        states = np.asarray(hidden(model, jnp.asarray(ids)), np.float64)
        places, total = range(1, len(ids) + 1), np.zeros(32)
        for t in places:
            total += t / sum(places) * states[t - 1]
        np.testing.assert_allclose(row, total, **F32)


def test_states_of_prompts_leave_the_answer_out():
    """What is scored, and what follows it, as in a loop over tokens."""
    lora = LoraConfig(rules=Rules(targets=("q_proj", "v_proj"), layers=(1,)))
    model = Decoder(TINY, lora, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    examples = [rng.integers(0, 96, n).tolist() for n in (5, 40, 2, 17)]
    before = [3, 33, 1, 17]  # the last has no answer
    labels = [
        [NOT_SCORED] * n + ids[n:] for ids, n in zip(examples, before, strict=True)
    ]
    tokens = ragged(examples, labels)
    given = {"pooling": "prompt", "tokens_per_batch": 48}
    found = embed_with_decoder(model, tokens, **given)
    for ids, n, row in zip(examples, before, found, strict=True):
        states = np.asarray(hidden(model, jnp.asarray(ids)), np.float64)
        np.testing.assert_allclose(row, states[:n].mean(0), **F32)
    kept = lower_states(model, tokens)
    again = embed_with_decoder(model, tokens, **given, lower=kept)
    np.testing.assert_allclose(again, found, **F32)
    nothing = kept._replace(table=np.zeros_like(kept.table))
    wrong = embed_with_decoder(model, tokens, **given, lower=nothing)
    assert np.abs(wrong - found).max() > 1e-2  # it is read


def test_encoder_means_are_those_of_each_text_alone(tokenizer):
    model = encoder()
    found = embed_with_encoder(model, tokenizer, TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        ids = jnp.asarray([tokenizer(text)["input_ids"]])
        np.testing.assert_allclose(row, jnp.mean(hidden(model, ids)[0], axis=0), **F32)


def test_cls_and_normalisation(tokenizer):
    model = encoder(pooling="cls", normalize=True)
    found = embed_with_encoder(model, tokenizer, TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)
    ids = jnp.asarray([tokenizer(TEXTS[2])["input_ids"]])
    first = hidden(model, ids)[0, 0]
    np.testing.assert_allclose(found[2], first / jnp.linalg.norm(first), **F32)


def test_maximum_over_the_tokens(tokenizer):
    model = encoder(pooling="max")
    found = embed_with_encoder(model, tokenizer, TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        ids = jnp.asarray([tokenizer(text)["input_ids"]])
        np.testing.assert_allclose(row, jnp.max(hidden(model, ids)[0], axis=0), **F32)


def test_the_configuration_does_not_change_the_weights(tokenizer):
    plain = embed_with_encoder(encoder(), tokenizer, TEXTS)
    normal = embed_with_encoder(encoder(normalize=True), tokenizer, TEXTS)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(normal, plain / lengths, **F32)


def test_long_texts_are_cut_and_counted(tokenizer, caplog):
    texts = ["a b c d a b", "a b c d a b c", "a b c d a b d d d"]
    tokens, num_cut = encoder_tokens(encoder(), tokenizer, texts)
    assert num_cut == 2
    assert tokens.lengths.tolist() == [8, 8, 8]
    # The closing token survives the cut.
    assert tokens.ids[tokens.offsets[1:] - 1].tolist() == [1, 1, 1]
    with caplog.at_level(logging.WARNING):
        found = embed_with_encoder(encoder(), tokenizer, texts)
    assert "2 of 3 texts were cut to the encoder's 8 tokens" in caplog.text
    # Padded to 16, four more than there are positions: nothing of it may leak in.
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], found[2])


def test_lower_case_is_the_folders_wish(tokenizer):
    upper = [text.upper() for text in TEXTS]
    lower = embed_with_encoder(encoder(lowercase=True), tokenizer, upper)
    np.testing.assert_array_equal(
        lower, embed_with_encoder(encoder(), tokenizer, TEXTS)
    )


def test_refuses(tokenizer):
    with pytest.raises(InputError, match="no texts to embed"):
        embed_with_encoder(encoder(), tokenizer, [])
    with pytest.raises(InputError, match="example 1 has token id 6"):
        embed_with_encoder(encoder(vocab_size=6), tokenizer, ["d"])
    model = Decoder(TINY, key=jax.random.key(0))
    model.embed[...] = model.embed[...].at[5].set(jnp.inf)
    with pytest.raises(NumericalError, match="embedding of example 2 is not finite"):
        embed_with_decoder(model, ragged([[1, 2], [4, 5]]))
