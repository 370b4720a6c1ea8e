"""Files of examples as the flags have them: without bad records, none too long."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.choices import Duplicates, Scored
from goracs_jax.data.cutting import Check, Fitting, Limit, fitting, no_faults
from goracs_jax.data.examples import Example, check_duplicates, each_example
from goracs_jax.data.skipped import Skipped, save_skipped
from goracs_jax.data.stored import Some, Stored
from goracs_jax.errors import InputError, RecordError
from goracs_jax.files import digest
from goracs_jax.llm.conversations import Form
from goracs_jax.llm.template_choice import TemplateChoice, encoder_template
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokenization import (
    check_answers,
    count_tokens,
    encode,
    load_tokenizer,
)
from goracs_jax.models import decoder_config
from goracs_jax.models.weights import encoder_config
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool, hash_pool
from goracs_jax.runs.say import say
from goracs_jax.settings.common import Records

#: The most special tokens that a tokenizer puts around a text.
SPECIAL = 4


def read_pools(
    *paths: Path, limit: Limit | None, flags: Records, duplicates: Duplicates = "keep"
) -> list[Pool]:
    """Read and check files of examples, and say what is left out or cut.

    Args:
        paths: The files, as for `goracs_jax.data.examples.read_examples`.
        limit: How long texts may be; see `limit_of`.
        flags: What the files call the parts of their records, and what is done with
            records that cannot be used.
        duplicates: Whether examples of the first file may repeat each other's texts.

    Raises:
        InputError: The first thing that is wrong, with its file and line.
    """
    pools = [_read(path, limit, flags) for path in paths]
    if duplicates == "refuse":
        check_duplicates(pools[0].examples)
    return pools


def limit_of(
    flags: Records,
    model: Path | None,
    encoder: Path | None = None,
    *,
    room: int = 0,
    scored: Callable[[Form], Scored] = lambda form: "all",
) -> Limit | None:
    """Find how long texts may be; None where nothing but the model's pass checks it.

    Args:
        flags: What they ask for.
        model: The LLM by whose tokens texts are counted.
        encoder: The sentence encoder, where there is no LLM. It cuts longer texts
            itself, unless the flags ask for something else.
        room: Tokens of the context that are needed for something else.
        scored: Which tokens of records of a form are scored; a template may write a
            chat and have no way to score its answers.

    Raises:
        InputError: --max-length is no length, or there is no such model.
    """
    most = flags.max_length
    if most is not None and most < 1:
        raise InputError(f"--max-length must be at least 1, got {most}.")
    asked = most is not None or flags.too_long in ("cut", "skip")
    if model and (asked or flags.bad_rows == "skip"):
        reader = _model_reader(flags, model, scored)
    elif encoder and asked:
        reader = _encoder_reader(encoder)
    else:
        return None
    tokens = reader.context - room
    flag = f"the {'model' if model else 'encoder'}'s context"
    if most is not None and most <= tokens:
        tokens, flag = most, "--max-length"

    def count(texts: Sequence[Text]) -> list[int]:
        # A token has at least one byte, so that most texts need not be counted.
        counts = [len(text.text.encode()) + SPECIAL for text in texts]
        long = [i for i, size in enumerate(counts) if size > tokens]
        if long:
            found = reader.count([texts[i] for i in long])
            for i, size in zip(long, found, strict=True):
                counts[i] = size
        return counts

    mode = flags.too_long or ("refuse" if most is None else "cut")
    return Limit(tokens, reader.write, count, mode == "cut", flag, reader.check)


class _Reader(NamedTuple):
    """How a model reads texts."""

    context: int  # the most tokens
    write: Callable[[Example], Text]
    count: Callable[[Sequence[Text]], list[int]]
    check: Check = no_faults


def _model_reader(
    flags: Records, model: Path, scored: Callable[[Form], Scored]
) -> _Reader:
    context, tokenizer = decoder_config(model).max_positions, load_tokenizer(model)
    choice = TemplateChoice.read(flags.template)

    def write(example: Example) -> Text:
        template, what = choice.of(example.form, tokenizer), scored(example.form)
        return example.written(lambda said: template.whole(said, what))

    def check(
        examples: Sequence[Example], texts: Sequence[Text]
    ) -> Sequence[RecordError | None]:
        if not texts or scored(examples[0].form) == "all":
            return no_faults(examples, texts)
        places = [example.place for example in examples]
        return check_answers(texts, tokenizer, places)

    return _Reader(context, write, lambda x: count_tokens(x, tokenizer), check)


def _encoder_reader(encoder: Path) -> _Reader:
    config, tokenizer = encoder_config(encoder), load_tokenizer(encoder)
    lower = str.lower if config.lowercase else str

    def write(example: Example) -> Text:
        template = encoder_template(example.form)
        return example.written(lambda said: template.whole(said, "all"))

    def count(texts: Sequence[Text]) -> list[int]:
        plain = [lower(text.text) for text in texts]
        return [*map(len, encode(plain, tokenizer)["input_ids"])]

    return _Reader(config.max_tokens, write, count)


def say_skipped(skipped: Skipped, path: Path, of: int) -> None:
    """Say how many records of a file, or rows of an array, are left out, if any are.

    Args:
        skipped: Those that are left out.
        path: The file.
        of: All its records.
    """
    if skipped.rows:
        count = f"{len(skipped.rows):,} of {of:,} records"
        say(f"{path}: {count} are left out: {skipped.text}")


def left_out(*pools: Pool) -> list[Skipped]:
    """Return the records that were left out of some pools."""
    return [pool.skipped for pool in pools if pool.skipped]


def save_left_out(path: Path, found: Sequence[Skipped]) -> None:
    """Write the records that were left out into a file, and say where they are.

    Args:
        path: The file; that of an earlier run goes if nothing was left out.
        found: Those of each file that was read.
    """
    save_skipped(path, found)
    if path.exists():
        say(f"{path}: the records that are left out")


def _read(path: Path, limit: Limit | None, flags: Records) -> Pool:
    skipped = Skipped()
    bad = skipped if flags.bad_rows == "skip" else None
    whole = Stored(each_example(path, bad, columns=flags.columns))
    usable = _without(skipped, len(whole))
    examples, cut = whole, []
    if limit:
        long = skipped if flags.too_long == "skip" else bad
        numbered = zip(usable.rows.tolist(), whole, strict=True)
        found = fitting(numbered, limit, long, bad)
        examples = Stored(_noting(found, cut))
    if not examples:
        raise InputError(
            f"{path}: all {usable.of:,} records are left out ({skipped.text}): give "
            "others, or a larger --max-length."
        )
    sha256, kept, uncut = hash_pool(path, flags.columns), usable, None
    if skipped.rows or cut:
        kept = _without(skipped, len(examples))
        sha256 = digest({"file": sha256, "without": sorted(skipped.rows), "cut": cut})
    say_skipped(skipped, path, kept.of)
    if cut and limit:
        uncut = Some(whole, np.searchsorted(usable.rows, kept.rows))
        say(
            f"{path}: {len(cut):,} of {kept.of:,} texts are cut to {limit.tokens} "
            "tokens"
        )
    return Pool(examples, sha256, path, kept, skipped, uncut)


def _noting(found: Iterable[Fitting], cut: list[tuple[int, int]]) -> Iterator[Example]:
    """Yield examples, and note which of them are cut, and to how many characters."""
    for i, (example, is_cut) in enumerate(found):
        if is_cut:
            cut.append((i, len("".join(example.texts))))
        yield example


def _without(skipped: Skipped, left: int) -> Kept:
    stay = np.ones(left + len(skipped.rows), bool)
    stay[skipped.rows] = False
    return Kept.where(stay)
