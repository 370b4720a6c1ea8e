"""Names of spaces, and several sources in one, against a plain matrix of distances."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import goracs_jax as gx
from goracs_jax.errors import InputError
from goracs_jax.spaces import Space

RNG = np.random.default_rng(0)
TEXT = RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3))
GRADIENT = 1e-4 * RNG.normal(size=(7, 6)), 1e-4 * RNG.normal(size=(5, 6)) + 2e-4


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("text", Space()),
        ("gradient/whiten/cosine", Space("gradient", "whiten", "cosine")),
        ("gradient/drop:12", Space("gradient", "drop:12")),
        ("text+gradient:0.5/cosine", Space("text+gradient:0.5", metric="cosine")),
        ("runs/a:1/rows.npz/center", Space("runs/a:1/rows.npz", "center")),
    ],
)
def test_a_name_is_read_back(name, space):
    assert Space.named(name) == space
    assert str(space) == name


def test_joined_distances_are_a_weighted_mean_of_squares():
    space = Space("text+gradient:0.5")
    joined = cdist(*space.of([TEXT, GRADIENT]))
    one, two = (cdist(*pair) ** 2 for pair in (TEXT, GRADIENT))
    expected = np.sqrt(one / one.mean() + 0.25 * two / two.mean())
    # Rows are rounded to float32, distances of about 1 likewise.
    np.testing.assert_allclose(joined, expected, rtol=1e-6)


def test_every_source_is_transformed_before_they_are_joined():
    space = Space("text+gradient", "drop:1", "cosine")
    x, y = space.of([TEXT, GRADIENT])
    one, two = (
        cdist(*(gx.unit_rows(gx.Drop(1).fit(pair[1]).transform(side)) for side in pair))
        ** 2
        for pair in (TEXT, GRADIENT)
    )
    expected = np.sqrt(one / one.mean() + two / two.mean())
    np.testing.assert_allclose(cdist(x, y), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ("", "one source, or from several"),
        ("text+", "one source, or from several"),
        ("text+text:2", "one source, or from several"),
        ("text+gradient:0", "weight of a source must be positive, got 'gradient:0'"),
        ("text+gradient:inf", "must be positive"),
        ("text+gradient:-1", "must be positive"),
    ],
)
def test_sources_that_cannot_be_joined(sources, message):
    with pytest.raises(InputError, match=message):
        Space(sources).check(9)


def test_a_source_without_spread_is_refused():
    same = np.ones((7, 2)), np.ones((5, 2))
    with pytest.raises(InputError, match="all rows of the source b are the same"):
        Space("a+b").of([TEXT, same])


def test_identity_is_that_of_before_where_nothing_is_changed():
    assert Space().identity == Space("gradient").identity == {}
    whitened = {"transform": "whiten", "metric": "euclidean"}
    assert Space("given", "whiten").identity == whitened
    assert Space("text+gradient").identity["sources"] == "text+gradient"
