"""The one place that makes texts and tokens of the examples of a pool."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from goracs_jax.choices import Scored
from goracs_jax.data.examples import written
from goracs_jax.llm.conversations import Form, is_chat
from goracs_jax.llm.templates import Template
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokenization import tokenize
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import Decoder
from goracs_jax.runs.opened import Llm, Pool


def scored_in(form: Form, labels: Scored | None, default: Scored = "all") -> Scored:
    """Return which tokens of examples the loss scores.

    Args:
        form: The form of the training examples.
        labels: What --labels says.
        default: What is scored where nothing is said; of chats, the answers.

    >>> scored_in("messages", None), scored_in("alpaca", None)
    ('answer', 'all')
    """
    return labels or ("answer" if is_chat(form) else default)


def embedded_in(form: Form, labels: Scored | None, default: Scored = "all") -> Scored:
    """Return what of examples is embedded: as in `scored_in`, but chats are whole."""
    return labels or ("all" if is_chat(form) else default)


def embedded_texts(pool: Pool, template: Template, embedded: Scored) -> Iterator[Text]:
    """Write what is embedded: all of each example, or what is in front of the answer.

    Args:
        pool: The examples.
        template: The template.
        embedded: "all", or "answer" for the prompt alone.
    """
    if embedded == "answer":
        return written(pool.examples, template.prompt)
    return written(pool.examples, lambda said: template.whole(said, "all"))


def tokens_of(
    pool: Pool, llm: Llm, scored: Scored = "all"
) -> Callable[[], tuple[Decoder, Tokens]]:
    """Return a function that tokenises a pool for an LLM and loads the LLM, once.

    Args:
        pool: The examples.
        llm: The model.
        scored: Which tokens are scored.
    """

    @cache
    def load() -> tuple[Decoder, Tokens]:
        # A text that does not fit is found before the weights are read.
        tokens = tokenize_pool(pool, llm, scored)
        return llm.decoder(), tokens

    return load


def tokenize_pool(pool: Pool, llm: Llm, scored: Scored = "all") -> Tokens:
    """Tokenise the examples of a pool for an LLM.

    Args:
        pool: The examples.
        llm: The model, whose context bounds the length of a text.
        scored: Which tokens are scored.
    """
    template = llm.template(pool.form)
    texts = written(pool.examples, lambda said: template.whole(said, scored))
    return tokenize_texts(texts, pool, llm, scored)


def tokenize_texts(
    texts: Iterable[Text], pool: Pool, llm: Llm, scored: Scored = "all"
) -> Tokens:
    """Tokenise texts that were written of a pool's examples; see `tokenize_pool`."""
    context = llm.config().max_positions
    return tokenize(
        texts, llm.tokenizer(), labels=scored, context=context, places=pool.places
    )
