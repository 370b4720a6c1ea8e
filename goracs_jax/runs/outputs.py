"""Where work is done and written, with room on the disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from goracs_jax.files import locked, prepare_folder
from goracs_jax.mesh import leads

#: An upper estimate of an embedding's width, before the model is read.
WIDTH = 4096


def bytes_to_store(n_rows: int, width: int = WIDTH) -> int:
    """Return an upper estimate of the bytes on disk of n embeddings or gradients."""
    return 3 * 4 * width * n_rows  # float32: as parts, as a stage and as a file


def work_folder(out: Path) -> Path:
    """Return the folder beside an output file for its stages while they run.

    >>> work_folder(Path("x/norms.npy")).name
    'norms.npy.work'
    """
    return out.with_name(out.name + ".work")


@contextmanager
def working_in(folder: Path, needed_bytes: int, lock: str = "") -> Iterator[bool]:
    """Prepare a folder and keep other runs out of it, in the process that writes.

    Args:
        folder: The folder.
        needed_bytes: What the disk must have room for.
        lock: The folder in it that is locked; by default itself.

    Yields:
        Whether this process is the one that writes results.

    Raises:
        InputError: There is no room, or another run works there.
    """
    if not leads():
        yield False
        return
    prepare_folder(folder, needed_bytes)
    with locked(folder / lock):
        yield True
