"""Click prediction: the margin of Yes over No as the answer to a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float32

from goracs_jax.data.examples import Example
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.embeddings import last_places
from goracs_jax.llm.lower import LowerTable, reading
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokens import Tokens, check_ids, ragged, tokenize
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
    for record, place in examples:
        word = record["output"].strip().removesuffix(".")
        if word not in WORDS:
            raise InputError(
                f"{place}: output must be Yes or No, got {record['output']!r:.40}: "
                "prepare the file for ctr, or evaluate with --task seqrec."
            )
        found.append(word == "Yes")
    return np.array(found)


def ask(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    context: int,
) -> Questions:
    """Tokenize each prompt, followed by Yes and by No, and split off the answers.

    An answer follows the prompt with the same white space as the example's output, so
    that its token is the one that training used.

    Args:
        examples: Records whose outputs `read_answers` accepts.
        tokenizer: The model's tokenizer.
        context: Largest number of tokens that the model can take.

    Returns:
        The prompts and the token ids of Yes and No.

    Raises:
        InputError: Yes or No is not a single token, is not the same token after every
            prompt, or changes the tokens of the prompt; or `tokenize` refuses a text.
    """
    places = [example.place for example in examples]

    def with_answer(word: str) -> tuple[Tokens, int]:
        texts = []
        for record, _ in examples:
            prompt, answer = format_prompt(record)
            space = answer[: len(answer) - len(answer.lstrip())]
            texts.append((prompt, space + word))
        tokens = tokenize(
            texts, tokenizer, labels="answer", context=context, places=places
        )
        return _split(tokens, word, places)

    (prompts, yes_id), (others, no_id) = map(with_answer, WORDS)
    if not (
        np.array_equal(prompts.offsets, others.offsets)
        and np.array_equal(prompts.ids, others.ids)
        and yes_id != no_id
    ):
        raise InputError(
            "the tokens of the prompt depend on whether Yes or No follows: end the "
            "prompt with a line break."
        )
    return Questions(prompts, yes_id, no_id)


def _split(tokens: Tokens, word: str, places: Sequence[str]) -> tuple[Tokens, int]:
    """Split texts into prompts and answer: the token before the end of text."""
    answers = tokens.ids[tokens.offsets[1:] - 2]
    bad = np.flatnonzero((tokens.scored != 2) | (answers != answers[0]))
    if len(bad):
        raise InputError(
            f"{places[bad[0]]}: {word} is not one token that is the same after every "
            "prompt: end all prompts alike, or use a model whose tokenizer has the "
            "word as one token."
        )
    kept = np.ones(len(tokens.ids), bool)
    kept[tokens.offsets[1:] - 1] = kept[tokens.offsets[1:] - 2] = False
    offsets = tokens.offsets - 2 * np.arange(len(tokens.offsets))
    return Tokens(tokens.ids[kept], tokens.labels[kept], offsets), int(answers[0])


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
