import numpy as np
import pytest

from goracs_jax.errors import InputError
from goracs_jax.spaces.directions import coordinates, leading_directions


def rows_with(values, dim=60, seed=0):
    """Rows whose singular values are given, with random directions."""
    rng = np.random.default_rng(seed)
    orthonormal = lambda n: np.linalg.qr(rng.normal(size=(n, len(values))))[0]
    made = orthonormal(20) * np.array(values) @ orthonormal(dim).T
    return made.astype(np.float32)


def test_directions_are_the_leading_eigenvectors_of_the_second_moment():
    g = rows_with([9.0, 4.0, 2.0, 0.5])
    found = leading_directions(g, 3)
    moment = g.T.astype(np.float64) @ g
    _, vectors = np.linalg.eigh(moment)
    expected = vectors[:, ::-1][:, :3]
    # Directions have no sign, so the projections onto their span are compared.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(coordinates(g, found), axis=0), [9.0, 4.0, 2.0], rtol=1e-6
    )


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.95, 0.99, 0.999, 1.0])
def test_the_spectrum_gives_the_fewest_directions(energy):
    values = np.array([9.0, 4.0, 2.0, 0.5, 0.2])
    held = np.cumsum(values**2) / np.sum(values**2)
    expected = next(k for k in range(2, 6) if held[k - 1] >= energy - 1e-12)
    assert leading_directions(rows_with(values), energy=energy).shape[1] == expected


def test_the_mean_is_kept():
    """Otherwise the direction in which the mean loss falls would be lost."""
    g = np.ones((10, 4), np.float32) + 0.01 * rows_with([1.0], dim=4)[:10]
    (first,) = leading_directions(g, 1).T
    np.testing.assert_allclose(np.abs(first), 0.5, atol=0.01)


def test_at_most_as_many_directions_as_the_rows_have():
    assert leading_directions(np.eye(4, 9), energy=1.0).shape == (9, 4)
    assert leading_directions(np.eye(1, 9)).shape == (9, 1)


@pytest.mark.parametrize(
    ("rows", "given", "match"),
    [
        (np.zeros((3, 4)), {}, "lie in 0 directions"),
        (rows_with([2.0, 1.0]), {"k": 3}, "lie in 2 directions, fewer than 3"),
        (np.eye(3), {"k": 0}, "k must be a positive integer"),
        (np.eye(3), {"energy": 0.0}, "above 0 and at most 1"),
        (np.full((2, 2), np.nan), {}, "finite numbers"),
    ],
)
def test_refuses(rows, given, match):
    with pytest.raises(InputError, match=match):
        leading_directions(rows, **given)
