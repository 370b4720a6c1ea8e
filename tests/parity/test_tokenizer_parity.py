"""Real tokenizers, against the library that wrote them."""

import pytest
from tokenizers import Tokenizer

from goracs_jax.data.demo import fetch, movielens
from goracs_jax.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def texts():
    """All titles of MovieLens-100K, some of them in a row, and odd characters."""
    titles = movielens(fetch())[0].titles
    odd = ["", " ", "naïve  théâtre 😀\n\n\t1234567", "[CLS] a [SEP]", "<|im_end|>"]
    return [*titles, ", ".join(titles[:600]), *odd]


def test_ids_are_those_of_tokenizer_json(minilm, texts):
    described = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    described.no_truncation()
    described.no_padding()
    expected = [row.ids for row in described.encode_batch(texts)]
    found = load_tokenizer(minilm)(texts, verbose=False)["input_ids"]
    assert found == expected
