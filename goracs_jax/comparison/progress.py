"""How far a comparison is, by what its folder has."""

from typing import NamedTuple

from goracs_jax.comparison.cells import Finished, folder_of
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.comparison.tuning import Tuned, tuned_rates, with_rate
from goracs_jax.settings import Compare

#: Trials in their order, with what the finished ones have left.
Done = dict[Trial, Finished | None]


class Progress(NamedTuple):
    """The trials of a comparison, and the learning rates that are known by now."""

    tuning: Done  # the trials that tune the learning rate
    tuned: list[Tuned]
    found: Done  # the trials of the table, at the rates that were tuned
    untuned: list[Trial]  # those whose learning rate is not known yet

    @classmethod
    def of(cls, settings: Compare, inputs: CompareInputs) -> "Progress":
        """Look up which trials are finished.

        Args:
            settings: The flags of the comparison.
            inputs: Its files.
        """
        look = lambda trials: {
            each: folder_of(settings, inputs, each).finished() for each in trials
        }
        tuning = look(inputs.tuning)
        losses = {each: done and done.valid_loss for each, done in tuning.items()}
        tuned = tuned_rates(losses)
        rated = [with_rate(each, tuned) for each in inputs.trials]
        known = lambda each: not inputs.tuning or each.learning_rate is not None
        untuned = [each for each in rated if not known(each)]
        return cls(tuning, tuned, look(filter(known, rated)), untuned)

    @property
    def todo(self) -> list[Trial]:
        """The trials that are not finished."""
        return [*unfinished(self.tuning), *unfinished(self.found), *self.untuned]


def unfinished(trials: Done) -> list[Trial]:
    """List the trials that are not finished.

    >>> unfinished({Trial("full", None, 9, 0): None})
    [Trial(method='full', lambda_=None, budget=9, seed=0, learning_rate=None)]
    """
    return [each for each, done in trials.items() if not done]
