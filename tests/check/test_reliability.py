"""ICC(1,1): a published example, an analysis of variance by scipy, and coverage."""

import numpy as np
import pytest
from scipy import stats

from goracs_jax.check.reliability import reliability


def test_a_published_example():
    """Six targets and four judges of Shrout and Fleiss (1979): ICC(1,1) = 0.17.

    The ends are those that the R package psych prints for it.
    """
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8]]
    ratings += [[7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = reliability(np.array(ratings, float))
    assert found.icc == pytest.approx(0.17, abs=0.005)
    assert found.between == pytest.approx(11.24, abs=0.005)
    assert found.within == pytest.approx(6.26, abs=0.005)
    assert (found.low, found.high) == pytest.approx((-0.13, 0.72), abs=0.005)


def test_f_is_that_of_the_analysis_of_variance():
    outcomes = np.random.default_rng(0).normal(size=(5, 3)) + np.arange(5)[:, None]
    found = reliability(outcomes)
    f = stats.f_oneway(*outcomes).statistic
    assert found.between / found.within == pytest.approx(f, rel=1e-12)
    assert found.icc == pytest.approx((f - 1) / (f + 2), rel=1e-12)


def test_the_draws_have_the_interval_as_their_quantiles():
    found = reliability(np.random.default_rng(1).normal(size=(9, 2)))
    drawn = found.draw(np.random.default_rng(0), 200_000)
    # An empirical quantile has about the standard error sqrt(p q / n) / density.
    ends = np.quantile(drawn, [0.025, 0.975])
    assert ends == pytest.approx([found.low, found.high], abs=0.01)


@pytest.mark.parametrize("repeats", [0, 8])
@pytest.mark.parametrize("icc", [0.0, 0.3, 0.8])
def test_the_true_icc_lies_inside_19_times_of_20(icc, repeats):
    """The interval is exact, so coverage is 0.95; of 2,000 draws within 0.02 (4 SE)."""
    rng, hits = np.random.default_rng(2), 0
    for _ in range(2000):
        subset = rng.normal(size=(8, 1)) * icc**0.5
        noise = rng.normal(size=(8, 2)) * (1 - icc) ** 0.5
        repeated = rng.normal(size=repeats) * (1 - icc) ** 0.5
        found = reliability(subset + noise, repeated)
        hits += found.low <= icc <= found.high
    assert abs(hits / 2000 - 0.95) < 0.02


def test_repeats_of_one_subset_count_as_noise_alone():
    outcomes = np.array([[0.0, 2.0], [5.0, 7.0]])
    alone, more = (
        reliability(outcomes),
        reliability(outcomes, np.array([0.0, 0.0, 3.0])),
    )
    assert more.between == alone.between == 25.0
    assert alone.within == 2.0
    assert more.within == (4.0 + 6.0) / (2 + 2)
    assert more.freedom == (1, 4)


def test_outcomes_without_noise_are_reliable():
    found = reliability(np.array([[1.0, 1.0], [2.0, 2.0]]))
    assert (found.icc, found.low, found.high) == (1.0, 1.0, 1.0)
    assert reliability(np.ones((3, 2))).icc == 0.0
