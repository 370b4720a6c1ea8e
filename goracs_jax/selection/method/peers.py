"""Methods that others published for choosing with a target in mind.

Each works on the rows that it is given, in their space. `space` and `reward` name what
its authors gave it.
"""

from dataclasses import dataclass, field

from goracs_jax.selection.method.record import (
    FunctionMethod,
    Method,
    Need,
    imported,
)

COSINE = "gradient/none/cosine"


@dataclass(frozen=True, kw_only=True)
class Tsds:
    """Nearest neighbours of the validation rows, of which near duplicates share mass.

    Lengths are in units of max(D). For rows of length 1, of which two are opposite,
    max(D) is 2, and the defaults are those that its authors released: sigma 0.75, C 5.
    """

    name: str = "tsds"
    alpha: float = 0.5
    """Weight of the distance, in (0, 1]; what is left weighs diversity."""
    scale: float = 2.5
    """Distance that weighs as much as diversity where alpha is one half."""
    bandwidth: float = 0.375
    """Distance from which on two rows are no near duplicates."""
    about: str = "TSDS: drawn from near rows; near duplicates share their mass."
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=False, init=False)
    space: str = COSINE
    reward: str = "grad-norm"

    def choose(self, problem, budget, *, key):
        """Choose by nearest neighbours and density (see `Method.choose`)."""
        from goracs_jax.selection.baselines.tsds import tsds

        return tsds(problem, budget, key=key, settings=self)


@dataclass(frozen=True, kw_only=True)
class UnbalancedOT:
    """The rows that get most mass where transport may choose the masses of rows."""

    name: str = "unbalanced-ot"
    regularisation: float = 0.01
    """Entropic regularisation, in units of max(D)^2."""
    relaxation: float = 1e-4
    """Price of row masses that are not uniform: weight of their KL divergence."""
    about: str = "The rows with most mass in a transport that may choose it."
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=False, init=False)
    space: str = COSINE
    reward: str = "grad-norm"

    def choose(self, problem, budget, *, key):
        """Choose by mass (see `Method.choose`)."""
        from goracs_jax.selection.baselines.unbalanced import unbalanced_ot

        return unbalanced_ot(problem, budget, key=key, settings=self)


@dataclass(frozen=True, kw_only=True)
class Gist:
    """Rows aligned with the validation mean in the leading validation directions."""

    name: str = "gist"
    energy: float = 0.99
    """Share of the squared lengths of the validation rows that the directions hold; in
    the first alone all cosines are 1 or -1, so two are taken at least."""
    about: str = "GIST: aligned with the target in its leading directions."
    needs: tuple[Need, ...] = field(default=("embeddings",), init=False)
    weighed: bool = field(default=False, init=False)
    space: str = "gradient"
    reward: str = "grad-norm"

    def choose(self, problem, budget, *, key):
        """Choose by alignment (see `Method.choose`)."""
        from goracs_jax.selection.baselines.gist import gist

        return gist(problem, budget, key=key, settings=self)


PEERS: tuple[Method, ...] = (
    FunctionMethod(
        name="less",
        choose=imported("baselines.scores", "nearest"),
        about="LESS: validation points in turn take their most similar row.",
        space=COSINE,
    ),
    FunctionMethod(
        name="rds",
        choose=imported("baselines.scores", "nearest"),
        about="RDS+: as less, of weighted hidden states.",
        space="states/none/cosine",
    ),
    FunctionMethod(
        name="doubly-greedy",
        choose=imported("baselines.scores", "doubly_greedy"),
        about="The rows nearest to any validation point.",
        space=COSINE,
    ),
    Tsds(),
    UnbalancedOT(),
    FunctionMethod(
        name="tarot",
        choose=imported("baselines.tarot", "tarot"),
        about="TAROT: the nearest row of each validation point, then the next.",
        space="gradient/whiten/cosine",
    ),
    Gist(),
    FunctionMethod(
        name="loss-drop",
        choose=imported("baselines.scores", "reward"),
        about="The largest rewards, such as the drop of the loss.",
        needs=("rewards",),
        heeds=True,
        reward="loss-drop",
    ),
    FunctionMethod(
        name="alignment",
        choose=imported("baselines.scores", "reward"),
        about="The largest rewards, such as alignment with the target.",
        needs=("rewards",),
        heeds=True,
        space="gradient",
        reward="alignment",
    ),
)
