"""Floats of 8 bits: the numbers of transformers' own dequantisation."""

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from goracs_jax.models.checkpoint import open_safetensors
from goracs_jax.models.float8 import Scales, dequantised


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("grid", [(1, 1), (32, 1), (2, 3)])
@pytest.mark.parametrize("exponents", [False, True])
def test_numbers(tmp_path, kind, grid, exponents):
    torch.manual_seed(0)
    weight = (5 * torch.randn(32, 48)).to(kind)
    scales = torch.rand(grid) + 0.5
    if exponents:
        scales = torch.randint(120, 130, grid).to(torch.uint8)
    expected = Fp8Dequantize(None)._dequantize_one(weight, scales, torch.float32)
    stored = {"a.weight": weight, "a.weight_scale_inv": scales}
    save_file(stored, tmp_path / "model.safetensors")
    tensors = dequantised(open_safetensors(tmp_path, float8=True), Scales())
    np.testing.assert_array_equal(tensors.read("a.weight"), expected.numpy())
    part = (slice(3, 20), slice(5, 40))
    found = tensors.read("a.weight", part)
    np.testing.assert_array_equal(found, expected.numpy()[part])


def test_bytes_are_those_of_torch(tmp_path):
    """All 256 of them, from a file that safetensors gives to torch alone."""
    every = torch.arange(256).to(torch.uint8)
    types = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
    for kind, ours in zip([torch.float8_e4m3fn, torch.float8_e5m2], types, strict=True):
        weight = every.view(kind).reshape(16, 16)
        save_file({"a.weight": weight}, tmp_path / "model.safetensors")
        found = open_safetensors(tmp_path, float8=True).read("a.weight")
        assert found.dtype == ours
        np.testing.assert_array_equal(found.astype(np.float32), weight.float().numpy())
