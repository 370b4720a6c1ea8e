import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from goracs_jax.llm.loss import mean_cross_entropy, next_token_loss, predicting
from goracs_jax.llm.tokens import NOT_SCORED
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.models.layers import softcap

VOCAB = 50


@pytest.fixture(scope="module")
def case():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (11, 16))
    head = jax.random.normal(keys[1], (VOCAB, 16))
    labels = jax.random.randint(keys[2], (11,), 0, VOCAB).at[3:6].set(NOT_SCORED)
    return hidden, head, labels


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("block", [7, 25, 49, 1024])
def test_in_blocks_is_optax_at_once(case, block, cap):
    """Blocks that divide the vocabulary, that do not, and one that is larger."""
    hidden, head, labels = case
    logits = lambda hidden: softcap(hidden @ head.T, cap)

    def textbook(hidden):
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits(hidden), jnp.maximum(labels, 0)
        )
        return jnp.sum(jnp.where(labels >= 0, losses, 0.0)) / 8

    ours = jax.jit(lambda hidden: mean_cross_entropy(hidden, head, labels, cap, block))
    value, slope = jax.value_and_grad(lambda h: 3 * ours(h).loss)(hidden)
    expected, expected_slope = jax.value_and_grad(lambda h: 3 * textbook(h))(hidden)
    # Sums of 50 float32 products in another order.
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-6)
    p = jax.nn.softmax(logits(hidden))
    miss = jnp.linalg.norm(p - jax.nn.one_hot(labels, VOCAB), axis=1)
    error = jnp.sum(jnp.where(labels >= 0, miss, 0.0)) / 8
    np.testing.assert_allclose(ours(hidden).prediction_error, error, rtol=1e-6)


@pytest.mark.parametrize("most", [3, 5, 10, 11])
def test_states_without_a_scored_token_are_left_out(case, most):
    """One example whose scored tokens lie apart, a shorter one, one without any."""
    hidden, head, labels = case
    some = np.full((3, 11), NOT_SCORED)
    some[0, [0, 4, 8, 10]] = labels[7:]  # the first token is not predicted
    some[1, 6] = labels[7]

    def total(loss):
        return jax.value_and_grad(
            lambda h: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * jax.vmap(loss)(h, some).loss)
        )(jnp.stack([hidden, 2 * hidden, hidden]))

    def every_state(hidden, labels):
        following = jnp.append(labels[1:], NOT_SCORED)
        return mean_cross_entropy(hidden, head, following)

    @jax.jit
    def few(hidden, labels):
        at = predicting(labels, most)
        states = hidden if at is None else hidden[at]
        return next_token_loss(states, head, labels, at=at)

    for ours, theirs in zip(
        jax.tree.leaves(total(few)), jax.tree.leaves(total(every_state)), strict=True
    ):
        # The same products, summed over 16 numbers in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    errors = [
        float(loss(hidden, some[0]).prediction_error) for loss in (few, every_state)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)


def test_large_logits_and_nothing_scored():
    hidden, head = jnp.full((2, 1), 1e4), jnp.array([[1.0], [-1.0]])
    # log(e^x + e^-x) - (-x) = 2 x for large x; p misses the label wholly.
    found = mean_cross_entropy(hidden, head, jnp.array([1, NOT_SCORED]))
    assert (float(found.loss), float(found.prediction_error)) == (
        2e4,
        pytest.approx(2**0.5),
    )
    nothing = jnp.full(2, NOT_SCORED)
    loss = lambda hidden: mean_cross_entropy(hidden, head, nothing).loss
    assert float(loss(hidden)) == 0.0
    np.testing.assert_array_equal(jax.grad(loss)(hidden), jnp.zeros((2, 1)))


def test_nothing_cancels_where_the_model_is_sure():
    """1 - p_label = 2e-9 is below what float32 tells from 1."""
    hidden, head = jnp.ones((1, 1)), jnp.array([[20.0], [0.0]])
    label = jnp.array([0])
    slope = jax.grad(lambda h: mean_cross_entropy(h, head, label).loss)(hidden)
    error = mean_cross_entropy(hidden, head, label).prediction_error
    rest = 1 / (1 + np.exp(20.0))
    assert float(error) == pytest.approx(2**0.5 * rest, rel=1e-5)
    assert float(slope[0, 0]) == pytest.approx(-20 * rest, rel=1e-5)


@pytest.mark.parametrize("differentiate", [False, True])
def test_no_array_holds_all_logits(differentiate):
    """Neither forward nor backward, vmapped: [batch, time, vocab] is what kills."""
    vocab, batch, time = 5000, 4, 32
    config = DecoderConfig.tiny(vocab_size=vocab)
    model = Decoder(config, key=jax.random.key(0))

    def loss(hidden, labels):
        return mean_cross_entropy(hidden, model.output_head, labels, None, 500).loss

    step = jax.value_and_grad(loss) if differentiate else loss
    hidden = jax.ShapeDtypeStruct((batch, time, config.hidden_size), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch, time), jnp.int32)
    program = jax.jit(jax.vmap(step)).lower(hidden, labels).compile()
    all_logits = batch * time * vocab * 4
    assert program.memory_analysis().temp_size_in_bytes < all_logits / 2
