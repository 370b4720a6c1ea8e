"""The built-in methods: frozen dataclasses of settings, or made from functions.

A method imports its algorithm when it chooses, so that this module imports no JAX.
"""

from dataclasses import dataclass, field, replace

from goracs_jax.selection.method.peers import PEERS
from goracs_jax.selection.method.record import (
    FunctionMethod,
    Method,
    Need,
    imported,
)
from goracs_jax.selection.method.settings import (
    QUICK,
    GroupExchange,
    LowerBound,
    SimulatedAnnealing,
)


@dataclass(frozen=True, kw_only=True)
class Goracs:
    """Minimise POO: greedy start, prices, group exchange and annealing.

    >>> quick = Goracs(name="goracs-quick", annealing=SimulatedAnnealing(epochs=5))
    >>> quick.weighed, quick.needs, quick.exchange.max_rounds
    (True, ('embeddings',), 100)
    """

    name: str = "goracs"
    annealing: SimulatedAnnealing = field(default_factory=SimulatedAnnealing)
    """Settings of the annealing of pairs of slots."""
    exchange: GroupExchange = field(default_factory=GroupExchange)
    """Settings of the exchange of groups."""
    bound: LowerBound | None = field(default_factory=LowerBound)
    """Settings of the prices, which give the lower bound; None for neither."""
    about: str = (
        "The least POO by greedy start, prices, group exchange and annealing, with a "
        "lower bound."
    )
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=True, init=False)
    space: str = "text"
    reward: str = "grad-norm"
    heeds: bool = field(default=True, init=False)

    def searching(self, effort: float, bound: str | None) -> "Goracs":
        """Return the method with an effort and a bound (see `Searching`).

        >>> Goracs().searching(2.0, "none").annealing.effort
        2.0
        """
        annealing = replace(
            self.annealing,
            effort=effort * self.annealing.effort,
            gap=self.annealing.gap / effort,
            slot_gap=self.annealing.slot_gap / effort,
        )
        full = self.bound or LowerBound()
        kinds = {None: self.bound, "none": None, "quick": QUICK, "full": full}
        return replace(self, annealing=annealing, bound=kinds[bound])

    def choose(self, problem, budget, *, key):
        """Choose by all stages (see `Method.choose`)."""
        from goracs_jax.selection.search.stages import all_stages

        return all_stages(problem, budget, key=key, settings=self)


@dataclass(frozen=True, kw_only=True)
class Itra:
    """ITRA as published: greedy start, then single swaps (KDD 2025, Algorithm 1)."""

    name: str = "itra"
    max_swaps: int = 100
    """Swaps after which the search gives up."""
    candidates: int = 30
    """Rows inside and rows outside that are paired before every swap."""
    pair_epsilon: float = 3e-3
    """Entropic regularisation of the pairs, as a share of max(C_S) - min(C_S)."""
    pair_iterations: int = 30
    """Sinkhorn iterations of every pair, a multiple of ten."""
    about: str = "The paper's algorithm: greedy start, then single swaps."
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=True, init=False)
    space: str = "text"
    reward: str = "grad-norm"

    def choose(self, problem, budget, *, key):
        """Choose by single swaps (see `Method.choose`)."""
        from goracs_jax.selection.itra import itra

        return itra(problem, budget, key=key, settings=self)


@dataclass(frozen=True, kw_only=True)
class KMeans:
    """The training rows nearest to the n centres of k-means."""

    name: str = "k-means"
    rounds: int = 10
    """Rounds of Lloyd's algorithm; its loss hardly falls after the first few of them
    from a k-means++ start."""
    about: str = "The training rows nearest to the n centres of k-means."
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=False, init=False)
    space: str = "text"
    reward: str = "grad-norm"

    def choose(self, problem, budget, *, key):
        """Choose the rows nearest to the centres (see `Method.choose`)."""
        from goracs_jax.selection.baselines.coverage import k_means

        return k_means(problem, budget, key=key, rounds=self.rounds)


@dataclass(frozen=True, kw_only=True)
class Herding:
    """Rows whose mean embedding follows that of the validation set."""

    name: str = "herding"
    median_entries: int = 1 << 20
    """Number of distances whose median is the kernel's width: enough to be close to the
    median of all, and few enough to sort quickly."""
    about: str = "Kernel herding towards the mean validation embedding."
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=False, init=False)
    space: str = "text"
    reward: str = "grad-norm"

    def choose(self, problem, budget, *, key):
        """Choose by kernel herding (see `Method.choose`)."""
        from goracs_jax.selection.baselines.scores import herding

        return herding(problem, budget, key=key, median_entries=self.median_entries)


BUILT_IN: tuple[Method, ...] = (
    Goracs(),
    FunctionMethod(
        name="greedy",
        choose=imported("search.stages", "greedy_only"),
        about="The greedy start of goracs, without any refinement.",
        weighed=True,
        heeds=True,
    ),
    Itra(),
    FunctionMethod(
        name="random",
        choose=imported("baselines.random", "random"),
        about="A uniformly random subset.",
        needs=(),
        heeds=True,
    ),
    FunctionMethod(
        name="stratified",
        choose=imported("baselines.scores", "stratified_random"),
        about="One random row from each of n strata by distance to the validation set.",
    ),
    FunctionMethod(
        name="k-center",
        choose=imported("baselines.coverage", "k_center"),
        about="Farthest-first traversal of the training embeddings.",
    ),
    KMeans(),
    Herding(),
    FunctionMethod(
        name="nearest",
        choose=imported("baselines.scores", "nearest"),
        about="Validation points in turn take their nearest training row.",
    ),
    FunctionMethod(
        name="grad-norm",
        choose=imported("baselines.scores", "gradient_norm"),
        about="The rows with the largest gradient norms.",
        needs=("grad_norms",),
        heeds=True,
    ),
    FunctionMethod(
        name="error",
        choose=imported("baselines.scores", "prediction_error"),
        about="The rows with the largest prediction errors (EL2N).",
        needs=("prediction_errors",),
        heeds=True,
    ),
    *PEERS,
)
