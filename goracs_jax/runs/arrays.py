"""Arrays that a user gives as .npy files: memory-mapped, and never unpickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.errors import InputError, one_line
from goracs_jax.files import existing_file, hash_files
from goracs_jax.npy import check_header


class Given(NamedTuple):
    """Arrays of floats by name, and the SHA-256 of the file of each."""

    arrays: dict[str, np.ndarray]
    sha256: dict[str, str]


def read_floats(paths: Mapping[str, tuple[Path | None, str]]) -> Given:
    """Read the files of floats that were given.

    Args:
        paths: The path, or None, and what the array is called in messages, by name.

    Raises:
        InputError: A file is missing, not a .npy file, or holds other values.
    """
    given = Given({}, {})
    for name, (path, what) in paths.items():
        if path:
            given.arrays[name] = read_npy(path, what, "floats")
            if given.arrays[name].dtype.kind != "f":
                raise InputError(f"{path}: the {what} must be one array of floats.")
            given.sha256[name] = hash_files(path)
    return given


def read_npy(path: Path, what: str, kind: str) -> np.ndarray:
    """Map one array of a .npy file into memory.

    Args:
        path: The file.
        what: What the array is called in messages.
        kind: Which values it should have, for the same messages.

    Raises:
        InputError: The file is missing, not a .npy file, or holds Python objects.
    """
    try:
        with existing_file(path).open("rb") as file:
            check_header(file, path.stat().st_size)
        return np.lib.format.open_memmap(path, mode="r")
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever the bytes lead to)
        raise InputError(
            f"{path} is not a .npy file of numbers or strings ({one_line(error)}): "
            f"write the {what} with numpy.save, as an array of {kind}."
        ) from None
