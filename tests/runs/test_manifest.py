import pytest

from goracs_jax.runs.manifest import repeatable


@pytest.mark.parametrize(("flags", "expected"), [
    ("", False),
    ("--xla_gpu_deterministic_ops=true", True),
    ("--xla_gpu_autotune_level=4 --xla_gpu_deterministic_ops --xla_dump_to=x", True),
    ("--xla_gpu_deterministic_ops=false", False),
])  # fmt: skip
def test_a_gpu_repeats_its_bytes_if_it_is_told_to(flags, expected, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert repeatable("gpu") is expected
    assert repeatable("cpu")
    assert repeatable("tpu")
