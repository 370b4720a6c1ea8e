"""Click prediction: the margin of Yes over No as the answer to a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float32

from goracs_jax.data.examples import Example, written
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.conversations import Conversation
from goracs_jax.llm.embeddings import last_places
from goracs_jax.llm.lower import LowerTable, reading
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.templates import ALPACA, Template
from goracs_jax.llm.texts import Text, common
from goracs_jax.llm.tokenization import tokenize
from goracs_jax.llm.tokens import Tokens, check_ids, ragged
from goracs_jax.models.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = ("Yes", "No")


class Questions(NamedTuple):
    """Prompts that end where the answer starts, and the ids of the two answers."""

    tokens: Tokens
    yes: int  # token id of Yes
    no: int  # token id of No


def read_answers(examples: Sequence[Example]) -> Bool[np.ndarray, " examples"]:
    """Read which examples have the output Yes.

    White space around an output and a full stop at its end do not matter.

    Args:
        examples: Records whose output is Yes or No.

    Returns:
        Whether each output is Yes.

    Raises:
        InputError: An output is neither Yes nor No.

    >>> record = {"instruction": "Will the user like it?", "output": " Yes."}
    >>> read_answers([Example(record, "test.jsonl:1")])
    array([ True])
    """
    found = []
    for example in examples:
        word = example.output.strip().removesuffix(".")
        if word not in WORDS:
            raise InputError(
                f"{example.place}: output must be Yes or No, got "
                f"{example.output!r:.40}: "
                "prepare the file for ctr, or evaluate with --task seqrec."
            )
        found.append(word == "Yes")
    return np.array(found)


def ask(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    context: int,
    template: Template = ALPACA,
) -> Questions:
    """Tokenize each prompt, followed by Yes and by No, and split off the answers.

    An answer follows the prompt with the same white space as the example's output, so
    that its token is the one that training used.

    Args:
        examples: Records whose outputs `read_answers` accepts.
        tokenizer: The model's tokenizer.
        context: Largest number of tokens that the model can take.
        template: Writes the prompts.

    Returns:
        The prompts and the token ids of Yes and No.

    Raises:
        InputError: Yes or No is not a single token, is not the same token after every
            prompt, or changes the tokens of the prompt; or `tokenize` refuses a text.
    """
    places = [example.place for example in examples]

    def with_answer(word: str) -> Tokens:
        def write(said: Conversation) -> Text:
            space = said.answer[: len(said.answer) - len(said.answer.lstrip())]
            return template.answered(said, space + word)

        texts = [*written(examples, write)]
        return tokenize(texts, tokenizer, context=context, places=places)

    yes, no = map(with_answer, WORDS)
    pairs = zip(_rows(yes), _rows(no), strict=True)
    found = []
    for (one, other), place in zip(pairs, places, strict=True):
        start = common(one, other)
        # What follows the answers is the same; so is what they have in common.
        ends = len(one) - common(one[start:][::-1], other[start:][::-1])
        if len(one) != len(other) or ends != start + 1:
            word = WORDS[0] if len(one) >= len(other) else WORDS[1]
            raise InputError(_SEVERAL.format(place=place, word=word))
        found.append((one[:start], int(one[start]), int(other[start])))
    prompts, *answers = zip(*found, strict=True)
    for word, ids in zip(WORDS, answers, strict=True):
        bad = next((i for i, token in enumerate(ids) if token != ids[0]), None)
        if bad is not None:
            raise InputError(_SEVERAL.format(place=places[bad], word=word))
    return Questions(ragged(prompts), answers[0][0], answers[1][0])


_SEVERAL = (
    "{place}: {word} is not one token that is the same after every prompt: end all "
    "prompts alike, with a line break, or use a model whose tokenizer has the word as "
    "one token."
)


def _rows(tokens: Tokens) -> list[list[int]]:
    return [row.tolist() for row in np.split(tokens.ids, tokens.offsets[1:-1])]


def yes_margins(
    model: Decoder,
    questions: Questions,
    *,
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
    lower: LowerTable | None = None,
) -> Float32[np.ndarray, " examples"]:
    """Return the margin of Yes over No for each prompt: z_yes - z_no.

    z are the logits of the first token of the answer, and 1 / (1 + exp(-margin)) is
    the probability of Yes, against No. Margins rank the examples also where that
    probability rounds to 0 or 1. They take one pass over the prompt and two rows of the
    output head.

    Args:
        model: The decoder.
        questions: The prompts and the token ids of Yes and No.
        tokens_per_batch: Padded tokens of a batch on each device; by default those of
            `goracs_jax.llm.profile.batch_tokens`.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.
        lower: What the layers below all adapters make of the prompts, if it was kept.

    Returns:
        One margin per example, in input order.

    Raises:
        InputError: A token id is outside the vocabulary.
        NumericalError: A margin is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> yes_margins(model, Questions(ragged([[1, 2], [3]]), yes=4, no=5)).shape
    (2,)
    """
    tokens, yes, no = questions
    for ids in (tokens, ragged([[yes, no]])):
        check_ids(ids, model.config.vocab_size)
    run = yes_pass(model, yes, no)
    size = tokens_per_batch or batch_tokens(model, "answers", tokens)
    batches = run.batches(tokens, size)
    margins = mapper(reading(run, lower, tokens), batches)
    bad = np.flatnonzero(~np.isfinite(margins))
    if len(bad):
        raise NumericalError(
            f"the margin of example {bad[0] + 1} is not finite ({len(bad)} of "
            f"{len(margins)}): check the weights of the model and the adapter, or use "
            "float32."
        )
    return margins


def yes_pass(model: Decoder, yes: int, no: int) -> Pass:
    """Make the pass that compares Yes with No; see `yes_margins`.

    Args:
        model: The decoder.
        yes: The token id of Yes.
        no: The token id of No.

    Returns:
        From a batch of prompts, and their lower states where these were kept, to an
        array [batch].
    """
    pair = np.array([yes, no], np.int32)
    return Pass(_margin_of_batch, (*nnx.split(model), pair), model.execution)


@jax.jit
def _margin_of_batch(graph, state, pair, ids, labels, lower=None):
    del labels
    model, text = nnx.merge(graph, state), ids if lower is None else lower
    last = model.hidden_at(text, last_places(ids)[:, None])[:, 0]
    logits = model.logits(last, pair)
    return logits[:, 0] - logits[:, 1]
