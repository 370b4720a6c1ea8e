"""Which cells a comparison has, and what each of them needs."""

from collections.abc import Sequence
from typing import NamedTuple

#: The method that selects nothing: all training examples.
FULL = "full"
#: Methods whose selection depends on lambda.
WEIGHED = ("goracs", "greedy", "itra")
#: Methods that rank by what the gradient pass says and look at no embedding.
RANKED = ("grad-norm", "error")
#: Behind the name of a method that is to run inside every class.
BY_LABEL = ":by-label"


def selector_of(method: str) -> str:
    """The method that chooses; label-aware or not is another question.

    >>> selector_of("random:by-label"), selector_of("random")
    ('random', 'random')
    """
    return method.removesuffix(BY_LABEL)


class Cell(NamedTuple):
    """One fine-tuned model: how its examples are chosen, how many, and the seed."""

    method: str
    lambda_: float | None  # of methods that have one
    budget: int
    seed: int

    @property
    def selector(self) -> str:
        """The method, label-aware or not."""
        return selector_of(self.method)

    @property
    def by_label(self) -> bool:
        """Whether it runs inside every class, with budgets by the classes' shares."""
        return self.method.endswith(BY_LABEL)

    @property
    def needs(self) -> tuple[str, ...]:
        """What is computed of all examples before the choice.

        >>> Cell("goracs", 0.0, 8, 0).needs, Cell("random", None, 8, 0).needs
        (('embeddings',), ())
        """
        if self.selector in (FULL, "random"):
            return ()
        if self.selector in RANKED:
            return ("gradients",)
        return ("embeddings", "gradients") if self.lambda_ else ("embeddings",)

    def __str__(self) -> str:
        """As a message names it."""
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
) -> list[Cell]:
    """All cells: every method for the first seed, then for the next.

    Args:
        methods: Names of selectors, each alone or with BY_LABEL behind it, and `full`.
        budgets: Values of n.
        lambdas: For the methods that have one.
        seeds: Of selection and training.
        full_seeds: `full` has the first so many of them.
        n_train: N.

    Returns:
        The cells, without repetitions.

    >>> sizes = {"full_seeds": 1, "n_train": 9}
    >>> cells = design(["full", "itra"], [4], [0.0, 1.0], [5, 6], **sizes)
    >>> [str(cell) for cell in cells][1:3]
    ['itra, lambda 0, budget 4, seed 5', 'itra, lambda 1, budget 4, seed 5']
    >>> len(cells)
    5
    """
    cells = []
    for place, seed in enumerate(seeds):
        if FULL in methods and place < full_seeds:
            cells.append(Cell(FULL, None, n_train, seed))
        for budget in sorted(budgets):
            for method in methods:
                if method != FULL:
                    weighed = selector_of(method) in WEIGHED
                    weights = sorted(lambdas) if weighed else [None]
                    cells += [Cell(method, w, budget, seed) for w in weights]
    return cells
