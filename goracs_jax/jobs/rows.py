"""The rows of both sets in each source: arrays of a file, or stages yet to run."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import hash_files
from goracs_jax.gradients.adam import Moments
from goracs_jax.jobs.score import Projection, embed_stage, norms_stage
from goracs_jax.jobs.select_config import LLM_SOURCES, SUBSPACE
from goracs_jax.jobs.sources import states_stage, subspace_stages
from goracs_jax.llm.tokens import Scored
from goracs_jax.runs.opened import Llm, Pool, SentenceEncoder
from goracs_jax.runs.records import UNREADABLE
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.settings import Check, Compare, Select

#: Numbers of a projected gradient among which the subspace of the validation gradients
#: is found; the training gradients are never stored in this width.
SUBSPACE_DIM = 8192
#: The array of a stage that is selected by; of several, the first.
KEPT = ("embeddings", "projections", "rewards", "norms")
#: Stages that train an adapter, by symbol.
TRAINED = ("adapter", "path")


def rows_of(arrays: Arrays) -> np.ndarray:
    """Return the array of a stage that has a row, or a number, for each example."""
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
    llm: Llm | None  # the model whose gradients or states are taken
    moments: Callable[[], Moments] | None  # of Adam, for the training gradients
    scored: Scored
    projection: Projection
    folder: Path  # of the run

    def sides(self, source: str) -> Sides:
        """Find the rows of a source; nothing is computed.

        Args:
            source: "text", "gradient", "subspace", "states", or an .npz file.

        Raises:
            InputError: There is no such source, or its rows do not fit the examples.
        """
        embedder, llm = self.embedder, self.llm
        if source not in ("text", *LLM_SOURCES):
            sizes = [len(pool.examples) for pool in (self.train, self.valid)]
            return read_sides(Path(source), sizes)
        if source == "text":
            assert embedder is not None
            make = lambda side, pool: embed_stage(
                f"{side} embeddings", pool, embedder, self.scored
            )
            return Sides(make("training", self.train), make("validation", self.valid))
        assert llm is not None
        if source == SUBSPACE:
            wide = self.projection._replace(dim=SUBSPACE_DIM)
            given = (self.train, self.valid, llm, self.scored, wide)
            return Sides(*subspace_stages(*given, k=None, folder=self.folder))
        if source == "states":
            make = lambda side, pool: states_stage(f"{side} states", pool, llm)
        else:
            given = (llm, "all_lora", self.scored, self.projection)
            # Adam's step is taken for what would be trained on.
            make = lambda side, pool: norms_stage(
                pool, *given, self.moments if pool is self.train else None
            )._replace(name=f"{side} gradients")
        return Sides(make("training", self.train), make("validation", self.valid))


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
            "--space must be text, gradient, subspace, states or an .npz file with "
            f"arrays train and valid, got {str(path)!r}."
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


def check_rows(s: Select | Compare | Check, *, by_gradients: bool = True) -> None:
    """Refuse flags of gradients as rows that do not fit together.

    Args:
        s: The flags.
        by_gradients: Whether projected gradients are among the rows.

    Raises:
        InputError: The first of them.
    """
    share = s.adapter_from_pool
    if share is not None and not 0 < share <= 1:
        raise InputError(
            f"--adapter-from-pool must be above 0 and at most 1, got {share}."
        )
    if share is not None and s.adapter:
        raise InputError("give --adapter or --adapter-from-pool, not both.")
    if s.preconditioner != "none" and share is None:
        raise InputError(
            f"--preconditioner {s.preconditioner} needs what Adam remembers of a "
            "training: give --adapter-from-pool."
        )
    if s.preconditioner != "none" and not by_gradients:
        raise InputError(
            f"--preconditioner {s.preconditioner} is for gradients as they are: leave "
            "it out, or take the space gradient or the reward alignment."
        )
    if s.projection_dim < 1:
        raise InputError(
            f"--projection-dim must be at least 1, got {s.projection_dim}."
        )
