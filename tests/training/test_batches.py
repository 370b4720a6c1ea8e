import itertools

import numpy as np
import pytest

from goracs_jax.llm.batches import bucket_length, static_lengths
from goracs_jax.llm.tokens import ragged, take
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.batches import Shapes, step_batches
from goracs_jax.training.order import Order

CONFIG = FinetuneConfig(epochs=1, learning_rate=1.0, batch_size=8, tokens_per_batch=200)


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 90, n).tolist() for n in rng.integers(5, 120, 27)]
    return ragged(rows, rows)


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_static_lengths_pad_least(most):
    lengths = np.random.default_rng(most).integers(10, 260, 60)
    buckets = sorted({bucket_length(int(n)) for n in lengths})

    def padded(chosen):
        return sum(min(c for c in chosen if c >= n) for n in lengths)

    found = static_lengths(lengths, most)
    assert len(found) <= most
    assert found == tuple(sorted(found))
    best = (
        min(
            padded([*some, buckets[-1]])
            for k in range(min(most, len(buckets)))
            for some in itertools.combinations(buckets[:-1], k)
        )
        if most <= 3
        else padded(buckets if len(buckets) <= most else found)
    )
    assert padded(found) == best


def test_take(tokens):
    some = take(tokens, [4, 2])
    np.testing.assert_array_equal(some.lengths, tokens.lengths[[4, 2]])
    start, end = tokens.offsets[2:4]
    np.testing.assert_array_equal(some.ids[some.offsets[1] :], tokens.ids[start:end])


def test_an_epoch_sees_every_example_once(tokens):
    shapes, order = Shapes.of(tokens, CONFIG), Order.of(tokens, 5)
    seen = []
    for step in range(4):  # the last has 3 of 27
        for batch in step_batches(tokens, order, shapes, 8, step):
            assert batch.ids.shape == shapes.blank(batch.ids.shape[1]).ids.shape
            assert batch.ids.shape[1] in shapes.lengths
            for row, ids in zip(batch.rows, batch.ids, strict=True):
                if row >= 0:
                    seen.append(tuple(ids[ids >= 0]))
    rows = [tuple(take(tokens, [i]).ids) for i in range(27)]
    assert sorted(seen) == sorted(rows)


def test_steps_of_the_next_epoch_follow_its_order(tokens):
    shapes, order = Shapes.of(tokens, CONFIG), Order.of(tokens, 5)
    first = step_batches(tokens, order, shapes, 8, step=4)  # epoch 1, place 0
    found = {
        int(row): ids[ids >= 0].tolist()
        for b in first
        for row, ids in zip(b.rows, b.ids, strict=True)
        if row >= 0
    }
    rows = order.epoch(1)[:8]
    expected = [take(tokens, [row]).ids.tolist() for row in rows.tolist()]
    assert [found[n] for n in order.numbers(rows).tolist()] == expected
    assert len(found) == 8
