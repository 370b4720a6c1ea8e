"""What is read of the config.json of an encoder, and what is refused."""

import re

import families
import pytest

from goracs_jax.errors import InputError
from goracs_jax.models.hf_encoder import read_encoder_config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embedding_size": 128}, "'embedding_size' (128) is not known"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"num_attention_heads": 3}, "3 must divide"),
        (
            {"model_type": "mpnet", "relative_attention_num_buckets": 16},
            "relative_attention_num_buckets 16",
        ),
        ({"model_type": "deberta"}, "model_type 'deberta'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"type_vocab_size": None}, "'type_vocab_size' is missing"),
        ({"model_type": "roberta", "pad_token_id": 11}, "must be more than 12"),
    ],
)
def test_encoder_refuses_by_name(change, named):
    with pytest.raises(InputError, match=re.escape(named)):
        read_encoder_config(families.BERT | change, "config.json")


def test_layers_of_an_encoder_are_bounded():
    with pytest.raises(InputError, match="'num_hidden_layers' must be at most"):
        read_encoder_config(families.BERT | {"num_hidden_layers": 10**9}, "config.json")


def test_roberta_starts_behind_the_padding_index():
    roberta = families.BERT | {"model_type": "roberta", "pad_token_id": 1}
    config = read_encoder_config(roberta, "config.json", max_tokens=512)
    assert config.first_position == 2
    assert config.max_tokens == 12 - 2
    assert read_encoder_config(families.BERT, "config.json").first_position == 0
