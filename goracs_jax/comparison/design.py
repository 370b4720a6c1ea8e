"""The trials of a comparison, and what each of them needs."""

from collections.abc import Sequence
from typing import NamedTuple

from goracs_jax.selection.method import Method, find_method, needs_of

#: The method that selects nothing: it trains on all training examples.
FULL = "full"
#: The suffix of a method that runs inside every class.
BY_LABEL = ":by-label"


#: The part of a trial's cost (seconds, FLOPs) that each need of a method belongs to.
COSTS = {
    "embeddings": "embeddings",
    "grad_norms": "gradients",
    "prediction_errors": "gradients",
    "rewards": "gradients",
}


def base_name(method: str) -> str:
    """Return the name of the method that chooses, without its label-aware suffix.

    >>> base_name("random:by-label"), base_name("random")
    ('random', 'random')
    """
    return method.removesuffix(BY_LABEL)


class Trial(NamedTuple):
    """One fine-tuned model: how its examples are chosen, how many, and the seed."""

    method: str
    lambda_: float | None  # of methods that have one
    budget: int
    seed: int

    @property
    def selects(self) -> bool:
        """Whether rows are chosen; `full` takes them all."""
        return self.method != FULL

    @property
    def base_method(self) -> Method:
        """The record of the method, label-aware or not."""
        return find_method(base_name(self.method))

    @property
    def by_label(self) -> bool:
        """Whether it runs inside every class, with budgets by the classes' shares."""
        return self.method.endswith(BY_LABEL)

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts of the cost: what is computed of all examples before the choice.

        >>> Trial("goracs", 0.0, 8, 0).needs, Trial("random", None, 8, 0).needs
        (('embeddings',), ())
        """
        if not self.selects:
            return ()
        needed = {COSTS[x] for x in needs_of(self.base_method, self.lambda_)}
        return tuple(sorted(needed))

    def __str__(self) -> str:
        """Return the trial as messages name it."""
        weight = "" if self.lambda_ is None else f"lambda {self.lambda_:g}, "
        return f"{self.method}, {weight}budget {self.budget}, seed {self.seed}"


def design(
    methods: Sequence[str],
    budgets: Sequence[int],
    lambdas: Sequence[float],
    seeds: Sequence[int],
    *,
    full_seeds: int,
    n_train: int,
) -> list[Trial]:
    """List all trials: every method with the first seed, then with the next.

    Args:
        methods: Names of methods, each alone or with BY_LABEL behind it, and `full`.
        budgets: Values of n.
        lambdas: Weights of the gradient term, for the methods in which it weighs.
        seeds: Seeds of selection and training.
        full_seeds: `full` is trained with this many of the seeds, from the first on.
        n_train: N.

    Returns:
        The trials, without repetitions.

    >>> sizes = {"full_seeds": 1, "n_train": 9}
    >>> trials = design(["full", "itra"], [4], [0.0, 1.0], [5, 6], **sizes)
    >>> [str(trial) for trial in trials][1:3]
    ['itra, lambda 0, budget 4, seed 5', 'itra, lambda 1, budget 4, seed 5']
    >>> len(trials)
    5
    """
    trials = []
    for place, seed in enumerate(seeds):
        if FULL in methods and place < full_seeds:
            trials.append(Trial(FULL, None, n_train, seed))
        for budget in sorted(budgets):
            for method in methods:
                if method != FULL:
                    weighed = find_method(base_name(method)).weighed
                    weights = sorted(lambdas) if weighed else [None]
                    trials += [Trial(method, w, budget, seed) for w in weights]
    return trials
