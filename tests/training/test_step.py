from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from goracs_jax.llm.batches import Batch
from goracs_jax.llm.tokens import take
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.batches import Shapes
from goracs_jax.training.run import Run
from goracs_jax.training.step import (
    accumulate,
    loss_sum,
    num_scored,
    split,
    update,
    zero_sums,
)

CONFIG = FinetuneConfig(epochs=1, learning_rate=0.1, warmup_steps=0)


def sums_of(model, tokens, config, key):
    parts, shapes = split(model), Shapes.of(tokens, config)
    sums, batches = zero_sums(parts), shapes.split(tokens)
    for batch in batches:
        sums = accumulate(parts, sums, batch, key, most=shapes.most)
    return sums, batches


def plain_loss(model, tokens):
    """Mean over scored tokens: unpadded, one by one, all logits at once."""
    parts, total, count = nnx.split(model), 0.0, 0
    for i in range(tokens.num_examples):
        one = take(tokens, [i])
        scored = one.labels[1:] >= 0
        total += plain_sum(*parts, jnp.asarray(one.ids), jnp.asarray(scored))
        count += int(scored.sum())
    return total / count


@jax.jit  # a program for each length, not for each operation of each length
def plain_sum(graph, state, ids, scored):
    logits = nnx.merge(graph, state)(ids)[:-1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids[1:])
    return jnp.sum(losses * scored)


def test_gradient_is_that_of_the_mean_over_scored_tokens(train):
    # Without dropout the formula has no draws.
    lora = LoraConfig(r=4, alpha=8.0, dropout=0.0)
    model = Decoder(DecoderConfig.tiny(), lora, key=jax.random.key(0))
    parts = split(model)
    b = lambda path, w: w + 0.1 if "lora_b" in str(path) else w
    lora_state = jax.tree_util.tree_map_with_path(b, parts.lora)
    model = nnx.merge(parts.graph, lora_state, parts.frozen)
    loss, gradient = jax.value_and_grad(
        lambda lora: plain_loss(nnx.merge(parts.graph, lora, parts.frozen), train)
    )(lora_state)
    sums, batches = sums_of(model, train, CONFIG, jax.random.key(0))
    count = num_scored(batches)
    np.testing.assert_allclose(sums.loss / count, loss, rtol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(sums.gradient), jax.tree.leaves(gradient), strict=True
    ):
        # float32 through two layers, entries of size 1e-2.
        np.testing.assert_allclose(ours / count, theirs, rtol=1e-4, atol=1e-6)
    total = sum(loss_sum(split(model), batch, most=99) for batch in batches)
    np.testing.assert_allclose(total / count, loss, rtol=1e-5)


def test_validation_loss_is_the_mean_over_its_scored_tokens(model, train, valid):
    """Of which an example of it may have more than any of training has."""
    few = take(train, [int(np.argmin(train.scored))])
    assert few.scored.max() < valid.scored.max()
    run = Run.prepare(model, few, valid, CONFIG, seed=0)
    _, record = run.validate(run.fresh)
    np.testing.assert_allclose(
        record["valid_loss"], plain_loss(model, valid), rtol=1e-5
    )


def test_micro_batches_change_rounding_alone(model, train):
    key = jax.random.key(3)
    whole, _ = sums_of(model, train, replace(CONFIG, tokens_per_batch=4096), key)
    for size in (40, 70):
        parts, batches = sums_of(
            model, train, replace(CONFIG, tokens_per_batch=size), key
        )
        assert len(batches) > 2
        np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-6)
        for ours, theirs in zip(
            jax.tree.leaves(parts.gradient),
            jax.tree.leaves(whole.gradient),
            strict=True,
        ):
            # Sums of a hundred float32 terms in another order, entries of size one.
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_is_on_in_training_and_off_in_validation(model, train):
    parts = split(model)
    lora = jax.tree.map(lambda w: w + 0.3, parts.lora)
    adapted = nnx.merge(parts.graph, lora, parts.frozen)
    one, batches = sums_of(adapted, train, CONFIG, jax.random.key(0))
    other, _ = sums_of(adapted, train, CONFIG, jax.random.key(1))
    without = sum(loss_sum(split(adapted), batch, most=99) for batch in batches)
    losses = [float(x) for x in (one.loss, other.loss, without)]
    assert len({round(x, 2) for x in losses}) == 3


def test_update_is_adamw(model):
    parts = split(model)
    optimizer = replace(CONFIG, weight_decay=0.1).optimizer(10)
    sums = zero_sums(parts)._replace(gradient=jax.tree.map(jnp.ones_like, parts.lora))
    done = update(
        optimizer, parts.lora, optimizer.init(parts.lora), sums, np.float32(2)
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(parts.lora))
    np.testing.assert_allclose(done.grad_norm, 0.5 * np.sqrt(size), rtol=1e-5)
    for old, new in zip(
        jax.tree.leaves(parts.lora), jax.tree.leaves(done.lora), strict=True
    ):
        # The first step of Adam goes by the sign, and decay by lr * decay * weight.
        np.testing.assert_allclose(
            new, old - 0.1 * (1 + 0.1 * old), rtol=1e-4, atol=1e-5
        )


def temp_bytes(num_layers, vocab_size=4096):
    config = DecoderConfig.tiny(num_layers=num_layers, vocab_size=vocab_size)
    model = Decoder(config, LoraConfig(), key=jax.random.key(0))
    ids = np.zeros((64, 64), np.int32)
    batch = Batch(np.arange(64, dtype=np.int32), ids, ids)
    parts = split(model)
    sums, key = zero_sums(parts), jax.random.key(0)
    program = accumulate.lower(parts, sums, batch, key, most=64)
    return program.compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_by_the_products_of_a_layer():
    tokens, vocab = 64 * 64, 4096
    few, many = temp_bytes(2), temp_bytes(10)
    assert few < 4 * tokens * vocab, "the logits of all tokens exist at one time"
    # Kept are the input of a layer and its products with weights: q, k, v, o, gate, up,
    # down, and of two adapters A and B. Activations, attention and dropout are not.
    kept = 32 + (32 + 16 + 16 + 32) + (48 + 48 + 32) + 2 * 8 + (32 + 16)
    assert (many - few) / 8 < 1.25 * 4 * tokens * kept
