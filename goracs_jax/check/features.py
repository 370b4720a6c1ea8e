"""The arrays that a check is about: rows in every space, and rewards."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.check.examine import Features, Pair, Planted
from goracs_jax.check.inputs import CheckInputs, Drawn, Rows
from goracs_jax.jobs.rows import GRADIENT, Sides, Sources, read_sides, rows_of
from goracs_jax.jobs.score import Projection, norms_stage
from goracs_jax.runs.opened import open_models
from goracs_jax.runs.stages import Stage, run_stage
from goracs_jax.selection.classes import Classes
from goracs_jax.settings import Check
from goracs_jax.spaces import Reward, Space, alignment


class Side(NamedTuple):
    """A set of rows against the target: where the arrays of both come from."""

    sides: Callable[[str], Sides]  # by source
    norms: Callable[[], Stage]
    classes: Classes | None

    def stages(self, inputs: CheckInputs) -> list[Stage]:
        """List the stages of all sources and rewards; those of files have none."""
        found = [part for name in sources_of(inputs) for part in self.sides(name)[:2]]
        if Reward("grad-norm") in inputs.rewards:
            found.append(self.norms())
        return [part for part in found if isinstance(part, Stage)]


def sources_of(inputs: CheckInputs) -> list[str]:
    """List the sources that the spaces and rewards need."""
    names = [part.name for space in inputs.spaces for part in space.parts]
    if any(reward.kind == "alignment" for reward in inputs.rewards):
        names.append(GRADIENT)
    return list(dict.fromkeys(names))


def sides_of(settings: Check, inputs: CheckInputs, drawn: Drawn) -> tuple[Side, Side]:
    """Find where the arrays of the pool and of the planted rows come from.

    Args:
        settings: The flags.
        inputs: The target, the spaces and the rewards.
        drawn: The pool and the planted rows.

    Raises:
        InputError: There is no such model, source or file, or a file does not fit.
    """
    s, scored = settings, inputs.training.scored
    llm, embedder = open_models(s.model, s.encoder, s.adapter, s.seed, s)
    assert llm is not None, "--model is required"
    projection = Projection(s.projection_dim, "float32", s.seed)
    whole = [inputs.n_train, inputs.n_valid]

    def side(some: Rows, classes: Classes | None) -> Side:
        given = (embedder, llm, scored, projection)
        sources = Sources(some.pool, inputs.target.pool, *given)

        @cache
        def sides(source: str) -> Sides:
            if not source.endswith(".npz"):
                return sources.sides(source)
            train, valid, sha256 = read_sides(Path(source), whole)
            assert isinstance(train, np.ndarray)
            assert isinstance(valid, np.ndarray)
            return Sides(train[some.rows], valid[inputs.target.rows], sha256)

        norms = cache(lambda: norms_stage(some.pool, llm, "last_v_lora_b", scored))
        return Side(sides, norms, classes)

    return (
        side(drawn.pool, drawn.classes),
        side(drawn.planted, drawn.planted_classes),
    )


def features_of(
    inputs: CheckInputs, drawn: Drawn, sides: tuple[Side, Side], folder: Path
) -> tuple[Features, Planted]:
    """Compute the arrays of both sets, or read back what is done.

    Args:
        inputs: The spaces and the rewards.
        drawn: The planted rows.
        sides: Where the arrays come from.
        folder: Where stages are kept.
    """
    for stage in (stage for side in sides for stage in side.stages(inputs)):
        if not stage.is_done(folder):
            stage.prepare()
    pool, planted = (_features(inputs, side, folder) for side in sides)
    return pool, Planted(planted, drawn.flag)


def _features(inputs: CheckInputs, side: Side, folder: Path) -> Features:
    def rows(part: Stage | np.ndarray) -> np.ndarray:
        return (
            rows_of(run_stage(folder, part).arrays) if isinstance(part, Stage) else part
        )

    @cache
    def pair(source: str) -> Pair:
        train, valid, _ = side.sides(source)
        return rows(train), rows(valid)

    def in_space(space: Space) -> Pair:
        return space.of([pair(part.name) for part in space.parts])

    def reward_of(reward: Reward) -> np.ndarray:
        if reward.kind == "grad-norm":
            return run_stage(folder, side.norms()).arrays["norms"]
        labels = {}
        if c := side.classes:
            labels = {"train_labels": c.train, "valid_labels": c.valid}
        return alignment(*pair(GRADIENT), drop=reward.drop, **labels)

    return Features(
        {str(space): in_space(space) for space in inputs.spaces},
        {str(reward): reward_of(reward) for reward in inputs.rewards},
        side.classes,
    )
