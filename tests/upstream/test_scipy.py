"""SciPy, seen in 1.17.1."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching


def test_a_stored_zero_is_a_missing_edge():
    """SciPy 1.17.1: `min_weight_full_bipartite_matching` drops edges of weight zero.

    It warns, and then matches by dearer edges, or finds no matching at all. So
    `assign` (goracs_jax/selection, group_exchange.py) shifts all weights to be
    positive, which changes no matching.
    """
    edges = ([0, 0, 1, 1], [0, 1, 0, 1])
    cheap = csr_array((np.array([0.0, 1.0, 1.0, 0.0]), edges), shape=(2, 2))
    assert cheap.nnz == 4  # the zeros are stored
    gone = "SciPy matches by edges of weight zero: the shift in assign can go"
    with pytest.warns(UserWarning, match="zero weights are removed"):
        _, columns = min_weight_full_bipartite_matching(cheap)
    assert columns.tolist() == [1, 0], gone
    cheap.data += 1.0
    _, columns = min_weight_full_bipartite_matching(cheap)
    assert columns.tolist() == [0, 1]
    only = csr_array((np.array([0.0, 1.0]), ([0, 1], [0, 1])), shape=(2, 2))
    with (
        pytest.warns(UserWarning, match="zero weights are removed"),
        pytest.raises(ValueError, match="no full matching exists"),
    ):
        min_weight_full_bipartite_matching(only)
