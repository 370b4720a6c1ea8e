"""Passes over batches: when batches start, and how their shapes are chosen."""

import jax
import numpy as np
import pytest

from goracs_jax.llm import profile
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.embeddings import embedding_pass
from goracs_jax.llm.memory import Rows, pass_memory
from goracs_jax.llm.passes import map_batches, results
from goracs_jax.llm.profile import batch_tokens, execution_on
from goracs_jax.llm.sizes import Placement
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.decoder import with_execution

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(5, 200, 300)
TOKENS = ragged([RNG.integers(0, 90, n).tolist() for n in LENGTHS])


class Accelerator:
    """What the profile reads of a device."""

    platform, device_kind = "tpu", "TPU v5 lite"

    def memory_stats(self):
        return {"bytes_limit": 16 * 10**9}


@pytest.fixture(scope="module")
def model():
    return Decoder(DecoderConfig.tiny(), key=jax.random.key(0))


@pytest.mark.parametrize(("under_way", "begun"), [(1, 1), (2, 2), (None, 1)])
def test_batches_start_before_the_results_of_others_are_fetched(under_way, begun):
    batches = [batch.padded() for batch in make_batches(TOKENS)]
    calls = []

    def fn(ids, labels):
        calls.append(ids)
        return ids[:, 0]

    found = results(fn, batches, under_way=under_way)
    for batch, first in zip(batches, found, strict=True):
        np.testing.assert_array_equal(first, batch.ids[:, 0])
        assert len(calls) == min(begun, len(batches))
        begun += 1


def test_an_accelerator_has_eight_shapes_and_the_same_results(model):
    many = embedding_pass(model)
    few = embedding_pass(with_execution(model, **execution_on(Accelerator())))
    shapes = lambda run: {b.shape for b in run.batches(TOKENS, 1024)}
    assert len(shapes(few)) <= profile.SHAPES < len(shapes(many))
    for tokens in (500, 4096, 10**6):
        assert len({b.shape for b in few.batches(TOKENS, tokens)}) <= profile.SHAPES
    # Rows of other padded lengths and blocks: float32 sums in another order.
    ours, theirs = (map_batches(run, run.batches(TOKENS, 1024)) for run in (few, many))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_programs_are_compiled_before_the_first_batch(model, monkeypatch):
    run = embedding_pass(model)
    batches = run.batches(TOKENS, 900)
    run.compile(batches)

    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be compiled any more")

    monkeypatch.setattr(jax._src.compiler, "backend_compile_and_load", refuse)
    assert len(list(results(lambda *b: run(*b), batches))) == len(batches)
    with pytest.raises(AssertionError, match="any more"):  # the check can fail
        run(*(np.zeros((3, 17), np.int32),) * 2)


def test_a_device_takes_what_its_memory_holds(model, monkeypatch):
    assert batch_tokens(model, "all_lora", TOKENS) == profile.CPU_TOKENS["all_lora"]
    assert batch_tokens(with_execution(model, tokens=77), "all_lora", TOKENS) == 77
    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator()])
    assert batch_tokens(model, "all_lora", TOKENS) == profile.MOST_TOKENS
    monkeypatch.setattr(profile, "memory_of", lambda device: 10**8)
    few = batch_tokens(model, "all_lora", TOKENS)
    assert LENGTHS.max() <= few < profile.MOST_TOKENS
    assert batch_tokens(model, "embedding", TOKENS) > few


@pytest.mark.parametrize(("rank", "long"), [(256, 128), (8, 512)])
def test_the_shortest_and_the_longest_rows_decide(rank, long, monkeypatch):
    """Of as many tokens, short rows are more examples with gradients of their own."""
    lora = LoraConfig(r=rank)
    model = Decoder(DecoderConfig.tiny(), lora, key=jax.random.key(0))
    both = ragged(*[[[1] * 16, [1] * long]] * 2)
    short, long = (ragged([[1] * n], [[1] * n]) for n in (16, long))
    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator()])
    monkeypatch.setattr(profile, "memory_of", lambda device: 10**8)
    of_short, of_long, of_both = (
        batch_tokens(model, "all_lora", tokens) for tokens in (short, long, both)
    )
    assert of_both == (of_short if rank == 256 else of_long) == min(of_short, of_long)
    assert of_short != of_long


def test_a_kernel_takes_no_memory_for_scores():
    config, lora = DecoderConfig.tiny(head_dim=128), LoraConfig()
    plain, splash = Placement(), Placement(attention="splash")

    def temporaries(name, placement):
        return pass_memory(
            config, lora, name, Rows(4, 4096, 4096), placement
        ).temporaries

    for name in ("embedding", "last_v_lora_b", "all_lora", "training"):
        assert temporaries(name, splash) < temporaries(name, plain) / 2
    # Candidates and beams are not one text from left to right.
    assert temporaries("generation", splash) == temporaries("generation", plain)


def test_gradients_that_are_projected_take_memory_where_texts_are_short():
    config, lora = DecoderConfig.tiny(), LoraConfig(r=256)

    def temporaries(length, projected):
        rows = Rows(2048 // length, length, length, projected)
        return pass_memory(config, lora, "all_lora", rows, Placement()).temporaries

    assert temporaries(512, 64) == temporaries(512, 0)
    assert temporaries(16, 64) > temporaries(16, 0)


def test_beams_and_new_tokens_take_memory():
    config, lora = DecoderConfig.tiny(), LoraConfig()

    def temporaries(**more):
        rows = Rows(8, 64, 64, **more)
        return pass_memory(config, lora, "generation", rows, Placement()).temporaries

    assert temporaries(beams=8) > temporaries(new=256) > temporaries()
