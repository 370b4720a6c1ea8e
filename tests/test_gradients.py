import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.gradients import gradient_norms, mean_cross_entropy
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.tokens import NOT_SCORED, map_batches, ragged

TINY = DecoderConfig.tiny(num_layers=3)
# Sums over some thousand float32 products in another order.
F32 = {"rtol": 1e-4}


def trained(model: Decoder) -> Decoder:
    """A model whose lora_B is not zero, as after some training."""
    keys = iter(jax.random.split(jax.random.key(7), 100))
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    noise = lambda w: w + 0.1 * jax.random.normal(next(keys), w.shape)
    return nnx.merge(graph, jax.tree.map(noise, lora), frozen)


@pytest.fixture(scope="module")
def model():
    return trained(Decoder(TINY, key=jax.random.key(0)))


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, TINY.vocab_size, n).tolist() for n in (30, 3, 18, 3, 18)]
    labels = [[NOT_SCORED] * (i % 2) + row[i % 2 :] for i, row in enumerate(ids)]
    labels[0][:20] = [NOT_SCORED] * 20
    return ragged(ids, labels)


def example_loss(model, ids, labels):
    """All logits at once, one example, no padding: the textbook's loss."""
    logits = model(ids)[:-1]
    scored = jnp.where(labels[1:] >= 0, 1.0, 0.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.maximum(labels[1:], 0)
    )
    return jnp.sum(losses * scored) / jnp.sum(scored)


def rows(tokens):
    for start, stop in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        yield (
            jnp.asarray(tokens.ids[start:stop]),
            jnp.asarray(tokens.labels[start:stop]),
        )


def loop_norms(model, tokens, which):
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    loss = lambda lora, *row: example_loss(nnx.merge(graph, lora, frozen), *row)
    grad = jax.jit(jax.grad(loss))
    norms = []
    for row in rows(tokens):
        gradient = grad(lora, *row)
        if which == "last_v_lora_b":
            gradient = gradient["layers"]["attention"]["v_proj"]["lora_b"][...][-1]
        norms.append(float(optax.tree.norm(gradient)))
    return np.array(norms)


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_norms_are_those_of_a_loop(model, tokens, which):
    norms = gradient_norms(model, tokens, which=which, tokens_per_batch=64)
    assert norms.dtype == np.float32
    np.testing.assert_allclose(norms, loop_norms(model, tokens, which), **F32)


def test_norms_are_those_of_optax(model, tokens):
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    micro = optax.microbatching.micro_grad(
        lambda lora, ids, labels: example_loss(
            nnx.merge(graph, lora, frozen), ids[0], labels[0]
        ),
        batch_argnums=(1, 2),
        microbatch_size=1,
        metrics_fn=optax.tree.norm,
    )
    ids, labels = next(rows(tokens))
    stack = lambda x: jnp.stack([x, x[::-1]])
    _, aux = jax.jit(micro)(lora, stack(ids), stack(labels))
    both = ragged(stack(ids).tolist(), stack(labels).tolist())
    norms = gradient_norms(model, both, which="all_lora")
    np.testing.assert_allclose(norms, aux.metrics, **F32)


def test_batches_change_nothing(model, tokens):
    small = gradient_norms(model, tokens, tokens_per_batch=32)
    large = gradient_norms(model, tokens, tokens_per_batch=1024)
    np.testing.assert_allclose(small, large, **F32)


def test_a_fresh_adapter_has_a_gradient_in_b_alone(tokens):
    model = Decoder(TINY, key=jax.random.key(0))
    assert (gradient_norms(model, tokens) > 0).all()
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    loss = lambda lora: example_loss(
        nnx.merge(graph, lora, frozen), *next(rows(tokens))
    )
    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(loss))(lora)):
        assert bool(jnp.any(gradient[...])) == (path[-1] == "lora_b")


def test_the_second_call_compiles_nothing(model, tokens, caplog):
    for which in ("last_v_lora_b", "all_lora"):
        gradient_norms(model, tokens, which=which)
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            # Another adapter of the same shape, too.
            gradient_norms(trained(model), tokens, which=which)
        compiled = [r.getMessage() for r in caplog.records]
        assert not [m for m in compiled if "_norms" in m and "ompil" in m], compiled


def test_compiling_is_noticed(model, tokens, caplog):
    """The check above can fail: a new shape does compile."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        gradient_norms(model, tokens, tokens_per_batch=200)
    compiled = [r.getMessage() for r in caplog.records]
    assert [m for m in compiled if "_norms" in m and "ompil" in m]


def test_the_mapper_is_used(model, tokens):
    seen = []

    def mapper(fn, batches):
        seen.extend(batches)
        return map_batches(fn, batches)

    gradient_norms(model, tokens, mapper=mapper)
    assert sum(int((batch.rows >= 0).sum()) for batch in seen) == tokens.num_examples


def test_refuses(model, tokens):
    bare = Decoder(TINY, LoraConfig(targets=("q_proj",)), key=jax.random.key(0))
    with pytest.raises(InputError, match="needs an adapter on v_proj"):
        gradient_norms(bare, tokens)
    with pytest.raises(InputError, match="example 1 has token id 96"):
        gradient_norms(model, ragged([[96, 1]]))
    untied = DecoderConfig.tiny(tie_embeddings=False)
    broken = Decoder(untied, key=jax.random.key(0))
    broken.embed[...] = broken.embed[...].at[5].set(jnp.nan)
    with pytest.raises(InputError, match="norm of example 2 is nan"):
        gradient_norms(broken, ragged([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize("chunk", [1, 4, 7, 11, 64])
def test_cross_entropy_in_chunks_is_optax_at_once(chunk):
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (11, 16))
    head = jax.random.normal(keys[1], (50, 16))
    labels = jax.random.randint(keys[2], (11,), 0, 50).at[3:6].set(NOT_SCORED)

    def textbook(hidden):
        losses = optax.softmax_cross_entropy_with_integer_labels(
            hidden @ head.T, jnp.maximum(labels, 0)
        )
        return jnp.sum(jnp.where(labels >= 0, losses, 0.0)) / 8

    ours = lambda hidden: mean_cross_entropy(hidden, head, labels, chunk)
    value, gradient = jax.value_and_grad(lambda h: 3 * ours(h))(hidden)
    expected, slope = jax.value_and_grad(lambda h: 3 * textbook(h))(hidden)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(ours(hidden), textbook(hidden), rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6)


def test_cross_entropy_of_large_logits_and_of_nothing():
    hidden, head = jnp.full((2, 1), 1e4), jnp.array([[1.0], [-1.0]])
    # log(e^x + e^-x) - (-x) = 2 x for large x
    loss = mean_cross_entropy(hidden, head, jnp.array([1, NOT_SCORED]), 2)
    assert float(loss) == 2e4
    nothing = jnp.full(2, NOT_SCORED)
    loss = lambda hidden: mean_cross_entropy(hidden, head, nothing, 2)
    assert float(loss(hidden)) == 0.0
    np.testing.assert_array_equal(jax.grad(loss)(hidden), jnp.zeros((2, 1)))


@pytest.mark.parametrize("cap", [None, 0.5])
def test_cross_entropy_is_that_of_all_logits_at_once(cap):
    key_h, key_w = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(key_h, (7, 5))
    head = jax.random.normal(key_w, (11, 5))
    labels = jnp.array([3, NOT_SCORED, 0, 10, 3, NOT_SCORED, 7])

    def plain(hidden):
        logits = hidden @ head.T
        logits = logits if cap is None else cap * jnp.tanh(logits / cap)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.maximum(labels, 0)
        )
        return jnp.mean(losses, where=labels >= 0)

    ours = lambda hidden: mean_cross_entropy(hidden, head, labels, 3, cap)
    for ours_i, plain_i in zip(
        jax.value_and_grad(ours)(hidden), jax.value_and_grad(plain)(hidden), strict=True
    ):
        # Sums of eleven terms of size one in float32.
        np.testing.assert_allclose(ours_i, plain_i, rtol=1e-5, atol=1e-6)


def test_no_array_holds_all_logits():
    """Neither forward nor backward, vmapped: [batch, time, vocab] is what kills."""
    vocab, batch, time = 5000, 4, 32
    config = DecoderConfig.tiny(vocab_size=vocab)
    model = Decoder(config, key=jax.random.key(0))

    def loss(hidden, labels):
        return mean_cross_entropy(hidden, model.output_head, labels, 4)

    step = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    hidden = jax.ShapeDtypeStruct((batch, time, config.hidden_size), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch, time), jnp.int32)
    memory = step.lower(hidden, labels).compile().memory_analysis()
    all_logits = batch * time * vocab * 4
    assert memory.temp_size_in_bytes < all_logits / 2
