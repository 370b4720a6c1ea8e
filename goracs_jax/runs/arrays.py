"""Arrays of floats that a user gives as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from goracs_jax.cost.checks import QUANTISED
from goracs_jax.errors import InputError
from goracs_jax.inputs.array_files import hash_array, read_array


class Given(NamedTuple):
    """Arrays of floats by name, and the SHA-256 of the file of each."""

    arrays: dict[str, np.ndarray]
    sha256: dict[str, str]


def read_floats(paths: Mapping[str, tuple[Path | None, str]]) -> Given:
    """Read the files of floats that were given.

    Args:
        paths: The path, or None, and what the array is called in messages, by name.

    Raises:
        InputError: As `goracs_jax.inputs.array_files.read_array`, or a file holds other
            values.
    """
    given = Given({}, {})
    for name, (path, what) in paths.items():
        if path:
            array = read_array(path, what, "floats")
            # Embeddings may be quantised; scores are floats.
            floats = jnp.issubdtype(array.dtype, jnp.floating)
            if not floats and not (array.ndim == 2 and array.dtype in QUANTISED):
                raise InputError(
                    f"{path}: the {what} must be one array of floats, got "
                    f"{array.dtype} {[*array.shape]}: write them as float32."
                )
            given.arrays[name] = array
            given.sha256[name] = hash_array(path)
    return given
