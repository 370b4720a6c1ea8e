"""Order and dropout follow the content of an example, whatever stands beside it."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from goracs_jax.llm.tokens import NOT_SCORED, Tokens, ragged, take
from goracs_jax.training import FinetuneConfig, finetune
from goracs_jax.training.batches import Shapes, step_batches
from goracs_jax.training.order import Order
from goracs_jax.training.step import accumulate, split, zero_sums

CONFIG = FinetuneConfig(
    epochs=2, learning_rate=1e-2, batch_size=4, warmup_steps=2, tokens_per_batch=32
)


def texts(rng, size):
    lengths = rng.integers(5, 30, size)
    return [tuple(rng.integers(0, 90, length).tolist()) for length in lengths]


def steps_of(rows, seed, epoch=0, batch=8):
    """The step of each text, and the number that tells its dropout apart."""
    tokens = ragged(rows, rows)
    order = Order.of(tokens, seed)
    numbers = order.numbers(np.arange(len(rows)))
    places = {int(row): i // batch for i, row in enumerate(order.epoch(epoch))}
    return {text: (places[i], numbers[i]) for i, text in enumerate(rows)}


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_replaced_row_leaves_the_others_where_they_are(epoch):
    """The row leaves place p and enters at q, both uniform: |p - q| / 8 rows change
    their step on average, and one for each border of steps between p and q. With eight
    steps that is (64 - 1) / (3 * 8) = 2.6 of 63 on average and 7 of 63 at most."""
    rng = np.random.default_rng(0)
    kept = []
    for seed in range(50):
        rows = texts(rng, 64)
        before = steps_of(rows, seed, epoch)
        (new,), at = texts(rng, 1), rng.integers(64)
        after = steps_of([*rows[:at], new, *rows[at + 1 :]], seed, epoch)
        others = [text for text in rows if text != rows[at]]
        kept.append(np.mean([before[text] == after[text] for text in others]))
    assert np.mean(kept) >= 0.95
    assert min(kept) >= 0.85


def test_the_order_is_uniform():
    """Each of 6 texts is first in a sixth of 600 epochs: 100, SD 9.1; five SD."""
    order = Order.of(ragged([[i] for i in range(6)]), seed=3)
    first = np.bincount([order.epoch(e)[0] for e in range(600)], minlength=6)
    assert abs(first - 100).max() < 46
    other = order._replace(seed=4)
    assert any(order.epoch(e).tolist() != other.epoch(e).tolist() for e in range(4))


def test_labels_and_occurrences_tell_examples_apart():
    ids = [[1, 2], [1, 2], [1, 2], [1, 2, 1], [2]]
    labels = [[1, 2], [NOT_SCORED, 2], [1, 2], [1, 2, 1], [2]]
    order = Order.of(ragged(ids, labels), seed=0)
    assert len(set(order.digests)) == len(set(order.numbers(np.arange(5)))) == 5
    # The second of two equal ones is the second wherever they stand.
    turned = Order.of(ragged(ids[::-1], labels[::-1]), seed=0)
    assert set(turned.digests) == set(order.digests)
    assert Order.of(ragged([[1, 2]], [[1, 2]]), 0).digests[0] == order.digests[0]


def contents(batches):
    return {
        (int(row), *ids[ids >= 0].tolist())
        for batch in batches
        for row, ids in zip(batch.rows, batch.ids, strict=True)
        if row >= 0
    }


def test_the_order_of_the_file_does_not_matter(model, train, valid):
    """To the bit: the rows of a step are added in the order of their hashes."""
    turned = take(train, np.random.default_rng(0).permutation(10))
    shapes = Shapes.of(train, CONFIG)
    assert shapes == Shapes.of(turned, CONFIG)
    for step in range(6):
        one, other = (
            step_batches(some, Order.of(some, 5), shapes, 4, step)
            for some in (train, turned)
        )
        assert contents(one) == contents(other)
    one, other = (
        finetune(model, some, valid, CONFIG, seed=5) for some in (train, turned)
    )
    drop = lambda log: [{k: v for k, v in e.items() if k != "seconds"} for e in log]
    assert drop(one.log) == drop(other.log)


def losses(model, tokens: Tokens, seed):
    """The loss with dropout of each text, in each epoch, by its ids."""
    shapes, order = Shapes.of(tokens, CONFIG), Order.of(tokens, seed)
    parts, found = split(model), {}
    for step in range(6):
        epoch = step // 3
        for batch in step_batches(tokens, order, shapes, 4, step):
            assert len(batch.rows) == 1
            sums = accumulate(parts, zero_sums(parts), batch, order.key(epoch), most=30)
            ids = batch.ids[0]
            found[epoch, *ids[ids >= 0].tolist()] = float(sums.loss)
    return found


@pytest.fixture
def adapted(model):
    """Adapters that are not zero, so that dropout changes the loss."""
    parts = split(model)
    lora = jax.tree.map(lambda w: w + 0.3, parts.lora)
    return nnx.merge(parts.graph, lora, parts.frozen)


def test_dropout_is_the_same_in_other_company(adapted):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 90, 30).tolist() for _ in range(15)]
    some, others = ([*rows[:5], *rest] for rest in (rows[5:10], rows[10:]))
    one, two, other = (
        losses(adapted, ragged(texts, texts), seed)
        for texts, seed in ((some, 0), (others, 0), (some, 1))
    )
    shared = [(e, *row) for e in (0, 1) for row in rows[:5]]
    assert [one[key] for key in shared] == [two[key] for key in shared]
    # And they do depend on the epoch and the seed.
    assert all(one[key] != other[key] for key in shared)
    assert all(one[key] != one[1, *key[1:]] for key in shared[:5])


def test_examples_of_a_step_have_masks_of_their_own(adapted):
    """Equal texts: what tells them apart is their number alone."""
    tokens = ragged([[1, 2, 3, 4]] * 2, [[1, 2, 3, 4]] * 2)
    config = replace(CONFIG, tokens_per_batch=16)
    shapes, order = Shapes.of(tokens, config), Order.of(tokens, 0)
    batches = step_batches(tokens, order, shapes, 4, 0)
    parts = split(adapted)
    one, two = (
        accumulate(parts, zero_sums(parts), batch, order.key(0), most=4).loss
        for batch in batches
    )
    assert float(one) != float(two)
