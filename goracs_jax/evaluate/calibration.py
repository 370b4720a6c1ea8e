"""How likely a model finds the right answers, as it is and once it is calibrated.

The margin of an example is z = z_yes - z_no, so that the model gives Yes the
probability 1 / (1 + exp(-z)). A model may rank examples well and yet be far too sure of
each. Calibration gives Yes the probability of a z + b instead, with two numbers that
are fitted on other examples (Platt, Advances in Large Margin Classifiers 1999).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from goracs_jax.errors import NumericalError

Margins = Float[np.ndarray, " examples"]
Positive = Bool[np.ndarray, " examples"]


class Fitted(NamedTuple):
    """The two numbers of a z + b."""

    a: float
    b: float

    def __call__(self, margins: Margins) -> Margins:
        """Return the calibrated margins."""
        return self.a * margins.astype(np.float64) + self.b


def log_likelihoods(margins: Margins, positive: Positive) -> Margins:
    """Return the log-probability of each example's true answer, in nats.

    It is log sigmoid(z) for Yes and log sigmoid(-z) for No. The log loss is minus the
    mean.

    Args:
        margins: z of each example.
        positive: Whether each example's answer is Yes.

    Returns:
        One log-probability per example.

    >>> log_likelihoods(np.array([0.0, 50.0]), np.array([True, False])).round(3)
    array([ -0.693, -50.   ])
    """
    return log_expit(np.where(positive, 1, -1) * margins.astype(np.float64))


def fit(margins: Margins, positive: Positive) -> Fitted:
    """Fit a and b of a z + b by maximum likelihood, with Platt's targets.

    The target of Yes is (E + 1) / (E + 2) and that of No is 1 / (E + 2), with E the
    number of examples of the answer. With targets 1 and 0 there would be no maximum
    where all margins of Yes lie above those of No, as among few examples they may.

    Args:
        margins: z of each example.
        positive: Whether each example's answer is Yes.

    Returns:
        The two numbers; a is 0 where all margins are equal.

    Raises:
        NumericalError: The optimiser does not find the maximum.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=10_000)
    >>> yes = rng.random(10_000) < expit(z)
    >>> fitted = fit(5 * z, yes)  # five times too sure
    >>> round(fitted.a, 1), abs(fitted.b) < 0.1
    (0.2, True)
    """
    yes, no = positive.sum(), (~positive).sum()
    target = np.where(positive, (yes + 1) / (yes + 2), 1 / (no + 2))
    z = margins.astype(np.float64)
    # In units of their spread, so that one step of the optimiser suits all models.
    mean, spread = z.mean(), z.std() or 1.0
    u = (z - mean) / spread

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offset = weights
        v = slope * u + offset
        likely = target * log_expit(v) + (1 - target) * log_expit(-v)
        wrong = expit(v) - target
        return -likely.mean(), np.array([(wrong * u).mean(), wrong.mean()])

    found = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9})
    # Rounding may stop BFGS before 1e-9. The loss is convex and its gradient is a mean
    # of numbers below 1 times u, so 1e-6 is a minimum for any purpose.
    if not np.abs(found.jac).max() < 1e-6:
        raise NumericalError(
            f"the calibration of {len(z)} margins does not converge "
            f"({found.message}): check that the margins are finite."
        )
    slope, offset = found.x
    return Fitted(float(slope / spread), float(offset - slope * mean / spread))


def calibrated(
    margins: Margins, positive: Positive, *, fitted: tuple[float, float]
) -> Margins:
    """Return the log-probability of each example's true answer under a z + b.

    Args:
        margins: z of each example.
        positive: Whether each example's answer is Yes.
        fitted: a and b, as `fit` finds them on other examples.

    Returns:
        One log-probability per example, in nats.

    >>> calibrated(np.array([50.0]), np.array([False]), fitted=(0.0, 0.0)).round(3)
    array([-0.693])
    """
    return log_likelihoods(Fitted(*fitted)(margins), positive)


def is_far_too_sure(fits: Sequence[Fitted], spread: float) -> bool:
    """Tell whether a model's margins should shrink to less than half of what they are.

    Margins that are small already cost little, wrong as they may be.

    Args:
        fits: The two numbers, of each fit.
        spread: Standard deviation of the margins.

    >>> fits = [Fitted(0.1, 0.0)]
    >>> is_far_too_sure(fits, 7.0), is_far_too_sure(fits, 0.1)
    (True, False)
    """
    return spread > 1 and all(fitted.a < 0.5 for fitted in fits)


def cross_fitted(
    margins: Margins, positive: Positive, units: Int[np.ndarray, " examples"]
) -> tuple[Margins, Sequence[Fitted]]:
    """Calibrate each half of the users with the numbers that fit the other half.

    Args:
        margins: z of each example.
        positive: Whether each example's answer is Yes.
        units: The number, from 0, of the user of each example; at least two users.

    Returns:
        The calibrated margins, and the numbers for users of even and of odd number.

    >>> margins, yes = np.array([2.0, -2.0, 2.0, -2.0]), np.array([True, False] * 2)
    >>> found, (even, odd) = cross_fitted(margins, yes, np.array([0, 0, 1, 1]))
    >>> even == odd, found.round(2).tolist()  # logit(2 / 3), by Platt's targets
    (True, [0.69, -0.69, 0.69, -0.69])
    """
    odd = units % 2 == 1
    fits = [fit(margins[~half], positive[~half]) for half in (~odd, odd)]
    return np.where(odd, fits[1](margins), fits[0](margins)), fits
