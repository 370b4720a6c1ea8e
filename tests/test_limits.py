"""The bytes of benchmarks/limits.py, against sums that are written out by hand."""

import sys
from pathlib import Path

import pytest

from goracs_jax.models import DecoderConfig

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# hidden 32, mlp 48, 2 layers, 4 heads of 8 and 2 for keys, vocabulary 96: see `tiny`.
CONFIG = DecoderConfig.tiny()


@pytest.fixture
def found(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import limits

    yield limits
    sys.modules.pop("limits")


def test_bytes_are_sums_over_arrays(found):
    # One text of 512 tokens, numbers of 2 bytes.
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48
    scores, logits = 4 * 512 * 512 * 4, 512 * 96 * 4
    weights = 2 * (2 * layer + 96 * 32)
    forward = weights + 2 * 2 * 2 * scores + 2 * logits
    count = lambda name, texts=1: found.bytes_of_batch(
        CONFIG, found.PASSES[name], texts, 2
    )
    assert count("forward") == forward
    kept = 512 * (32 + 32 + 32 + 16 + 16 + 48 + 48) * 2
    loss = 2 * logits + 2 * 512 * 32 * 4  # one block of the vocabulary
    back = 2 * 2 * layer + 2 * 2 * kept + 2 * 4 * 2 * scores
    assert count("all_lora") == forward + loss + back
    last = 2 * (32 * 32 + 3 * 32 * 48) + 2 * kept + 2 * scores
    assert count("last_v_lora_b") == forward + loss + last
    # Weights are read once for each batch, all else grows with it.
    assert count("forward", 3) - weights == 3 * (forward - weights)


def test_the_slower_of_the_two_is_the_bound(found):
    run, fast = found.PASSES["all_lora"], found.Device(1e30, 1.0, 2, 1)
    assert found.limits(CONFIG, run, fast)["bound"] == "bytes"
    slow = found.limits(CONFIG, run, fast._replace(flops=1.0, bandwidth=1e30))
    assert slow["bound"] == "FLOPs"
    assert slow["us_by_flops"] == 1e6 * slow["flops"]
