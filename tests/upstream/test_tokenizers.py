"""tokenizers, seen in 0.23.3."""

import json

import pytest
from tokenizers import Tokenizer, models


def test_added_tokens_are_numbered_anew():
    """tokenizers 0.23.3: the number of an added token in a file is not always taken.

    A token of the vocabulary keeps its own, and no error says so. So `load_tokenizer`
    (goracs_jax/models/tokenizer.py) compares them.
    """
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.add_special_tokens(["b"])
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"][0]["id"] = 7
    found = Tokenizer.from_str(json.dumps(raw))
    assert found.token_to_id("b") == 1, "numbers are taken or refused: need no check"


def test_two_tokens_may_have_one_id():
    """tokenizers 0.23.3: a vocabulary with one id for two tokens is read.

    So `load_tokenizer` (goracs_jax/models/tokenizer.py) refuses it.
    """
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 0}, unk_token="a"))
    assert tokenizer.get_vocab() == {"a": 0, "b": 0}, "refused: need no check"


def test_errors_have_no_type_of_their_own():
    """tokenizers 0.23.3: what is wrong with a file or a text is a plain Exception.

    So `load_tokenizer` (goracs_jax/models/tokenizer.py) and `encode`
    (goracs_jax/llm/tokenization.py) catch all of them.
    """
    with pytest.raises(Exception, match="EOF") as error:
        Tokenizer.from_str("")
    assert type(error.value) is Exception
    lacking = Tokenizer(models.WordLevel({"a": 0}, unk_token="b"))
    with pytest.raises(Exception, match=r"Missing \[UNK\]") as error:
        lacking.encode("c")
    assert type(error.value) is Exception
