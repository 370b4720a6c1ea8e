"""MovieLens prompts that several benchmarks measure with."""

import numpy as np

import goracs_jax as gx
from goracs_jax.data.demo import draw_records, fetch, movielens
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokenization import Scored
from goracs_jax.llm.tokens import Tokens


def prompts(size: int, labels: Scored = "all", context: int = 8192) -> Tokens:
    """Tokenise prompts of MovieLens examples that are drawn with a fixed seed."""
    files = fetch()
    log, split = movielens(files)
    drawn = draw_records(log, split.train, size, np.random.default_rng(0))
    texts = [format_prompt(record) for record in drawn]
    tokenizer = gx.load_tokenizer(files.model)
    return gx.tokenize(texts, tokenizer, labels=labels, context=context)
