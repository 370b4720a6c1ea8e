"""The rows of both sets in each source: arrays of a file, or stages yet to run."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import hash_files
from goracs_jax.jobs.score import Projection, embed_stage, norms_stage
from goracs_jax.llm.tokens import Scored
from goracs_jax.runs.opened import Llm, Pool, SentenceEncoder
from goracs_jax.runs.records import UNREADABLE
from goracs_jax.runs.stages import Arrays, Stage

#: The source that takes a pass of the language model with gradients over both sets.
GRADIENT = "gradient"
#: The array of a stage that has the rows, whatever the stage computes beside them.
KEPT = ("embeddings", "projections")


def rows_of(arrays: Arrays) -> np.ndarray:
    """Return the rows among the arrays of a stage."""
    return next(arrays[name] for name in KEPT if name in arrays)


class Sides(NamedTuple):
    """Both sets in one source: stages, or arrays and the hash of their file."""

    train: Stage | np.ndarray
    valid: Stage | np.ndarray
    sha256: str = ""


class Sources(NamedTuple):
    """What sources are made from."""

    train: Pool
    valid: Pool
    embedder: Llm | SentenceEncoder | None
    gradients_of: Llm | None
    scored: Scored
    projection: Projection

    def sides(self, source: str) -> Sides:
        """Find the rows of a source; nothing is computed.

        Args:
            source: "text", "gradient", or an .npz file.

        Raises:
            InputError: There is no such source, or its rows do not fit the examples.
        """
        pools = {"training": self.train, "validation": self.valid}
        if source == "text":
            assert self.embedder is not None
            embedder, scored = self.embedder, self.scored
            stages = [
                embed_stage(f"{side} embeddings", pool, embedder, scored)
                for side, pool in pools.items()
            ]
            return Sides(stages[0], stages[1])
        if source == GRADIENT:
            assert self.gradients_of is not None
            with_llm = (self.gradients_of, "all_lora", self.scored, self.projection)
            stages = [
                norms_stage(pool, *with_llm)._replace(name=f"{side} gradients")
                for side, pool in pools.items()
            ]
            return Sides(stages[0], stages[1])
        return read_sides(Path(source), [len(p.examples) for p in pools.values()])


def read_sides(path: Path, lengths: list[int]) -> Sides:
    """Read the rows of both sets from an .npz file.

    Args:
        path: The file, with the arrays train and valid.
        lengths: N and M.

    Raises:
        InputError: There is no such file, it lacks an array, or one has other rows.
    """
    if path.suffix != ".npz":
        raise InputError(
            f"--space must be text, gradient or an .npz file with arrays train and "
            f"valid, got {str(path)!r}."
        )
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = [np.asarray(file[name]) for name in Sides._fields[:2]]
    except (*UNREADABLE, KeyError) as error:
        raise InputError(
            f"{path} is not an .npz file with arrays train and valid ({error}): write "
            "it with numpy.savez(path, train=..., valid=...)."
        ) from None
    for name, rows, length in zip(Sides._fields, found, lengths, strict=False):
        if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != length:
            raise InputError(
                f"{path}: {name} must be floats [{length}, dim], one row for each "
                f"example, got {rows.dtype} {list(rows.shape)}."
            )
    return Sides(*found, sha256=hash_files(path))
