import jax
import numpy as np
import pytest

from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.tokens import NOT_SCORED, ragged

LORA = LoraConfig(r=4, alpha=8.0, dropout=0.1)


@pytest.fixture(scope="module")
def model():
    return Decoder(DecoderConfig.tiny(), LORA, key=jax.random.key(0))


def pool(seed, size):
    """Examples of 5 to 40 tokens, the first third not scored: sums of tokens differ."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 20, n) for n in rng.integers(5, 41, size)]
    labels = [
        np.where(np.arange(len(row)) < len(row) // 3, NOT_SCORED, row) for row in rows
    ]
    return ragged([row.tolist() for row in rows], [row.tolist() for row in labels])


@pytest.fixture(scope="module")
def train():
    return pool(0, 10)


@pytest.fixture(scope="module")
def valid():
    return pool(1, 5)
