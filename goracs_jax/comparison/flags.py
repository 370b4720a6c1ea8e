"""The flags of a comparison, checked before any file is read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from goracs_jax.comparison.design import BY_LABEL, COSTS, FULL, Arm, Trial
from goracs_jax.cost import check_lambda
from goracs_jax.errors import InputError
from goracs_jax.jobs.rows import check_rows
from goracs_jax.jobs.select_config import GRADIENT
from goracs_jax.jobs.train_config import TrainConfig
from goracs_jax.selection.method import (
    Method,
    Searching,
    known_methods,
    with_search,
)
from goracs_jax.settings import Compare


def check_flags(s: Compare) -> None:
    """Refuse flags that are wrong whatever the files contain.

    Raises:
        InputError: The first of them.
    """
    known = known_methods()
    for method in s.methods:
        if method != FULL and Arm.parse(method).method not in known:
            raise InputError(
                f"--methods must be among {', '.join([*known, FULL])}, all but "
                f"{FULL} with or without {BY_LABEL} and @SPACE or @SPACE@REWARD, got "
                f"{method!r}."
            )
    arms = [method for method in s.methods if method != FULL]
    _check_arms(arms)
    # A lambda of 1 stands for one at which a reward counts.
    read = (Trial(arm, 1.0, 1, 0).config.symbols for arm in arms)
    check_rows(s, by_gradients=any(GRADIENT in symbols for symbols in read))
    if s.lambdas and not any(Trial(arm, None, 1, 0).weighs for arm in arms):
        weighed = [name for name, method in known.items() if method.weighed]
        raise InputError(
            f"--lambdas are for {', '.join(weighed)} with a reward, and none of them "
            "is in --methods: leave them out."
        )
    methods = [searched(s, Arm.parse(arm).record) for arm in arms]
    asked = (s.effort, s.bound) != (Compare.effort, Compare.bound)
    if asked and not any(isinstance(method, Searching) for method in methods):
        raise InputError(
            "--effort and --bound are for methods that search, such as goracs, and "
            "none of them is in --methods: leave them out."
        )
    _check_tuning(s)
    for lambda_ in s.lambdas or ():
        check_lambda(lambda_)
    if s.seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {s.seeds}.")
    if s.seeds > (most := 2**32 - s.seed):
        raise InputError(
            f"--seeds must be at most {most} with --seed {s.seed}, got {s.seeds}: "
            f"seeds end at {2**32 - 1}."
        )
    if not 1 <= s.full_seeds <= s.seeds:
        raise InputError(
            f"--full-seeds must be in [1, {s.seeds}], the number of seeds, got "
            f"{s.full_seeds}."
        )
    if s.out.exists() and not s.out.is_dir():
        raise InputError(f"--out {s.out} is a file: give a folder.")


def searched(s: Compare, method: Method) -> Method:
    """Return a method with --effort and --bound, if it is one that searches.

    Raises:
        InputError: As `with_search`.
    """
    if not isinstance(method, Searching):
        return method
    return with_search(method, s.effort, s.bound)


def _check_arms(arms: Sequence[str]) -> None:
    """Refuse a space or a reward that there is not, and one choice under two names.

    Raises:
        InputError: As `SelectConfig.check`; or the rows are those of a file.
    """
    seen: dict[tuple, str] = {}
    for name in arms:
        if str(arm := Arm.parse(name)) != name:
            raise InputError(
                f"--methods {name}: write METHOD[:by-label][@SPACE[@REWARD]]."
            )
        config = Trial(name, None, 1, 0).config
        config.check(n_valid=2**62)
        config.reward.check_labels(arm.by_label)
        for source in config.symbols:
            if source not in COSTS:
                raise InputError(
                    f"--methods {name}: a space is text, gradient, subspace, states or "
                    f"prompts, got {source!r}."
                )
        choice = (arm.method, arm.by_label, str(config.space), str(config.reward))
        if (other := seen.setdefault(choice, name)) != name:
            raise InputError(f"--methods {other} and {name} are the same: give one.")


def _check_tuning(s: Compare) -> None:
    if s.tuning_seeds < 1:
        raise InputError(f"--tuning-seeds must be at least 1, got {s.tuning_seeds}.")
    if s.tune_learning_rate is None:
        return
    if s.learning_rate is not None:
        raise InputError("give --learning-rate or --tune-learning-rate, not both.")
    if len(s.tune_learning_rate) < 2:
        raise InputError(
            "--tune-learning-rate chooses among several rates: give more, or "
            "--learning-rate."
        )
    for rate in s.tune_learning_rate:
        if not 0 < rate < np.inf:
            raise InputError(f"--tune-learning-rate must be positive, got {rate}.")
    if s.seeds + s.tuning_seeds > 2**32:
        raise InputError("--seeds and --tuning-seeds are more than there are seeds.")


def training_of(s: Compare) -> TrainConfig:
    """Configure training; with --tokens, steps are known once rows are chosen.

    Raises:
        InputError: A flag is wrong.
    """
    if s.tokens is None:
        return TrainConfig.of(s, s.seed)
    if s.tokens < 1:
        raise InputError(f"--tokens must be at least 1, got {s.tokens}.")
    if s.steps is not None or s.epochs is not None:
        raise InputError(
            "--tokens takes the place of --steps and --epochs: give one of them."
        )
    return TrainConfig.of(replace(s, steps=s.warmup_steps + 1), s.seed)
