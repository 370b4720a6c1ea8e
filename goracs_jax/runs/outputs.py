"""Checks of outputs before work starts: they spare the inputs and fit the disk."""

from pathlib import Path

from goracs_jax.errors import InputError

#: An upper estimate of an embedding's width, before the model is read.
WIDTH = 4096


def bytes_to_store(n_rows: int, width: int = WIDTH) -> int:
    """Return an upper estimate of the bytes on disk of n embeddings or gradients."""
    return 3 * 4 * width * n_rows  # float32: as parts, as a stage and as a file


def keep_apart(out: Path, *sources: Path | None, flag: str = "--out") -> None:
    """Refuse to write over what is read, or into a folder that is hashed.

    Args:
        out: What is to be written.
        sources: What is read; None stands for what was not given.
        flag: The flag that gave `out`.

    Raises:
        InputError: `out` is one of the sources or lies in one.
    """
    for source in sources:
        if source and out.resolve().is_relative_to(source.resolve()):
            raise InputError(
                f"{flag} {out} lies in the input {source}: choose another."
            )


def work_folder(out: Path) -> Path:
    """Return the folder beside an output file for its stages while they run.

    >>> work_folder(Path("x/norms.npy")).name
    'norms.npy.work'
    """
    return out.with_name(out.name + ".work")
