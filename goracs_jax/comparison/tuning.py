"""The learning rate of each budget, tuned on random alone; full is tuned for itself.

Were each method tuned for itself, the one with more settings would have more chances.
The seeds of tuning are others than those of the comparison: with the same, random would
meet a rate that suits its own draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.choices import BASELINE
from goracs_jax.comparison.design import FULL, Trial
from goracs_jax.settings import Compare


class Tuned(NamedTuple):
    """The mean validation loss of each learning rate, for one budget or for full."""

    method: str
    budget: int
    losses: Mapping[float, float]

    @property
    def learning_rate(self) -> float:
        """The rate of the lowest loss; of equals, the first that was given."""
        return min(self.losses, key=self.losses.__getitem__)

    def decides(self, trial: Trial) -> bool:
        """Tell whether a trial of the comparison is trained at this rate."""
        return (self.method, self.budget) == (_tuned_by(trial), trial.budget)

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        losses = [{"learning_rate": x, "valid_loss": y} for x, y in self.losses.items()]
        chosen = {"learning_rate": self.learning_rate}
        return {"method": self.method, "budget": self.budget, **chosen, "tried": losses}


def tuning_trials(settings: Compare, trials: Sequence[Trial]) -> list[Trial]:
    """List the trials that tune the learning rates of a comparison.

    Args:
        settings: Its flags: seeds of tuning count down from --seed, and full takes no
            more of them than it has seeds.
        trials: Its trials.

    Returns:
        None where no learning rate is to be tuned.
    """
    seeds = [(settings.seed - 1 - i) % 2**32 for i in range(settings.tuning_seeds)]
    kinds = dict.fromkeys((_tuned_by(trial), trial.budget) for trial in trials)
    return [
        Trial(method, None, budget, seed, rate)
        for method, budget in kinds
        for rate in settings.tune_learning_rate or ()
        for seed in seeds[: settings.full_seeds if method == FULL else None]
    ]


def tuned_rates(losses: Mapping[Trial, float | None]) -> list[Tuned]:
    """Find the rates of those budgets whose tuning trials are all finished.

    Args:
        losses: The validation loss of each tuning trial; None where it is not finished.
    """
    found: dict[tuple[str, int], dict[float, list[float]]] = {}
    waiting = set()
    for trial, loss in losses.items():
        assert trial.learning_rate is not None, "of tuning"
        kind = (trial.method, trial.budget)
        if loss is None:
            waiting.add(kind)
        else:
            by_rate = found.setdefault(kind, {})
            by_rate.setdefault(trial.learning_rate, []).append(loss)
    return [
        Tuned(
            *kind, {rate: float(np.mean(several)) for rate, several in by_rate.items()}
        )
        for kind, by_rate in found.items()
        if kind not in waiting
    ]


def with_rate(trial: Trial, tuned: Sequence[Tuned]) -> Trial:
    """Give a trial the learning rate of its budget, if it is known."""
    rates = [each.learning_rate for each in tuned if each.decides(trial)]
    return trial._replace(learning_rate=rates[0]) if rates else trial


def _tuned_by(trial: Trial) -> str:
    return BASELINE if trial.selects else FULL
