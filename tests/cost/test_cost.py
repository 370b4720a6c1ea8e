import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax.cost import (
    block_rows,
    cost_rows,
    exact_cost,
    fold_rows,
    make_cost,
    map_some,
    materialize,
    median_distance,
    nearest_distances,
    row_means,
    rows_in_place,
    some_rows,
    to_points,
    with_lambda,
    with_tiling,
)
from goracs_jax.errors import InputError


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_cost_is_its_definition(lambda_):
    case = instance(30, 20, seed=0, lambda_=lambda_)
    expected = oracles.cost_matrix(case.x, case.y, case.g, lambda_)
    rows = np.arange(30)
    # max(D) is found in float32: relative error 6e-8 times a few operations.
    np.testing.assert_allclose(exact_cost(case.cost, rows), expected, atol=1e-6)
    # float32 throughout: the square root doubles the digits lost to cancellation.
    np.testing.assert_allclose(cost_rows(case.cost, rows), expected, atol=1e-5)


def test_exact_cost_has_no_cancellation():
    x = np.full((2, 8), 1000.0, np.float32)
    x[1] += 0.125
    cost = make_cost(x, x)
    # float64 keeps 1e-16 * 8e6 of a squared distance of 0.125, if rows are centred.
    np.testing.assert_allclose(
        exact_cost(cost, np.array([0, 1])), 1 - np.eye(2), atol=1e-6
    )


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("block", [1, 3, 7, 30, 100])
def test_blocks_see_every_row_once(block, kept):
    case = instance(30, 20, seed=1, lambda_=0.5)
    cost = materialize(case.cost) if kept else case.cost
    cost = with_tiling(cost, block_entries=block * 20)

    def step(carry, seen):
        count, matrix = carry
        return count.at[seen.rows].add(seen.fresh), matrix.at[seen.rows].set(seen.cost)

    init = (jnp.zeros(30, int), jnp.zeros((30, 20)))
    count, matrix = fold_rows(cost, init, step)
    assert (count == 1).all()
    # The same float32 operations, in matrix products of other shapes.
    np.testing.assert_allclose(matrix, cost_rows(case.cost, np.arange(30)), atol=1e-6)
    some = np.array([4, 0, 29])
    least = map_some(cost, some, lambda block: block.cost.min(1))
    np.testing.assert_allclose(least, matrix[some].min(1), atol=1e-6)
    np.testing.assert_allclose(cost_rows(cost, some), matrix[some], atol=1e-6)


def test_a_small_matrix_is_kept():
    cost = instance(30, 20, seed=1, lambda_=0.5).cost
    kept = materialize(cost)
    assert kept.matrix.shape == (30, 20)
    assert materialize(kept) is kept
    small, large = (with_tiling(cost, matrix_entries=n) for n in (599, 600))
    assert materialize(small) is small
    assert materialize(large).matrix is not None


def test_block_sizes_are_given():
    case = instance(30, 20, seed=1)
    cost = make_cost(case.x, case.y, block_entries=140, matrix_entries=599)
    assert block_rows(cost) == 7
    assert block_rows(cost, width=70) == 2
    assert materialize(cost) is cost
    assert (
        cost.tiling
        == with_tiling(case.cost, block_entries=140, matrix_entries=599).tiling
    )


@pytest.mark.parametrize(
    ("n_valid", "rows"), [(5000, 128), (22_000, 95), (2000, 1048), (16_385, 127)]
)
def test_blocks_of_a_cpu_have_few_rows_or_many(n_valid, rows):
    cost = make_cost(np.ones((3000, 1)), np.zeros((n_valid, 1)))
    assert block_rows(cost) == rows
    kept = cost._replace(matrix=np.zeros((3000, n_valid)))
    assert block_rows(kept) == min(3000, (1 << 21) // n_valid)


def test_nearest_distances():
    case = instance(30, 20, seed=2)
    d = np.linalg.norm(case.x[:, None].astype(float) - case.y[None], axis=2)
    np.testing.assert_allclose(nearest_distances(case.cost), d.min(1), rtol=1e-4)


@pytest.mark.parametrize("scale", ["max", "median"])
@pytest.mark.parametrize("weighted", [False, True])
def test_row_means(scale, weighted):
    case = instance(30, 20, seed=2)
    b = np.random.default_rng(0).gamma(1.0, size=20) if weighted else None
    cost = make_cost(case.x, case.y, case.g, 0.5, scale=scale, valid_weights=b)
    d = np.linalg.norm(case.x[:, None].astype(float) - case.y[None], axis=2)
    d /= d.max() if scale == "max" else np.median(d)
    mean = np.average(d, axis=1, weights=b)
    # Sums of float32 distances, of a relative error of some 1e-6 each.
    np.testing.assert_allclose(row_means(cost), mean, rtol=1e-5)
    np.testing.assert_allclose(
        row_means(some_rows(cost, np.array([3]))), mean[3], rtol=1e-5
    )
    part = to_points(cost, cost.valid[:5])
    np.testing.assert_allclose(row_means(part), d[:, :5].mean(1), rtol=1e-5)
    there = rows_in_place(cost, jnp.array([3]))
    np.testing.assert_allclose(row_means(there), mean[3], rtol=1e-5)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, ">f8", "bfloat16"]
)
def test_types_and_layouts(dtype):
    dtype = jnp.bfloat16 if dtype == "bfloat16" else dtype
    case = instance(12, 8, seed=3)
    x, y = (np.asfortranarray(part.astype(dtype)) for part in (case.x, case.y))
    expected = oracles.cost_matrix(x.astype(float), y.astype(float))
    found = exact_cost(make_cost(x, y), np.arange(12))
    np.testing.assert_allclose(found, expected, atol=1e-6)  # float32 of x - mean


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantised_rows_stay_so(dtype):
    case = instance(12, 8, seed=3)
    low = -100 if dtype == np.int8 else 0
    x, y = ((30 * rows + 30).clip(low, 127).astype(dtype) for rows in (case.x, case.y))
    cost = make_cost(x, y)
    assert cost.train.dtype == dtype
    # Differences of such integers are exact in float32; the centre is rounded to 1e-7
    # of 127.
    expected = oracles.cost_matrix(x.astype(float), y.astype(float))
    np.testing.assert_allclose(exact_cost(cost, np.arange(12)), expected, atol=1e-6)
    np.testing.assert_allclose(cost_rows(cost, np.arange(12)), expected, atol=1e-5)


def test_far_from_the_origin():
    case = instance(12, 8, seed=4)
    x, y = (part.astype(float) for part in (case.x, case.y))
    found = exact_cost(make_cost(x + 1e8, y + 1e8), np.arange(12))
    # float64 keeps 1e-8 of x + 1e8.
    np.testing.assert_allclose(found, oracles.cost_matrix(x, y), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e19, 1e50])
def test_scales_that_float32_cannot_square(scale):
    with pytest.raises(InputError, match=r"embeddings lie up to .* rescale both sets"):
        make_cost(np.eye(3) * scale, np.eye(3) * scale)


@pytest.mark.parametrize("side", [1, -1])
def test_a_reach_that_is_too_far_on_one_side_alone(side):
    x = side * np.array([[-0.9e15], [1.1e15]])
    with pytest.raises(InputError, match=r"up to 1.1e\+15 from their mean"):
        make_cost(x, np.zeros((2, 1)))


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scales_that_it_can(scale):
    found = exact_cost(make_cost(np.eye(3) * scale, np.eye(3) * scale), np.arange(3))
    np.testing.assert_allclose(found, 1 - np.eye(3), atol=1e-6)


def test_coinciding_points_cost_nothing():
    x = np.ones((3, 2), np.float32)
    assert (exact_cost(make_cost(x, x), np.arange(3)) == 0).all()


X = np.eye(3, dtype=np.float32)
NAN = np.array([[0, 1, 2], [0, np.nan, 1], [np.inf, 0, 0]], np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((NAN, X), r"training embeddings have 2 rows with NaN.*first is row 1"),
        ((X, NAN), r"validation embeddings have 2 rows with NaN.*first is row 1"),
        (
            (X, X[:, :2]),
            r"training embeddings have 3 dimensions, validation.*2.*same model",
        ),
        ((X[0], X), r"training embeddings must be a matrix .*shape \[3\]"),
        ((X, X[:0]), r"validation embeddings must be a matrix .*shape \[0, 3\]"),
        ((X.astype(int), X), r"floats .* or uint8, got shape .* of int64"),
        (
            (X.astype(np.int8), X.astype(np.uint8)),
            r"are int8, validation embeddings uint8: quantise both alike",
        ),
        ((X.astype(np.int8), X), r"are int8, validation embeddings float32: quantise"),
        ((X, X, np.ones(2), 0.1), r"gradient norms have shape \[2\].*3 rows"),
        ((X, X, np.array([1, -1, 1.0]), 0.1), r"1 gradient norms are negative.*row 1"),
        ((X, X, np.array([1, 1, np.nan]), 0.1), r"NaN or infinite, the first at row 2"),
        ((X, X, np.zeros(3), 0.1), r"all gradient norms are zero.*set lambda to 0"),
        ((X, X, None, 0.1), r"lambda 0.1 needs gradient norms"),
        ((X, X, np.ones(3), -0.1), r"lambda must be in \[0, 1000\], got -0.1"),
        ((X, X, np.ones(3), np.nan), r"lambda must be in .* got nan"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        make_cost(*arguments)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_mapped_rows_are_used_where_they_lie(tmp_path, dtype):
    case = instance(64, 8, seed=5, dim=16)
    np.save(tmp_path / "x.npy", case.x.astype(dtype))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    cost = make_cost(x, case.y)
    shards = jnp.asarray(cost.train).addressable_shards
    assert shards[0].data.unsafe_buffer_pointer() == x.ctypes.data
    expected = oracles.cost_matrix(x.astype(float), case.y.astype(float))
    # max(D) and y less its mean are float32.
    np.testing.assert_allclose(exact_cost(cost, np.arange(64)), expected, atol=1e-6)


def test_a_pass_holds_blocks_and_no_matrix():
    cost = with_tiling(instance(2000, 500, seed=6).cost, block_entries=20 * 500)
    memory = nearest_distances.lower(cost).compile().memory_analysis()
    # Products, squares and roots of a block of 20 rows, at most; C has 2000.
    assert memory.temp_size_in_bytes < 4 * (4 * 20 * 500) + 4 * 4 * (2000 + 500)


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_another_lambda_is_another_cost(lambda_):
    case = instance(30, 20, seed=6)
    found = with_lambda(case.cost, case.g, lambda_)
    expected = make_cost(case.x, case.y, case.g, lambda_)
    for one, two in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(InputError, match=r"lambda must be in .* got -1"):
        with_lambda(case.cost, case.g, -1.0)
    with pytest.raises(InputError, match=r"shape \[29\].*30 rows"):
        with_lambda(case.cost, case.g[1:], lambda_)


@pytest.mark.parametrize("valid", [40, 3])
def test_the_median_is_a_scale(valid):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(valid, 4))
    x[7] = 1e4  # by which max(D) shrinks everything else
    r = rng.normal(size=30)
    cost = make_cost(x, y, rewards=r, lambda_=0.5, scale="median")
    apart = np.linalg.norm(x[:, None] - y[None], axis=-1)
    expected = apart / np.median(apart) - 0.5 * (r / np.abs(r).max())[:, None]
    found = np.asarray(cost_rows(cost, np.arange(30)))
    # Distances in float32, of rows that lie up to 1e4 median distances apart.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_median_of_many_is_that_of_some_rows():
    x, y = np.random.default_rng(6).normal(size=(2, 2000, 3))
    apart = np.linalg.norm(x[:, None] - y[None], axis=-1)
    cost = make_cost(x, y)
    below = [
        (apart < float(median_distance(cost, entries) * cost.distance_scale)).mean()
        for entries in (1 << 30, 1 << 16)
    ]
    assert below[0] == pytest.approx(0.5, abs=1e-6)
    # 32 rows of 2,000: shares below vary by about 0.3 among rows, so by 0.3 / sqrt(32).
    assert below[1] == pytest.approx(0.5, abs=3 * 0.3 / 32**0.5)


def test_coinciding_rows_have_a_median_of_zero_and_the_largest_serves():
    x, y = np.array([[0.0], [0.0], [0.0], [2.0]]), np.zeros((1, 1))
    cost = make_cost(x, y, scale="median")
    assert np.asarray(cost_rows(cost, np.arange(4))).ravel().tolist() == [0, 0, 0, 1]


def test_there_is_no_other_scale():
    with pytest.raises(InputError, match="scale must be max or median, got 'mean'"):
        make_cost(np.eye(2), np.eye(2), scale="mean")
