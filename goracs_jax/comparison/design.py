"""The trials of a comparison, and what each of them needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from goracs_jax.jobs.select_config import SelectConfig
from goracs_jax.selection.method import Method, find_method, home_of
from goracs_jax.spaces import Reward, Space

#: The method that selects nothing: it trains on all training examples.
FULL = "full"
#: The suffix of a method that runs inside every class.
BY_LABEL = ":by-label"


#: What is computed of all examples before a choice, by the part of a trial's cost
#: (seconds, FLOPs) that it belongs to.
COSTS = {
    "text": "embeddings",
    "states": "embeddings",
    "prompts": "embeddings",
    "gradient": "gradients",
    "subspace": "gradients",
    "norms": "gradients",
    "loss-drop": "gradients",
}


class Arm(NamedTuple):
    """What is compared: a method, and the space and reward that it chooses by.

    It is written METHOD[:by-label][@SPACE[@REWARD]]; what is left out is the method's
    own.

    >>> arm = Arm.parse("goracs:by-label@gradient/cosine@alignment")
    >>> arm.method, arm.by_label, arm.space, arm.reward
    ('goracs', True, 'gradient/cosine', 'alignment')
    >>> str(arm), str(Arm("goracs", space="text")), str(Arm.parse("random"))
    ('goracs:by-label@gradient/cosine@alignment', 'goracs@text', 'random')
    """

    method: str
    by_label: bool = False  # inside every class, with budgets by the classes' shares
    space: str = ""
    reward: str = ""

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """Read an arm as `--methods` and the records of trials have it."""
        name, _, rest = text.partition("@")
        space, _, reward = rest.partition("@")
        method = name.removesuffix(BY_LABEL)
        return cls(method, method != name, space, reward)

    def __str__(self) -> str:
        """Write what `parse` reads."""
        name = self.method + BY_LABEL * self.by_label
        return "@".join([name, self.space, self.reward]).rstrip("@")

    @property
    def record(self) -> Method:
        """The record of the method."""
        return find_method(self.method)


class Trial(NamedTuple):
    """One fine-tuned model: how its examples are chosen, how many, and the seed."""

    method: str  # an arm, or `full`
    lambda_: float | None  # of methods that have one
    budget: int
    seed: int
    learning_rate: float | None = None  # where --tune-learning-rate decides it

    @property
    def selects(self) -> bool:
        """Whether rows are chosen; `full` takes them all."""
        return self.method != FULL

    @property
    def arm(self) -> Arm:
        """What chooses; not for `full`."""
        return Arm.parse(self.method)

    @property
    def weighs(self) -> bool:
        """Whether lambda matters: the method has one, and there is a reward."""
        return self.arm.record.weighed and self.config.reward.kind != "none"

    @property
    def config(self) -> SelectConfig:
        """What the choice depends on, with the method's own space and reward."""
        arm, home = self.arm, home_of(self.arm.record)
        return SelectConfig(
            method=arm.record,
            budgets=(self.budget,),
            lambdas=(self.lambda_ or 0.0,),
            seed=self.seed,
            space=Space.named(arm.space or home.space),
            reward=Reward.named(arm.reward or home.reward),
        )

    @property
    def passes(self) -> tuple[str, ...]:
        """What is computed of all examples, keys of COSTS; nothing for `full`.

        >>> Trial("goracs", 0.1, 8, 0).passes, Trial("random", None, 8, 0).passes
        (('text', 'norms'), ('text',))
        >>> Trial("goracs@states@alignment", 0.1, 8, 0).passes
        ('states', 'gradient')
        """
        if not self.selects:
            return ()
        config = self.config
        scores = {"norms": config.by_scores, "loss-drop": config.by_loss_drop}
        return (*config.symbols, *(name for name, read in scores.items() if read))

    @property
    def paid(self) -> tuple[str, ...]:
        """Those of `passes` that the choice reads; the others are for the report.

        >>> Trial("goracs", 0.0, 8, 0).paid, Trial("random", None, 8, 0).paid
        (('text',), ())
        """
        if not self.selects:
            return ()
        reads = "embeddings" in self.arm.record.needs
        read = dict.fromkeys(self.config.symbols, reads)
        if source := self.config.reward_source:
            read[source] = True
        return tuple(name for name in self.passes if read.get(name, True))

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts of the cost that the trial pays.

        >>> Trial("goracs", 0.0, 8, 0).needs, Trial("random", None, 8, 0).needs
        (('embeddings',), ())
        """
        return tuple(sorted({COSTS[name] for name in self.paid}))

    @property
    def key(self) -> dict[str, Any]:
        """Method, lambda, budget and seed, by which identities and records name it."""
        key = self._asdict()
        del key["learning_rate"]
        return key

    def __str__(self) -> str:
        """Return the trial as messages name it."""
        weight = "" if self.lambda_ is None else f"lambda {self.lambda_:g}, "
        rate = self.learning_rate
        tuned = "" if rate is None else f", learning rate {rate:g}"
        return f"{self.method}, {weight}budget {self.budget}, seed {self.seed}{tuned}"


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
        methods: Arms, as `Arm` reads them, and `full`.
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
                    weighs = Trial(method, None, budget, seed).weighs
                    weights = sorted(lambdas) if weighs else [None]
                    trials += [Trial(method, w, budget, seed) for w in weights]
    return trials
