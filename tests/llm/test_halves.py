"""Batches that do not fit the memory are halved, and their rows are the same."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goracs_jax.errors import NumericalError
from goracs_jax.llm.batches import Batch, make_batches
from goracs_jax.llm.embeddings import embedding_pass
from goracs_jax.llm.halves import in_halves, rows_of
from goracs_jax.llm.passes import Pass, map_batches, results
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.trainers.examples import example_batches

RNG = np.random.default_rng(0)
TOKENS = ragged([RNG.integers(0, 90, n).tolist() for n in RNG.integers(5, 60, 50)])
MOST = 7 * 32  # padded tokens that fit


@jax.jit
def too_much(ids):
    """A program for which no machine has the memory: 2^52 bytes for each token."""
    return ids.ravel()[:, None, None] + jnp.zeros((ids.size, 2**30, 2**20))


def sums(ids, labels):
    if ids.size > MOST:
        return jax.block_until_ready(too_much(ids))
    return jnp.stack([ids.sum(1), labels.sum(1)], axis=1)


@pytest.mark.parametrize("under_way", [1, 2])
def test_rows_of_halves_are_those_of_the_whole(caplog, under_way):
    planned = make_batches(TOKENS, tokens_per_batch=1024)
    batches = [batch.padded() for batch in planned]
    assert batches[0].ids.size > 2 * MOST
    with caplog.at_level(logging.WARNING):
        found = list(results(sums, batches, under_way=under_way))
    for batch, rows in zip(batches, found, strict=True):
        expected = np.stack([batch.ids.sum(1), batch.labels.sum(1)], axis=1)
        np.testing.assert_array_equal(rows, expected)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "does not fit the memory of the device: it is halved" in line
    assert "--tokens-per-batch" in line


def test_batches_are_as_large_as_those_that_fitted():
    batches = make_batches(TOKENS, tokens_per_batch=1024)
    sizes = []

    def watched(ids, labels):
        sizes.append(ids.size)
        return sums(ids, labels)

    list(results(watched, batches))
    failed = [size for size in sizes if size > MOST]
    # Whole, half, quarter and so on until it fits, and never again.
    assert len(failed) == int(np.ceil(np.log2(np.prod(batches[0].shape) / MOST)))
    assert sizes[: len(failed)] == failed


def test_one_row_that_does_not_fit():
    batches = make_batches(ragged([[1] * 300, [1] * 290]))
    with pytest.raises(NumericalError, match=r"1 x 320 tokens do not fit .*--remat"):
        list(results(sums, batches))


def test_examples_of_any_form_are_halved_too(caplog):
    examples = [{"x": np.full(size, i)} for i, size in enumerate([3] * 7 + [5] * 6)]
    batches = example_batches(examples, 8, None)
    assert [len(batch.rows) for batch in batches] == [6, 7]

    def sums(example):
        if example["x"].size > 3 * 5:
            return jax.block_until_ready(too_much(example["x"]))
        return example["x"].sum(axis=1)

    found = map_batches(sums, batches)
    np.testing.assert_array_equal(found, [e["x"].sum() for e in examples])
    (line,) = (record.getMessage() for record in caplog.records)
    assert "a batch of 6 examples does not fit" in line
    assert "batch_size" in line


def test_other_errors_stay_errors(monkeypatch):
    batches = make_batches(TOKENS)

    def broken(ids, labels):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        list(results(broken, batches))
    # Others wait for the same batch: this process alone may not take another.
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        list(results(sums, make_batches(TOKENS, tokens_per_batch=1024)))


def test_a_pass_that_cannot_be_compiled_whole(caplog):
    model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    run = embedding_pass(model)

    class Program:
        """The jitted function, whose compiler refuses large batches."""

        def __call__(self, *args):
            if args[-2].size > MOST:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of mem")
            return run.fn(*args)

        def lower(self, *args):
            lowered = run.fn.lower(*args)
            compile = lambda: self(*args) and None
            return (
                lowered
                if args[-2].size <= MOST
                else type("Lowered", (), {"compile": staticmethod(compile)})
            )

    less = Pass(Program(), run.given, run.execution)
    batches = run.batches(TOKENS, 1024)
    # Sums of float32 in batches of another size.
    np.testing.assert_allclose(
        map_batches(less, batches), map_batches(run, batches), rtol=1e-5, atol=1e-6
    )
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("most", "size"), [(1, 4), (32 * 16, 16), (10**9, 24)])
def test_pieces_have_rows_for_every_device(most, size):
    ids = RNG.integers(0, 90, (24, 32))
    batch = Batch(np.arange(24), ids, ids)
    pieces = batch.pieces(rows_of(batch, most, devices=4))
    assert {len(piece.ids) for piece in pieces} == {size}
    rows = np.concatenate([piece.rows for piece in pieces])
    np.testing.assert_array_equal(rows[rows >= 0], np.arange(24))


def test_one_device_says_so_when_its_row_is_too_large():
    ids = np.zeros((4, 400), np.int32)
    with pytest.raises(NumericalError, match="4 x 400 tokens"):
        list(in_halves(sums, [Batch(np.arange(4), ids, ids)], devices=4))
