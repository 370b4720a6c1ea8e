"""From a generated text to real items: the distance between LLM embeddings.

As BIGRec does (Bao et al., 2023): a text is embedded as the last layer's state of its
last token, and items are ranked by their L2 distance to what was generated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Float64

from goracs_jax.llm.embeddings import embed_with_decoder
from goracs_jax.llm.tokens import (
    Mapper,
    Tokens,
    end_of_text,
    map_batches,
    open_ended,
    ragged,
)
from goracs_jax.models.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def title_in(text: str, quotes: int) -> str:
    r"""The title in what was generated: up to the closing quote, without quotes.

    Args:
        text: What was generated.
        quotes: Quotation marks that an answer has around its title.

    >>> title_in('"Heat" or so', 2), title_in("Heat\n", 2), title_in("Heat", 0)
    ('Heat', 'Heat', 'Heat')
    """
    parts = text.split('"')
    return '"'.join(parts[:quotes] if quotes else parts).strip(' "\n\t')


def text_tokens(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerFast", *, context: int
) -> Tokens:
    """Tokens of bare texts, cut to the context; of an empty one, the end of text."""
    rows = open_ended(texts, tokenizer)
    return ragged([row[:context] or [end_of_text(tokenizer)] for row in rows])


def embed_texts(
    model: Decoder,
    tokenizer: "PreTrainedTokenizerFast",
    texts: Sequence[str],
    *,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, "texts dim"]:
    """The last layer's state of each text's last token; equal texts get equal rows.

    Args:
        model: The decoder.
        tokenizer: Of the same folder.
        texts: Titles, generated or real.
        mapper: Runs a function over batches; see `goracs_jax.llm.tokens.map_batches`.

    Returns:
        One row per text.
    """
    # Computed in another batch, an equal text would have another last bit, and what
    # was generated to the letter a distance above zero.
    unique, place = np.unique(list(texts), return_inverse=True)
    tokens = text_tokens(unique.tolist(), tokenizer, context=model.config.max_positions)
    return embed_with_decoder(model, tokens, pooling="last", mapper=mapper)[place]


def squared_distances(
    x: Float[np.ndarray, "queries dim"], y: Float[np.ndarray, "keys dim"]
) -> Float64[np.ndarray, "queries keys"]:
    """||x_i - y_j||^2 = ||x_i||^2 - 2 x_i . y_j + ||y_j||^2, in float64.

    Hidden states of LLMs have a few coordinates that outweigh all others: float32
    would lose the differences between titles in the subtraction.

    >>> squared_distances(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0], [0.0, 3.0]]))
    array([[25.,  0.]])
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    norms = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :]
    return np.maximum(norms - 2 * x @ y.T, 0)
