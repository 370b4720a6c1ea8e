import logging

import jax
import numpy as np
import pytest
from flax import nnx
from lora_examples import F32, TINY, example_loss, rows, some_tokens, trained

from goracs_jax.errors import InputError
from goracs_jax.llm.gradients import example_scores
from goracs_jax.llm.losses import example_losses, loss_drop
from goracs_jax.llm.lower import lower_states
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, LoraConfig
from goracs_jax.models.targets import Rules


@pytest.fixture(scope="module")
def models():
    fresh = Decoder(TINY, key=jax.random.key(0))
    return [fresh, trained(fresh), trained(trained(fresh))]


def test_losses_are_those_of_a_loop(models):
    tokens = some_tokens()
    found = example_losses(models, tokens, tokens_per_batch=64)
    assert found.shape == (5, 3)
    assert found.dtype == np.float32
    loss = nnx.jit(example_loss)
    expected = [[loss(model, *row) for model in models] for row in rows(tokens)]
    np.testing.assert_allclose(found, expected, **F32)
    assert np.abs(found[:, 0] - found[:, 1]).min() > 1e-3  # the adapters differ


def test_the_pass_of_gradients_has_the_same_losses(models):
    tokens = some_tokens()
    scores = example_scores(models[1], tokens, tokens_per_batch=64)
    found = example_losses(models[1:2], tokens, tokens_per_batch=32)
    np.testing.assert_allclose(found[:, 0], scores.loss, **F32)


def test_kept_states_of_lower_layers_change_no_loss():
    lora = LoraConfig(rules=Rules(targets=("q_proj", "v_proj"), layers=(1,)))
    top = trained(Decoder(TINY, lora, key=jax.random.key(0)))
    tokens = some_tokens()
    kept = lower_states(top, tokens)
    found = example_losses([top], tokens, tokens_per_batch=64, lower=kept)
    whole = example_losses([top], tokens, tokens_per_batch=64)
    np.testing.assert_allclose(found, whole, **F32)
    # They are read, not computed again.
    other = kept._replace(table=np.zeros_like(kept.table))
    wrong = example_losses([top], tokens, tokens_per_batch=64, lower=other)
    assert np.abs(wrong - whole).max() > 1e-3


def test_other_weights_compile_nothing(models, caplog):
    tokens = some_tokens()
    example_losses(models[:2], tokens)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        example_losses(models[1:], tokens)
    seen = [r.getMessage() for r in caplog.records]
    assert not [m for m in seen if "_losses" in m and "ompil" in m], seen


def test_the_drop_of_a_loss_has_the_order_of_the_papers_score():
    rng = np.random.default_rng(0)
    losses = rng.gamma(1.0, size=(200, 2)).astype(np.float32)
    found = loss_drop(losses)
    score = [(before - after) / before for before, after in losses.astype(float)]
    np.testing.assert_array_equal(np.argsort(found), np.argsort(score))
    falls = losses[:, 1] < losses[:, 0]
    np.testing.assert_allclose(found[falls], np.array(score)[falls], rtol=1e-5)
    assert 0 < falls.mean() < 1
    assert np.abs(found).max() <= 1


def test_refuses(models):
    with pytest.raises(InputError, match="example 1 has token id 96"):
        example_losses(models, ragged([[96, 1]]))
    wide = Decoder(TINY, LoraConfig(r=3), key=jax.random.key(0))
    with pytest.raises(InputError, match="adapters of one shape"):
        example_losses([models[0], wide], some_tokens())
