"""Transforms against plain matrices, and against scikit-learn's shrinkage."""

import numpy as np
import pytest

import goracs_jax as gx
from goracs_jax.cost import checks
from goracs_jax.errors import InputError
from goracs_jax.spaces import Center, Drop, Subspace, Whiten, transform_of, unit_rows

DIM = 6
# float32 results of float64 sums of a few numbers of size one to ten.
F32 = {"rtol": 1e-5, "atol": 1e-5}


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Rows whose directions have very different variances, away from zero."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    scales = 10.0 ** -np.arange(DIM)
    return (rng.normal(size=(count, DIM)) * scales @ turn + 3).astype(np.float32)


def covariance(y):
    z = y.astype(np.float64) - y.mean(axis=0, dtype=np.float64)
    return sum(np.outer(row, row) for row in z) / len(z)


@pytest.mark.parametrize("count", [200, 4], ids=["many", "fewer than numbers"])
def test_whitening_is_the_inverse_root_of_the_shrunk_covariance(count):
    """With Ledoit and Wolf's a by their own sums, over whole matrices."""
    y, x = rows(count), rows(50, seed=1)
    cov = covariance(y)
    z = y - y.mean(axis=0, dtype=np.float64)
    v = np.trace(cov) / DIM
    d = np.sum((cov - v * np.eye(DIM)) ** 2) / DIM
    b = sum(np.sum((np.outer(row, row) - cov) ** 2) for row in z) / len(z) ** 2 / DIM
    a = min(1, b / d)
    shrunk = (1 - a) * cov + a * v * np.eye(DIM)
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    expected = (x - y.mean(axis=0, dtype=np.float64)) @ root
    np.testing.assert_allclose(Whiten().fit(y).transform(x), expected, **F32)


def test_many_rows_along_one_direction_are_whitened_all_the_same():
    """Small directions are no rounding, however many rows there are."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(20_000, 64)) * np.r_[1.0, np.full(63, 2e-3)]
    y = (y @ np.linalg.qr(rng.normal(size=(64, 64)))[0]).astype(np.float32)
    white = np.linalg.eigvalsh(covariance(Whiten().fit(y).transform(y)))
    # Shrunk by a v = (2 / M) / dim = 1.6e-6, beside variances of 4e-6: 4 / 5.6 = 0.71.
    assert white.max() < 1 + 1e-3
    assert white.min() > 0.6
    assert Subspace(64).fit(y).transform(y).shape == (20_000, 64)


@pytest.mark.parametrize("seed", range(5))
def test_two_rows_do_not_say_how_others_vary(seed):
    y = np.random.default_rng(seed).normal(size=(2, 8))
    with pytest.raises(InputError, match="2 validation rows do not tell"):
        Whiten().fit(y)


def test_what_is_left_of_a_row_in_a_dropped_direction_is_zero():
    """Or its direction would be that of rounding."""
    y = rows(50)
    fitted = Drop(2).fit(y)
    x = fitted.mean + 3 * fitted.directions.T
    found = fitted.transform(x.astype(np.float32))
    np.testing.assert_array_equal(found, np.zeros_like(found))
    with pytest.raises(InputError, match="row 0"):
        unit_rows(found)


@pytest.mark.parametrize("k", [1, 3])
def test_leading_directions_are_kept_or_dropped(k):
    y, x = rows(100), rows(30, seed=1)
    vectors = np.linalg.eigh(covariance(y))[1][:, ::-1]
    z = x - y.mean(axis=0, dtype=np.float64)
    along = z @ vectors[:, :k]
    kept = Subspace(k).fit(y).transform(x)
    assert kept.shape == (30, k)
    # The sign of a direction is arbitrary; distances are not.
    np.testing.assert_allclose(np.abs(kept), np.abs(along), **F32)
    left = z - along @ vectors[:, :k].T
    np.testing.assert_allclose(Drop(k).fit(y).transform(x), left, **F32)


def test_parts_give_what_the_whole_gives(monkeypatch):
    y, x = rows(100), rows(31, seed=1)
    fitted = [t.fit(y) for t in (Center(), Whiten(), Subspace(2), Drop(2))]
    whole = [f.transform(x) for f in fitted]
    monkeypatch.setattr(checks, "CHUNK", 5 * DIM)
    for f, expected in zip(fitted, whole, strict=True):
        np.testing.assert_allclose(f.transform(x), expected, rtol=1e-6, atol=1e-6)


def test_centring_keeps_distances_and_unit_rows_have_cosines():
    y, x = rows(20), rows(7, seed=1)
    fitted = Center().fit(y)
    near = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)
    moved = near(fitted.transform(x), fitted.transform(y))
    np.testing.assert_allclose(moved, near(x, y), **F32)
    cosines = [
        [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x
    ]
    # Squares of distances are differences of numbers near one.
    squares = near(unit_rows(x), unit_rows(y)) ** 2
    np.testing.assert_allclose(squares, 2 - 2 * np.array(cosines), atol=1e-5)


def test_names():
    assert [transform_of(t) for t in ("none", "center", "whiten")] == [
        None,
        Center(),
        Whiten(),
    ]
    assert transform_of("subspace:12") == Subspace(12) == gx.Subspace(12)


@pytest.mark.parametrize(
    "text",
    ["", "pca", "center:2", "drop", "drop:0", "drop:-1", "subspace:1.5", "drop:\u0663"],
)
def test_other_names_are_refused(text):
    with pytest.raises(InputError, match=f"got '{text}'"):
        transform_of(text)
    with pytest.raises(InputError, match="got 'drop:999"):
        transform_of("drop:" + 5000 * "9")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda y: Subspace(7).fit(y), "needs 7 directions, the 50 .* vary in 6"),
        (lambda y: Drop(6).fit(y), "drop:6 leaves nothing"),
        (lambda y: Whiten().fit(y[:1]), "1 validation rows do not tell"),
        (lambda y: Drop(2).fit(0 * y + 3), r"rows \(50\) are all the same"),
        (lambda y: Drop(True), "k must be a positive integer, got True"),
        (lambda y: unit_rows(y[0]), r"rows must be a matrix .* got \[6\]"),
        (lambda y: unit_rows(y * np.nan), "row 0 .* is zero or not finite"),
        (lambda y: Whiten().fit(y[0]), r"got shape \[6\]"),
        (lambda y: Center().fit(y * np.nan), "finite numbers"),
        (lambda y: Center().fit(y).transform(y[:, 1:]), r"shape \[50, 5\].* 6 numbers"),
        (lambda y: unit_rows(0 * y), r"row 0 \(from 0\) of the rows is zero"),
    ],
)
def test_bad_rows_are_refused(run, message):
    y = np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)
    with pytest.raises(InputError, match=message):
        run(y)
