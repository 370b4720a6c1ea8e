import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goracs_jax.models import Encoder, EncoderConfig
from goracs_jax.models.encoder import relative_bucket

CONFIG = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_layers": 2,
    "num_heads": 2,
    "num_positions": 16,
    "norm_eps": 1e-12,
    "gelu": "exact",
    "pooling": "mean",
    "normalize": False,
    "lowercase": False,
    "max_tokens": 14,
}


def bucket_of(ahead: int) -> int:
    """The bucket of one distance, for 32 buckets and distances up to 128."""
    side, distance = (16 if ahead > 0 else 0), abs(ahead)
    if distance < 8:
        return side + distance
    # log_16(distance / 8) runs from 0 to 1; a bucket begins at every eighth.
    for bucket in range(8, 16):
        if math.log(distance / 8, 16) * 8 < bucket - 8 + 1 - 1e-9:
            return side + bucket
    return side + 15


def test_buckets_are_those_of_a_plain_loop():
    found = relative_bucket(200, 32)
    expected = [[bucket_of(key - query) for key in range(200)] for query in range(200)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "kind",
    [
        {"first_position": 0, "num_types": 2},
        {"first_position": 2, "num_types": 0, "relative_buckets": 32},
    ],
    ids=["bert", "mpnet"],
)
def test_padding_changes_nothing_and_order_does(kind):
    model = Encoder(EncoderConfig(**CONFIG, **kind), key=jax.random.key(0))
    ids = jnp.array([[3, 4, 5, 6]])
    plain = model.hidden(ids)
    padded = model.hidden(jnp.pad(ids, ((0, 0), (0, 3)), constant_values=-1))
    # Softmax over other lengths: rounding of float32 states of size one.
    np.testing.assert_allclose(padded[:, :4], plain, rtol=1e-5, atol=1e-5)
    assert not np.allclose(model.hidden(ids[:, ::-1])[:, ::-1], plain, atol=1e-3)


@pytest.mark.parametrize(
    ("bucket", "changed"),
    # One ahead: the token before the changed one sees it, the last has none ahead and
    # sees all. One behind: the one after it, and the first.
    [(17, [False, True, True, True]), (1, [True, False, True, True])],
)
def test_the_bias_of_a_bucket_moves_the_pairs_in_it(bucket, changed):
    kind = {"first_position": 2, "num_types": 0, "relative_buckets": 32}
    config = EncoderConfig(**(CONFIG | kind | {"num_layers": 1}))
    model = Encoder(config, key=jax.random.key(0))
    model.relative_bias[...] = jnp.zeros((32, 2)).at[bucket].set(1e4)
    before = model.hidden(jnp.array([[3, 4, 5, 6]]))
    after = model.hidden(jnp.array([[3, 4, 9, 6]]))
    assert jnp.any(before != after, axis=-1)[0].tolist() == changed
