"""Which space and which reward rank the losses, or that none can be told from chance.

Every space and every reward is one test, one-sided: a smaller POO and a larger mean
reward should go with a smaller loss. Holm's correction holds the chance of any verdict
on data without signal at 5 %, however many spaces and rewards are tried.
"""

from collections.abc import Mapping
from typing import NamedTuple

from goracs_jax.check.agreement import Agreement
from goracs_jax.comparison.intervals import holm

#: The chance of a verdict where nothing ranks the losses.
LEVEL = 0.05


class Verdict(NamedTuple):
    """The best space and reward of those that rank the losses; None where none does."""

    space: str | None
    reward: str | None
    holm_p: dict[str, dict[str, float]]  # corrected p, of "spaces" and "rewards"


def judge(spaces: Mapping[str, Agreement], rewards: Mapping[str, Agreement]) -> Verdict:
    """Choose the space and the reward with the largest correlation of those found.

    Args:
        spaces: How POO in each space agrees with the losses.
        rewards: How minus the mean of each reward does.

    >>> from goracs_jax.evaluate.metrics import Estimate
    >>> sure = lambda rho: Estimate(rho, rho, rho)
    >>> found = lambda rho, p: Agreement(sure(rho), sure(rho), p, sure(0.0))
    >>> judge({"text": found(0.1, 0.3), "gradient": found(0.5, 0.001)}, {})[:2]
    ('gradient', None)
    """
    families = {"spaces": spaces, "rewards": rewards}
    tested = [(kind, name) for kind, found in families.items() for name in found]
    ps = holm([families[kind][name].p for kind, name in tested])
    corrected = dict(zip(tested, ps, strict=True))
    best: dict[str, str | None] = {}
    for kind, found in families.items():
        sure = [name for name in found if corrected[kind, name] <= LEVEL]
        best[kind] = max(sure, key=lambda name: found[name].raw.value, default=None)
    holm_p = {k: {x: corrected[k, x] for x in found} for k, found in families.items()}
    return Verdict(best["spaces"], best["rewards"], holm_p)
