"""The arrays that a check is about: rows in every space, and rewards."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.buckets import as_path
from goracs_jax.check.examine import Features, Pair, Planted
from goracs_jax.check.inputs import CheckInputs, Drawn, Numbered, drawn_of
from goracs_jax.choices import Scale
from goracs_jax.jobs.finetune import open_inputs, stage_of
from goracs_jax.jobs.rows import Sides, Sources, read_sides, rows_of
from goracs_jax.runs.opened import open_models
from goracs_jax.runs.stages import Stage, check_stages, run_stage
from goracs_jax.selection.classes import Classes
from goracs_jax.settings import Check
from goracs_jax.spaces import Reward, Space


class Side(NamedTuple):
    """A set of rows against the target: where the arrays of both come from."""

    sides: Callable[[str], Sides]  # by source
    reward: Callable[[str], Stage]  # by the kind of a reward that has a stage
    classes: Classes | None
    scale: Scale

    def stages(self, inputs: CheckInputs) -> list[Stage]:
        """List the stages of all sources and rewards; those of files have none."""
        found = [part for name in sources_of(inputs) for part in self.sides(name)[:2]]
        kinds = {reward.kind for reward in inputs.rewards if not reward.source}
        found += [self.reward(kind) for kind in sorted(kinds)]
        return [part for part in found if isinstance(part, Stage)]


def sources_of(inputs: CheckInputs) -> list[str]:
    """List the sources that the spaces and rewards need."""
    names = [part.name for space in inputs.spaces for part in space.parts]
    names += [reward.source for reward in inputs.rewards if reward.source]
    return list(dict.fromkeys(names))


def sides_of(
    settings: Check, inputs: CheckInputs, drawn: Drawn, folder: Path
) -> tuple[Side, Side]:
    """Find where the arrays of the pool and of the planted rows come from.

    Each has an adapter of its own, which is trained on as many of its rows: that of the
    pool has seen the outputs that the planted rows had before.

    Args:
        settings: The flags.
        inputs: The target, the spaces and the rewards.
        drawn: The pool and the planted rows.
        folder: Where stages are kept.

    Raises:
        InputError: There is no such model, source or file, or a file does not fit.
    """
    s, scored, target = settings, inputs.training.scored, inputs.target
    fresh, embedder = open_models(s.model, s.encoder, s.adapter, s.seed, s, s.template)
    assert fresh is not None, "--model is required"
    of_file = (inputs.train.of_file, inputs.valid)
    warming = (s.adapter_from_pool or 0.0) * len(drawn.pool.rows)

    def side(some: Numbered, classes: Classes | None) -> Side:
        pools = (some.pool, target.pool)
        sources = Sources.of(s, pools, embedder, fresh, scored, folder, s.seed)
        if s.adapter_from_pool is not None:
            share = min(1.0, warming / len(some.rows))
            _, sources = sources.warmed(s, some.pool, share, s.seed)

        @cache
        def sides(source: str) -> Sides:
            if not source.endswith(".npz"):
                return sources.sides(source)
            train, valid, sha256 = read_sides(as_path(source), [k.of for k in of_file])
            assert isinstance(train, np.ndarray)
            assert isinstance(valid, np.ndarray)
            one, two = (kept.rows for kept in of_file)
            return Sides(train[one[some.rows]], valid[two[target.rows]], sha256)

        @cache
        def reward(kind: str) -> Stage:
            return sources.norms if kind == "grad-norm" else sources.loss_drop()[1]

        return Side(sides, reward, classes, s.scale)

    return (
        side(drawn.pool, drawn.classes),
        side(drawn.planted, drawn.planted_classes),
    )


def check_models(settings: Check, inputs: CheckInputs) -> None:
    """Open and check all that a check would read; no adapter is trained.

    Args:
        settings: The flags.
        inputs: What they mean.

    Raises:
        InputError: The first thing that is wrong.
    """
    drawn, folder = drawn_of(inputs, inputs.sizes, settings), settings.out / "arrays"
    plain = replace(settings, adapter_from_pool=None)
    for side in sides_of(plain, inputs, drawn, folder):
        check_stages(folder, side.stages(inputs))
    pools = (drawn.pool.pool, inputs.judge.pool)
    given = open_inputs(settings, *pools, inputs.training)
    stage_of(given, inputs.training, folder).prepare()


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
        if not reward.source:
            return rows(side.reward(reward.kind))
        labels = side.classes and side.classes[1:]
        return reward.of(*pair(reward.source), labels)

    return Features(
        {str(space): in_space(space) for space in inputs.spaces},
        {str(reward): reward_of(reward) for reward in inputs.rewards},
        side.classes,
        side.scale,
    )
