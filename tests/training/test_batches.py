import itertools

import numpy as np
import pytest

from goracs_jax.llm.batches import bucket_length, static_lengths
from goracs_jax.llm.tokens import ragged, take
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.batches import Shapes, epoch_order, step_batches

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
    shapes = Shapes.of(tokens, CONFIG)
    seen = []
    for step in range(4):  # the last has 3 of 27
        for batch in step_batches(tokens, shapes, 8, seed=5, step=step):
            assert batch.ids.shape == shapes.blank(batch.ids.shape[1]).ids.shape
            assert batch.ids.shape[1] in shapes.lengths
            for row, ids in zip(batch.rows, batch.ids, strict=True):
                if row >= 0:
                    seen.append(tuple(ids[ids >= 0]))
    rows = [tuple(take(tokens, [i]).ids) for i in range(27)]
    assert sorted(seen) == sorted(rows)


def test_order_is_a_function_of_seed_and_epoch():
    orders = [tuple(epoch_order(50, s, e)) for s in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == 4
    epoch_order.cache_clear()
    assert tuple(epoch_order(50, 1, 0)) == orders[2]


def test_steps_of_the_next_epoch_follow_its_order(tokens):
    shapes = Shapes.of(tokens, CONFIG)
    first = step_batches(tokens, shapes, 8, seed=5, step=4)  # epoch 1, place 0
    places = np.concatenate([b.rows[b.rows >= 0] for b in first])
    assert sorted(places) == list(range(8))
    expected = tokens.lengths[epoch_order(27, 5, 1)[:8]]
    found = {
        int(row): int((ids >= 0).sum())
        for b in first
        for row, ids in zip(b.rows, b.ids, strict=True)
        if row >= 0
    }
    assert [found[i] for i in range(8)] == expected.tolist()
