"""What a check reads: files, flags and names, all checked before any work."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from goracs_jax.buckets import as_path
from goracs_jax.check.design import Sizes
from goracs_jax.check.planted import MOST_CLASSES, plant
from goracs_jax.comparison.drawn import draw, halves, pool_of
from goracs_jax.data.cutting import Limit, is_within
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import InputError
from goracs_jax.jobs.classes import check_budgets, classes_of
from goracs_jax.jobs.leakage import Leaked, rows_to_keep
from goracs_jax.jobs.rows import check_rows, read_sides
from goracs_jax.jobs.select_config import LLM_SOURCES
from goracs_jax.jobs.train_config import TrainConfig
from goracs_jax.llm.conversations import is_chat
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.pools import left_out, limit_of, read_pools
from goracs_jax.runs.reading import scored_in
from goracs_jax.selection.classes import Classes
from goracs_jax.selection.problem import check_memory
from goracs_jax.settings import Check
from goracs_jax.settings.times import seconds_of
from goracs_jax.spaces import Reward, Space

#: Steps of a training where neither steps nor epochs are given.
STEPS = 100
#: Share of the pool that trains an adapter where there is none.
WARM = 0.05


class Numbered(NamedTuple):
    """Some examples of a file, and their numbers in it."""

    pool: Pool
    rows: Int[np.ndarray, " rows"]


class CheckInputs(NamedTuple):
    """The files of a check, and what its flags ask for."""

    train: Pool
    valid: Kept  # the rows of the file that are target or judge
    target: Numbered
    judge: Numbered
    spaces: tuple[Space, ...]
    rewards: tuple[Reward, ...]
    training: TrainConfig
    sizes: Sizes
    limit: float | None  # seconds
    longest: Limit  # of a text with a planted output
    leaked: Leaked  # training examples that copy what validates
    skipped: list[Skipped]  # records that were left out


class Drawn(NamedTuple):
    """The examples that a check looks at."""

    pool: Numbered
    planted: Numbered  # some of them, with mistakes
    flag: Bool[np.ndarray, " planted"]  # where
    classes: Classes | None  # of the pool and the target
    planted_classes: Classes | None


class Given(NamedTuple):
    """Flags of `goracs select` that follow from those of the check."""

    by_label: list[str]  # of any method
    by_text: list[str]  # of methods that read texts
    by_llm: list[str]  # where gradients are read


def with_defaults(settings: Check) -> Check:
    """Fill in the flags whose defaults depend on others."""
    s = settings
    steps = STEPS if s.steps is None and s.epochs is None else s.steps
    usual = None if s.adapter else WARM
    share = usual if s.adapter_from_pool is None else s.adapter_from_pool
    return replace(s, steps=steps, adapter_from_pool=share)


def read_inputs(settings: Check) -> CheckInputs:
    """Read and check what the flags of `goracs check` ask for; nothing is computed.

    Raises:
        InputError: The first flag or file that is wrong.
    """
    s = settings
    seconds = None if s.time_limit is None else seconds_of(s.time_limit)
    training = TrainConfig.of(s, s.seed)
    if training.loop.keep == "best":
        raise InputError(
            "--keep best chooses by the loss that judges: give --keep last or average."
        )
    spaces = tuple(map(Space.named, s.spaces))
    rewards = tuple(map(Reward.named, s.rewards))
    check_rows(s)
    _check_sizes(s)
    scored = partial(scored_in, labels=s.labels, default=training.scored)
    limit = limit_of(s, s.model, scored=scored)
    given = {"limit": limit, "flags": s, "duplicates": s.duplicates}
    longest = limit or limit_of(replace(s, too_long="skip"), s.model, scored=scored)
    assert longest  # a model has a context
    train, valid = read_pools(s.train, s.valid, **given)
    training = training.reading(train, s.labels)
    skipped = left_out(train, valid)
    kept, leaked = rows_to_keep(train, {"validation": valid}, s)
    train = train.only(kept)
    target, judge = (
        Numbered(half, _numbers(half, valid)) for half in halves(valid, s.out)
    )
    n_train, n_target = len(train.examples), len(target.rows)
    rows = min(s.rows, n_train)
    if rows < 2 * s.budget:
        raise InputError(
            f"--budget {s.budget} of {rows} training examples: give at most half of "
            "them, so that subsets can differ."
        )
    check_memory(s.budget, n_target)
    training.check_size(s.budget)
    lengths = [train.of_file.of, valid.of_file.of]
    _check_names(spaces, rewards, lengths, n_target)
    sizes = Sizes(
        rows,
        min(s.planted_rows, rows),
        *(s.repeats, s.pairs, s.quantiles, s.quantile_seeds, s.subsets),
    )
    cut = (train, valid.of_file, target, judge)
    asked = (spaces, rewards, training, sizes, seconds, longest, leaked, skipped)
    found = CheckInputs(*cut, *asked)
    drawn = drawn_of(found, sizes, s)  # refuses what cannot be planted or shared out
    check_budgets([s.budget], rows, drawn.classes)
    for reward in rewards:
        reward.check_labels(drawn.classes is not None)
    _check_quantiles(s, rows, drawn.classes)
    return found


def _check_names(
    spaces: Sequence[Space], rewards: Sequence[Reward], lengths: list[int], target: int
) -> None:
    """Refuse spaces and rewards that are none, or that the data do not allow.

    Args:
        spaces: What --spaces names.
        rewards: What --rewards names.
        lengths: Examples of --train and --valid.
        target: Examples of the target.

    Raises:
        InputError: The first of them.
    """
    if Reward("none") in rewards:
        raise InputError("--rewards are what is asked about: none is no reward.")
    for flag, names in (("spaces", spaces), ("rewards", rewards)):
        if len({*names}) < len(names):
            raise InputError(f"--{flag} names one of them twice: give each once.")
    for space in spaces:
        space.check(target)
        for source, _ in space.parts:
            if source not in ("text", *LLM_SOURCES):
                read_sides(as_path(source), lengths)
    for reward in rewards:
        if reward.drop >= target:
            raise InputError(
                f"--rewards {reward} leaves out as many directions as {target} target "
                "examples have at most: give a smaller number."
            )


def _check_quantiles(s: Check, rows: int, classes: Classes | None) -> None:
    """Refuse ranges of distance in which a class has no example.

    Raises:
        InputError: There are too many ranges.
    """
    least = rows
    if classes is not None:
        mine, theirs = classes.counts
        least = int(mine[theirs > 0].min())
    if s.quantile_seeds and s.quantiles > least:
        raise InputError(
            f"--quantiles {s.quantiles} of {least} examples, the rows of the smallest "
            "class, leaves ranges without any: give fewer."
        )


def drawn_of(inputs: CheckInputs, sizes: Sizes, settings: Check) -> Drawn:
    """Draw the rows of the pool that are looked at, and plant mistakes in some.

    Fewer rows are the first ones of a larger draw.

    Args:
        inputs: What was read.
        sizes: How many rows.
        settings: The flags.
    """
    s = settings
    target = inputs.target.pool

    def first(count: int) -> Numbered:
        found = draw(inputs.train, target, (count, None), s.seed, s.out)
        assert found.train_rows is not None
        return Numbered(found.train, found.train_rows)

    pool, some = first(sizes.rows), first(sizes.planted)
    examples = some.pool.examples

    def fits(row: int, output: str) -> bool:
        return is_within(inputs.longest, examples[row].with_output(output))

    share, right = s.planted_share, some.pool.outputs
    outputs, flag = plant(right, share, seed=s.seed, fits=fits)
    changed = [
        example.with_output(output)
        for example, output in zip(examples, outputs, strict=True)
    ]
    planted = some._replace(pool=pool_of(changed, s.out, "planted"))
    classes = None
    if len({*pool.pool.outputs, *target.outputs}) <= MOST_CLASSES:
        classes = classes_of(pool.pool, target), classes_of(planted.pool, target)
    return Drawn(pool, planted, flag, *(classes or (None, None)))


def flags_of(settings: Check, inputs: CheckInputs, drawn: Drawn) -> Given:
    """Return the flags of `goracs select` under which it sees what was checked.

    Args:
        settings: The flags of the check.
        inputs: What they mean.
        drawn: Whether there are classes.
    """
    by_llm = []
    if settings.adapter_from_pool is not None:
        by_llm += ["--adapter-from-pool", f"{settings.adapter_from_pool:g}"]
    if settings.preconditioner != "none":
        by_llm += ["--preconditioner", settings.preconditioner]
    if settings.projection_dim != Check.projection_dim:
        by_llm += ["--projection-dim", str(settings.projection_dim)]
    by_label = ["--by-label"] * (drawn.classes is not None)
    # Without --labels, chats are scored in their answers and embedded whole.
    told = settings.labels is not None or not is_chat(inputs.train.form)
    by_text = ["--labels", inputs.training.scored] * told
    by_text += ["--scale", settings.scale] * (settings.scale != Check.scale)
    return Given(by_label, by_text, by_llm)


def _numbers(some: Pool, whole: Pool) -> Int[np.ndarray, " rows"]:
    """Find the number of each example in the whole file, by its place there."""
    number = {example.place: i for i, example in enumerate(whole.examples)}
    return np.array([number[example.place] for example in some.examples])


def _check_sizes(s: Check) -> None:
    least = {"budget": 2, "planted_rows": 20, "repeats": 2, "pairs": 4}
    least |= {"quantiles": 3, "quantile_seeds": 0, "subsets": max(10, s.pairs)}
    for name, value in least.items():
        if getattr(s, name) < value:
            flag = name.replace("_", "-")
            raise InputError(
                f"--{flag} must be at least {value}, got {getattr(s, name)}."
            )
    if not 0.05 <= s.planted_share <= 0.95:
        raise InputError(
            f"--planted-share must be in [0.05, 0.95], got {s.planted_share}."
        )
