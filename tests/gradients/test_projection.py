import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goracs_jax.gradients.projection import CHUNK, project, signs

PARAMS, DIM = 2 * CHUNK + 100, 96


@pytest.fixture(scope="module")
def pairs():
    """Vectors at angles from 0 to a right one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, PARAMS)).astype(np.float32)
    share = np.linspace(0, 1, 200, dtype=np.float32)[:, None]
    return x, share * x + (1 - share) * y


def test_inner_products_are_kept(pairs):
    """No bias over keys, and the spread that theory gives, not more and not less."""
    x, y = pairs
    run = jax.jit(lambda x, key: project(x, key, DIM))
    found = []
    for seed in range(20):
        key = jax.random.key(seed)
        found.append(np.sum(np.multiply(run(x, key), run(y, key)), axis=1))
    inner = np.sum(x * y, axis=1)
    spread = np.sqrt((np.sum(x * x, 1) * np.sum(y * y, 1) + inner**2) / DIM)
    off = (np.array(found) - inner) / spread
    # 4,000 numbers of deviation 1 (a little less: x_p^2 y_p^2 is exact for signs). The
    # 200 of a seed share a matrix, so 20 means count, and 5 of their deviations.
    assert abs(off.mean()) < 5 / 20**0.5
    assert 0.8 < off.std() < 1.2
    # A normal number above 6 deviations has probability 2e-9.
    assert np.abs(off).max() < 6


def test_rows_and_padding_change_nothing(pairs):
    x, key = pairs[0][:5], jax.random.key(1)
    whole = project(x, key, DIM)
    one = project(x[3:4], key, DIM)
    # Sums of 2,148 float32 of size one in another order, on their way of size 50.
    np.testing.assert_allclose(one[0], whole[3], atol=1e-4)
    longer = project(np.pad(x, ((0, 0), (0, 3 * CHUNK))), key, DIM)
    np.testing.assert_allclose(longer, whole, atol=1e-4)


def test_signs_are_balanced_and_their_own():
    key = jax.random.key(2)
    some = [np.asarray(signs(key, i, 70)) for i in range(3)]
    assert set(np.unique(some)) == {-1.0, 1.0}
    n = CHUNK * 70
    assert abs(np.sum(some[0])) < 5 * n**0.5
    for other in (some[1], some[2], np.asarray(signs(jax.random.key(3), 0, 70))):
        assert abs(np.sum(some[0] * other)) < 5 * n**0.5
    # Bits of one word are no copies of each other.
    correlation = np.corrcoef(some[0].T) - np.eye(70)
    assert np.abs(correlation).max() < 6 / CHUNK**0.5


def test_the_matrix_is_never_whole():
    params, dim, rows = 64 * CHUNK, 512, 2
    x = jax.ShapeDtypeStruct((rows, params), jnp.float32)
    program = jax.jit(lambda x, key: project(x, key, dim)).lower(x, jax.random.key(0))
    used = program.compile().memory_analysis().temp_size_in_bytes
    assert used < params * dim * 4 / 8
