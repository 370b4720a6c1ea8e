"""safetensors, seen in 0.8.0."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file


def test_a_transposed_array_is_stored_in_the_wrong_order(tmp_path):
    """safetensors 0.8.0: `save_file` writes the memory of an array, not its rows.

    A transposed view comes back with its shape and the values of the untransposed
    matrix; nothing is raised. So `spread` (goracs_jax/models/tensors.py) and the
    writer of adapters (goracs_jax/models/peft.py) make their arrays contiguous.
    """
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"x": matrix.T}, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")["x"]
    assert found.shape == (3, 2)
    assert not np.array_equal(found, matrix.T), (
        "safetensors stores views as they look: ascontiguousarray can go"
    )
    assert np.array_equal(found.ravel(), matrix.ravel())


def test_an_open_file_is_no_mapping(tmp_path):
    """safetensors 0.8.0: what `safe_open` gives has `keys()` but cannot be iterated.

    So `open_safetensors` (goracs_jax/models/tensors.py) loops over `keys()`, with a
    word to the linter.
    """
    save_file({"x": np.zeros(2)}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert list(file.keys()) == ["x"]
        with pytest.raises(TypeError, match="not iterable"):
            iter(file)
