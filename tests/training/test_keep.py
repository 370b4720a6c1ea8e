"""Steps in place of epochs, and what is kept, against a plain loop of optax."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from goracs_jax.llm.tokens import take
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.training import FinetuneConfig, finetune
from goracs_jax.training.order import Order
from goracs_jax.training.run import Run

# Three steps of an epoch of ten examples: seven epochs.
STEPS, WARMUP, RATE, SEED = 21, 3, 1e-2, 7
CONFIG = FinetuneConfig(
    steps=STEPS,
    learning_rate=RATE,
    batch_size=4,
    warmup_steps=WARMUP,
    tokens_per_batch=100,
)


@pytest.fixture(scope="module")
def model():
    """Without dropout, which a plain loop does not draw."""
    lora = LoraConfig(r=4, alpha=8.0, dropout=0.0)
    return Decoder(DecoderConfig.tiny(), lora, key=jax.random.key(0))


def rates(steps, warmup):
    """Up to the largest rate, then down to zero at the number of steps."""
    up = [RATE * step / warmup for step in range(warmup)]
    down = steps - warmup
    return np.array([*up, *(RATE * (1 - step / down) for step in range(down))])


@pytest.fixture(scope="module")
def iterates(model, train):
    """The adapters after each step: one example at a time, all logits at once."""
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    order = Order.of(train, SEED)
    rows = [order.epoch(epoch)[at : at + 4] for epoch in range(7) for at in (0, 4, 8)]

    @jax.jit  # of one padded length: what follows a text does not change it
    def loss_sum(lora, ids, scored):
        logits = nnx.merge(graph, lora, frozen)(ids)[:-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids[1:])
        return jnp.sum(losses * scored)

    gradient_of, adam = jax.jit(jax.grad(loss_sum)), optax.scale_by_adam()
    state, found = adam.init(lora), []
    for rate, some in zip(rates(STEPS, WARMUP), rows, strict=True):
        total, count = jax.tree.map(jnp.zeros_like, lora), 0
        for row in some.tolist():
            one = take(train, [row])
            ids = np.pad(one.ids, (0, 32 - len(one.ids)))
            scored = np.pad(one.labels[1:] >= 0, (0, 32 - len(one.ids)))
            gradient = gradient_of(lora, ids, scored)
            total, count = jax.tree.map(jnp.add, total, gradient), count + scored.sum()
        mean = jax.tree.map(lambda g, n=count: g / n, total)
        norm = optax.tree.norm(mean)
        clipped = jax.tree.map(lambda g, n=norm: g / jnp.maximum(1, n), mean)
        change, state = adam.update(clipped, state)
        lora = jax.tree.map(lambda w, c, r=rate: w - r * c, lora, change)
        found.append([np.asarray(leaf) for leaf in jax.tree.leaves(lora)])
    return found


def adapters(model):
    leaves = jax.tree.leaves(nnx.state(model, nnx.LoRAParam))
    return [np.asarray(leaf) for leaf in leaves]


def assert_near(found, expected):
    # As in twenty steps against torch: Adam divides gradients, which agree to 1e-5 or
    # so, by their own size. The adapters move by about 0.1.
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def validations(done):
    return [(e["step"], e["epoch"]) for e in done.log if "valid_loss" in e]


def test_last_is_the_last_iterate(model, train, valid, iterates):
    done = finetune(model, train, valid, CONFIG, seed=SEED)
    assert_near(adapters(done.model), iterates[-1])
    assert validations(done) == [(STEPS, 7)]
    assert done.best_epoch == 7
    # The reported loss is that of what is kept.
    run = Run.prepare(done.model, train, valid, CONFIG, SEED)
    again = run.validate(run.fresh)[1]["valid_loss"]
    assert done.best_loss == done.log[-1]["valid_loss"] == again
    found = [entry["learning_rate"] for entry in done.log if "loss" in entry]
    # 1 less a share that float32 rounds.
    np.testing.assert_allclose(found, rates(STEPS, WARMUP), atol=RATE * 2**-22)
    assert found[0] == 0


def test_average_is_the_mean_over_the_last_tenth(model, train, valid, iterates):
    """Three of 21 steps."""
    config = replace(CONFIG, keep="average")
    done = finetune(model, train, valid, config, seed=SEED)
    mean = [np.mean(leaves, axis=0) for leaves in zip(*iterates[-3:], strict=True)]
    assert_near(adapters(done.model), mean)
    run = Run.prepare(done.model, train, valid, CONFIG, SEED)
    assert done.best_loss == run.validate(run.fresh)[1]["valid_loss"]
    # To rounding it is the mean of the iterates that the run itself has gone through.
    run, states = Run.prepare(model, train, valid, config, SEED), []
    state = run.fresh
    for _ in range(STEPS):
        state, _ = run.step(state)
        states.append(jax.tree.leaves(state.lora))
    for ours, *theirs in zip(adapters(done.model), *states[-3:], strict=True):
        exact = np.mean(np.asarray(theirs, np.float64), axis=0)
        # Two divisions and sums in float32.
        np.testing.assert_allclose(ours, exact, rtol=4 * 2**-23, atol=1e-8)
        assert np.abs(ours - theirs[-1]).max() > 1e-5


def test_best_of_steps_validates_every_epoch(model, train, valid):
    config = replace(CONFIG, steps=7, keep="best", patience=9)
    done = finetune(model, train, valid, config, seed=SEED)
    assert validations(done) == [(3, 1), (6, 2), (7, 3)]
    losses = [e["valid_loss"] for e in done.log if "valid_loss" in e]
    assert done.best_loss == min(losses)


def test_last_and_average_of_epochs_do_not_stop_early(model, train, valid):
    """What would soon end with "best": a rate at which nothing is learnt."""
    config = FinetuneConfig(
        epochs=8,
        learning_rate=2.0,
        batch_size=4,
        warmup_steps=0,
        patience=1,
        tokens_per_batch=100,
    )
    of = lambda keep, **more: finetune(
        model, train, valid, replace(config, keep=keep, **more), seed=SEED
    )
    assert len(validations(of("best"))) < 8
    assert validations(of("last")) == [(24, 8)]
    assert validations(of("average", valid_every=3)) == [(9, 3), (18, 6), (24, 8)]


class Kill(Exception):
    pass


@pytest.mark.parametrize(("keep", "last"), [("last", 2), ("average", 20)])
def test_resumed_is_the_same_to_the_bit(model, train, valid, tmp_path, keep, last):
    """Also where the stop is amid the steps that are averaged."""
    config = replace(CONFIG, keep=keep)

    def stop(entry):
        if entry["step"] == last:
            raise Kill

    def run(folder=None, watch=lambda entry: None):
        return finetune(
            model,
            train,
            valid,
            config,
            seed=SEED,
            folder=folder,
            watch=watch,
            checkpoint_seconds=0.0,
        )

    with pytest.raises(Kill):
        run(tmp_path, stop)
    again, whole = run(tmp_path), run()
    for a, b in zip(adapters(again.model), adapters(whole.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.best_loss == whole.best_loss
