"""Ground generated titles in real items by the distance between LLM embeddings.

This is the method of BIGRec (Bao et al., 2023): the embedding of a text is the last
layer's hidden state of its last token, and items are ranked by the L2 distance of their
titles to the generated text.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Float64

from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.embeddings import embed_with_decoder
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.tokenization import end_of_text, open_ended
from goracs_jax.llm.tokens import Tokens, ragged
from goracs_jax.models.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def title_in(text: str, around: tuple[str, str], titles: Collection[str]) -> str:
    r"""Return the title in a generated text.

    A title may have quotation marks inside, so that the first mark behind the opening
    one need not close it. If the text is a title of the catalogue with what stands
    around it, the longest such title is meant. Else it is what stands before the
    closing mark, or all of the text if titles are not quoted, without quotation marks
    and white space at its ends.

    Args:
        text: The generated text.
        around: What stands before and after the title in the right answer.
        titles: The titles of the catalogue.

    Returns:
        The title.

    >>> marks, titles = ('"', '"'), {"Heat", '12" oak', "12"}
    >>> title_in('"Heat" or so', marks, titles), title_in('"12" oak"', marks, titles)
    ('Heat', '12" oak')
    >>> title_in('"Hea" or so', marks, titles), title_in("Heat\n", ("", ""), titles)
    ('Hea', 'Heat')
    """
    before, after = around
    # The text ends at the closing mark, whatever follows it in an answer.
    close, mark, _ = after.partition('"')
    opening, close = before.lstrip(), (close + mark).rstrip()
    stripped = text.strip()
    if stripped.startswith(opening):
        rest = stripped[len(opening) :]
        ends = range(len(rest), -1, -1) if close else [len(rest)]
        for end in ends:
            if rest.startswith(close, end) and rest[:end] in titles:
                return rest[:end]
    quotes = (before + after).count('"')
    parts = text.split('"')
    return '"'.join(parts[:quotes] if quotes else parts).strip(' "\n\t')


def text_tokens(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerFast", *, context: int
) -> Tokens:
    """Tokenize texts without a prompt.

    Args:
        texts: The texts. An empty one becomes the end-of-text token.
        tokenizer: The tokenizer.
        context: Largest number of tokens; longer texts are cut.

    Returns:
        The tokens of each text.
    """
    rows = open_ended(texts, tokenizer)
    return ragged([row[:context] or [end_of_text(tokenizer)] for row in rows])


def embed_texts(
    model: Decoder,
    tokenizer: "PreTrainedTokenizerFast",
    texts: Sequence[str],
    *,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, "texts dim"]:
    """Embed each text as the last layer's hidden state of its last token.

    Args:
        model: The decoder.
        tokenizer: The model's tokenizer.
        texts: Titles, generated or real.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.

    Returns:
        One row per text; equal texts have equal rows.
    """
    # Each distinct text is embedded once. In another batch its embedding could differ
    # in the last bit, and an exactly generated title would have a distance above zero.
    unique, place = np.unique(list(texts), return_inverse=True)
    tokens = text_tokens(unique.tolist(), tokenizer, context=model.config.max_positions)
    return embed_with_decoder(model, tokens, pooling="last", mapper=mapper)[place]


def squared_distances(
    x: Float[np.ndarray, "queries dim"], y: Float[np.ndarray, "keys dim"]
) -> Float64[np.ndarray, "queries keys"]:
    """Return ||x_i - y_j||^2 = ||x_i||^2 - 2 x_i . y_j + ||y_j||^2, in float64.

    Hidden states of LLMs have a few very large coordinates. In float32, the subtraction
    would lose the differences between titles.

    Args:
        x: Embeddings of the generated titles.
        y: Embeddings of the real titles.

    Returns:
        The squared distance of every pair.

    >>> squared_distances(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0], [0.0, 3.0]]))
    array([[25.,  0.]])
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    norms = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :]
    return np.maximum(norms - 2 * x @ y.T, 0)
