import jax
import numpy as np
import pytest

from goracs_jax.llm.tokens import NOT_SCORED, ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig

LORA = LoraConfig(r=4, alpha=8.0, dropout=0.1)


@pytest.fixture(scope="module")
def model():
    return Decoder(DecoderConfig.tiny(), LORA, key=jax.random.key(0))


def pool(seed, size):
    """Examples of 7 to 30 tokens, the first third not scored.

    Two padded lengths, 16 and 32: every other one would be compiled too.
    """
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 20, n) for n in rng.choice([7, 12, 16, 29, 30], size)]
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
