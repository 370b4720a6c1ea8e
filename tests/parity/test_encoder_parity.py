import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from goracs_jax.llm.embeddings import embed_with_encoder
from goracs_jax.llm.tokenization import load_tokenizer
from goracs_jax.models import load_encoder

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 160,
    "initializer_range": 0.3,
}
TEXTS = [
    "Toy Story (1995)",
    "The user has watched the following movies before: Heat, Fargo, Alien.",
    "x",
    "long " * 400,
]


MODELS = {
    "bert": (BertModel, BertConfig(**SIZES, type_vocab_size=2)),
    "bert-tanh": (BertModel, BertConfig(**SIZES, hidden_act="gelu_new")),
    "roberta": (RobertaModel, RobertaConfig(**SIZES, type_vocab_size=1)),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig(**SIZES, type_vocab_size=1)),
    "mpnet": (MPNetModel, MPNetConfig(**SIZES)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_hidden_states(tmp_path, kind):
    torch.manual_seed(0)
    build, config = MODELS[kind]
    theirs = build(config).eval()
    with torch.no_grad():  # biases are made zero, norms one: neither would show
        for weight in theirs.parameters():
            if weight.ndim == 1:
                weight += 0.3 * torch.randn_like(weight)
    theirs.save_pretrained(tmp_path)
    # No id is the padding id: RoBERTa counts positions by it.
    ids = np.random.default_rng(0).integers(2, 50, (3, 150))
    # Long enough for every bucket of MPNet's distances, the last from 128 on.
    mask = np.arange(150) < np.array([[150], [9], [1]])
    pad = np.where(mask, ids, theirs.config.pad_token_id)
    with torch.no_grad():
        expected = theirs(torch.tensor(pad), torch.tensor(mask).long())[0].numpy()
    ours = load_encoder(tmp_path).hidden(jnp.asarray(np.where(mask, ids, -1)))
    # States of size one behind a norm, two layers of float32.
    np.testing.assert_allclose(ours[mask], expected[mask], rtol=1e-4, atol=1e-4)


def test_minilm_vectors(minilm):
    """Mean over the mask, then length one: what its model card prescribes."""
    model, tokenizer = (
        AutoModel.from_pretrained(minilm),
        AutoTokenizer.from_pretrained(minilm),
    )
    # As sentence_bert_config.json of the folder says.
    encoded = tokenizer(
        TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**encoded)[0]
    mask = encoded["attention_mask"][:, :, None]
    expected = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    ours = embed_with_encoder(load_encoder(minilm), load_tokenizer(minilm), TEXTS)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
