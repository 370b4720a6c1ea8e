"""The rows of both sets in each source: arrays of a file, or stages yet to run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from goracs_jax.buckets import as_path
from goracs_jax.cost.checks import QUANTISED
from goracs_jax.errors import InputError
from goracs_jax.files import existing_file, hash_files
from goracs_jax.gradients.adam import Moments
from goracs_jax.inputs.array_files import read_array
from goracs_jax.jobs.score import Projection, embed_stage, norms_stage
from goracs_jax.jobs.select_config import LLM_SOURCES, SUBSPACE
from goracs_jax.jobs.sources import loss_drop_stage, states_stage, subspace_stages
from goracs_jax.jobs.warm_up import adapter_from_pool, target_path
from goracs_jax.llm.embeddings import Pooling
from goracs_jax.llm.tokenization import Scored
from goracs_jax.runs.opened import Llm, Pool, SentenceEncoder
from goracs_jax.runs.reading import embedded_in
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.settings import Check, Compare, Select

#: Numbers of a projected gradient among which the subspace of the validation gradients
#: is found; the training gradients are never stored in this width.
SUBSPACE_DIM = 8192
#: How tokens' hidden states become one row, by source.
POOLINGS: dict[str, Pooling] = {"states": "weighted", "prompts": "prompt"}
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
    """What rows, norms and rewards of texts are made from."""

    train: Pool
    valid: Pool
    embedder: Llm | SentenceEncoder | None
    llm: Llm | None  # the model whose gradients or states are taken
    scored: Scored
    embedded: Scored  # all of each text, or the prompt alone
    projection: Projection
    base: str  # the model's name in the adapters of short trainings
    folder: Path  # of the run
    moments: Callable[[], Moments] | None = None  # of Adam, for the training gradients

    @classmethod
    def of(
        cls,
        s: Select | Compare | Check,
        pools: tuple[Pool, Pool],
        embedder: Llm | SentenceEncoder | None,
        llm: Llm | None,
        scored: Scored,
        folder: Path,
        seed: int,
    ) -> "Sources":
        """Take what the flags say; no adapter is trained yet.

        Args:
            s: The flags.
            pools: Training and validation examples.
            embedder: What embeds texts.
            llm: The model whose gradients or states are taken.
            scored: Which tokens are in the loss.
            folder: Where stages are kept that other stages read.
            seed: Seed of projections and short trainings.
        """
        projection = Projection(s.projection_dim, "float32", seed)
        embedded = embedded_in(pools[0].form, s.labels, scored)
        rest = (scored, embedded, projection, str(s.model), folder)
        return cls(*pools, embedder, llm, *rest)

    def warmed(
        self, s: Select | Compare | Check, pool: Pool, share: float, seed: int
    ) -> tuple[Stage, "Sources"]:
        """Train an adapter on a part of a pool first, whose gradients are then taken.

        Args:
            s: The flags, which say whether Adam's steps stand in place of gradients.
            pool: The pool.
            share: The part.
            seed: Seed of the part and of the training.

        Returns:
            The stage that trains, and the sources with this adapter.
        """
        assert self.llm is not None
        stage, llm, moments = adapter_from_pool(
            pool, self.llm, self.scored, share, **self._short(seed)
        )
        kept = moments if s.preconditioner == "adam" else None
        return stage, self._replace(llm=llm, moments=kept)

    @property
    def norms(self) -> Stage:
        """The stage of the norms and prediction errors of the training examples."""
        assert self.llm is not None
        return norms_stage(self.train, self.llm, "last_v_lora_b", self.scored)

    def loss_drop(self) -> tuple[Stage, Stage]:
        """Make the stages of the path to the target, and of the rewards along it."""
        assert self.llm is not None
        given = (self.llm, self.scored)
        path = target_path(self.valid, *given, **self._short(self.projection.seed))
        return path.stage, loss_drop_stage(self.train, self.llm, path, self.scored)

    def _short(self, seed: int) -> dict[str, Any]:
        return {"seed": seed, "base": self.base, "folder": self.folder}

    def sides(self, source: str) -> Sides:
        """Find the rows of a source; nothing is computed.

        Args:
            source: "text", "gradient", "subspace", "states", "prompts", or an .npz
                file.

        Raises:
            InputError: There is no such source, or its rows do not fit the examples.
        """
        embedder, llm = self.embedder, self.llm
        if source not in ("text", *LLM_SOURCES):
            one, two = self.train.of_file, self.valid.of_file
            train, valid, sha256 = read_sides(as_path(source), [one.of, two.of])
            assert isinstance(train, np.ndarray)
            assert isinstance(valid, np.ndarray)
            return Sides(one.take(train), two.take(valid), sha256)
        if source == "text":
            assert embedder is not None
            make = lambda side, pool: embed_stage(
                f"{side} embeddings", pool, embedder, self.embedded
            )
            return Sides(make("training", self.train), make("validation", self.valid))
        assert llm is not None
        if source == SUBSPACE:
            wide = self.projection._replace(dim=SUBSPACE_DIM)
            given = (self.train, self.valid, llm, self.scored, wide)
            return Sides(*subspace_stages(*given, k=None, folder=self.folder))
        if pooling := POOLINGS.get(source):
            make = lambda side, pool: states_stage(
                f"{side} {source}", pool, llm, pooling
            )
        else:
            given = (llm, "all_lora", self.scored, self.projection)
            # Adam's step is taken for what would be trained on.
            make = lambda side, pool: norms_stage(
                pool, *given, self.moments if pool is self.train else None
            )._replace(name=f"{side} gradients")
        return Sides(make("training", self.train), make("validation", self.valid))


def read_sides(path: Path, lengths: list[int]) -> Sides:
    """Read the rows of both sets from an .npz file or one of safetensors.

    Args:
        path: The file, with the arrays train and valid.
        lengths: N and M.

    Raises:
        InputError: There is no such file, it lacks an array, or one has other rows.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(
            "--space must be text, gradient, subspace, states, prompts or an .npz file "
            "(or one of safetensors) with arrays train and valid, got "
            f"{str(path)!r}."
        )
    existing_file(path)
    named = [as_path(f"{path}:{name}") for name in Sides._fields[:2]]
    try:
        found = [read_array(each, "rows", "floats") for each in named]
    except InputError as error:
        raise InputError(
            f"{error} --space takes the arrays train and valid of one file: write it "
            "with numpy.savez(path, train=..., valid=...)."
        ) from None
    for name, rows, length in zip(Sides._fields, found, lengths, strict=False):
        numbers = jnp.issubdtype(rows.dtype, jnp.floating) or rows.dtype in QUANTISED
        if rows.ndim != 2 or not numbers or len(rows) != length:
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
