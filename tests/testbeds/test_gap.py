"""The share of a gap: the t test that defines its interval, and coverage."""

import numpy as np
import pytest
from scipy import stats

from goracs_jax.errors import InputError


@pytest.fixture
def gap_share(beds):
    return beds.gap.gap_share


def outcomes(rng, seeds, share):
    common = rng.normal(size=seeds)  # what a seed does to all arms
    noise = lambda: 0.2 * rng.normal(size=seeds)
    return common + share + noise(), common + noise(), common + 1 + noise()


def test_at_the_ends_the_t_test_has_p_of_5_percent(gap_share):
    method, random, oracle = outcomes(np.random.default_rng(0), 10, 0.6)
    value, *ends = gap_share(method, random, oracle)
    assert value == pytest.approx(np.mean(method - random) / np.mean(oracle - random))
    for end in ends:
        left = method - random - end * (oracle - random)
        assert stats.ttest_1samp(left, 0.0).pvalue == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("seeds", [6, 10])
def test_the_true_share_lies_inside_19_times_of_20(gap_share, seeds):
    """Exact for normal outcomes where both ends exist; of 2,000 within 4 SE."""
    rng, hits, draws = np.random.default_rng(1), 0, 2000
    for _ in range(draws):
        _, low, high = gap_share(*outcomes(rng, seeds, 0.6))
        assert low is not None
        assert high is not None
        hits += low <= 0.6 <= high
    assert abs(hits / draws - 0.95) < 0.02


def test_a_gap_that_may_be_zero_has_no_interval(gap_share):
    random = np.array([0.0, 1.0, 0.0])
    oracle = random + np.array([0.5, -0.4, 0.3])
    assert gap_share(random + 1, random, oracle)[1:] == (None, None)
    assert gap_share(random[:1] + 1, random[:1], oracle[:1])[1:] == (None, None)


def test_without_a_gap_there_is_no_share(gap_share):
    with pytest.raises(InputError, match="there is no gap"):
        gap_share(np.ones(2), np.zeros(2), np.zeros(2))
