"""A seeded random projection, drawn while it is used and never stored."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from goracs_jax.shapes import AnyArray

#: Rows of the projection that are in memory at one time. Another number would give
#: other signs.
CHUNK = 1024
BITS = 32  # signs per random word


def project(
    x: Float[AnyArray, "rows params"], key: jax.Array, dim: int
) -> Float32[Array, "rows dim"]:
    r"""Project rows: f(x) = x R / sqrt(dim), with random signs R_pk = ± 1.

    Inner products are kept on average, E <f(x), f(y)> = <x, y>, with a standard
    deviation of at most sqrt((||x||^2 ||y||^2 + <x, y>^2) / dim) (Achlioptas, 2003). R
    depends on the key and dim alone, so rows that are projected in separate calls
    belong together.

    Args:
        x: One vector per row, shape [rows, params].
        key: The random key of R.
        dim: The number of columns of R.

    Returns:
        The projected rows, shape [rows, dim].

    >>> x = jnp.eye(2, 3000)
    >>> y = project(x, jax.random.key(0), 512)
    >>> y.shape, bool(jnp.allclose(jnp.sum(y * y, axis=1), 1))
    ((2, 512), True)
    """
    rows, params = x.shape
    chunks = jnp.pad(x, ((0, 0), (0, -params % CHUNK))).reshape(rows, -1, CHUNK)

    def add(total, chunk):
        index, part = chunk
        r = signs(key, index, dim)
        part = part.astype(jnp.float32)
        return total + jnp.matmul(part, r, precision="float32"), None

    count = chunks.shape[1]
    start = jnp.zeros((rows, dim))
    parts = (jnp.arange(count), jnp.swapaxes(chunks, 0, 1))
    return jax.lax.scan(add, start, parts)[0] / dim**0.5


@partial(jax.jit, static_argnums=2)
def signs(
    key: jax.Array, index: Int[Array, ""] | int, dim: int
) -> Float32[Array, "chunk dim"]:
    """Draw CHUNK rows of R, from row index * CHUNK on: 32 signs per random word.

    >>> signs(jax.random.key(0), 0, 3).shape
    (1024, 3)
    """
    words = jax.random.bits(jax.random.fold_in(key, index), (CHUNK, -(-dim // BITS)))
    bits = (words[:, :, None] >> jnp.arange(BITS, dtype=words.dtype)) & 1
    return (2.0 * bits - 1.0).reshape(CHUNK, -1)[:, :dim].astype(jnp.float32)
