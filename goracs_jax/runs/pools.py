"""Files of examples as the flags have them: without bad records, none too long."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from goracs_jax.choices import Duplicates
from goracs_jax.data.cutting import Limit, fitting
from goracs_jax.data.examples import Example, check_duplicates, read_examples
from goracs_jax.data.skipped import Skipped, save_skipped
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.llm.template_choice import TemplateChoice, encoder_template
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokens import count_tokens, encode, load_tokenizer
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
    flags: Records, model: Path | None, encoder: Path | None = None, room: int = 0
) -> Limit | None:
    """Find how long texts may be; None where nothing but the model's pass checks it.

    Args:
        flags: What they ask for.
        model: The LLM by whose tokens texts are counted.
        encoder: The sentence encoder, where there is no LLM. It cuts longer texts
            itself, unless the flags ask for something else.
        room: Tokens of the context that are needed for something else.

    Raises:
        InputError: --max-length is no length, or there is no such model.
    """
    most = flags.max_length
    if most is not None and most < 1:
        raise InputError(f"--max-length must be at least 1, got {most}.")
    asked = most is not None or flags.too_long in ("cut", "skip")
    if model and (asked or flags.bad_rows == "skip"):
        context, tokenizer = decoder_config(model).max_positions, load_tokenizer(model)
        choice = TemplateChoice.read(flags.template)
        template = lambda form: choice.of(form, tokenizer)
        tokens_of = lambda texts: count_tokens(texts, tokenizer)
    elif encoder and asked:
        config, tokenizer = encoder_config(encoder), load_tokenizer(encoder)
        context, template = config.max_tokens, encoder_template
        lower = str.lower if config.lowercase else str
        plain = lambda texts: [lower(text.text) for text in texts]
        tokens_of = lambda texts: [
            *map(len, encode(plain(texts), tokenizer)["input_ids"])
        ]
    else:
        return None
    tokens, flag = context - room, f"the {'model' if model else 'encoder'}'s context"
    if most is not None and most <= tokens:
        tokens, flag = most, "--max-length"

    def write(example: Example) -> Text:
        return example.written(lambda said: template(example.form).whole(said, "all"))

    def count(texts: Sequence[Text]) -> list[int]:
        # A token has at least one byte, so that most texts need not be counted.
        counts = [len(text.text.encode()) + SPECIAL for text in texts]
        long = [i for i, size in enumerate(counts) if size > tokens]
        if long:
            found = tokens_of([texts[i] for i in long])
            for i, size in zip(long, found, strict=True):
                counts[i] = size
        return counts

    mode = flags.too_long or ("refuse" if most is None else "cut")
    return Limit(tokens, write, count, mode == "cut", flag)


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
    examples = read_examples(path, bad, columns=flags.columns)
    kept = _without(skipped, len(examples))
    of, uncut = kept.of, {}
    if limit:
        long = skipped if flags.too_long == "skip" else bad
        numbered = zip(kept.rows.tolist(), examples, strict=True)
        examples, uncut = fitting(numbered, limit, long, bad)
    if not examples:
        raise InputError(
            f"{path}: all {of:,} records are left out ({skipped.text}): give others, "
            "or a larger --max-length."
        )
    sha256 = hash_pool(path, flags.columns)
    if skipped.rows or uncut:
        kept = _without(skipped, len(examples))
        cut = [
            (i, len("".join(example.texts)))
            for i, example in enumerate(examples)
            if example.place in uncut
        ]
        sha256 = digest({"file": sha256, "without": sorted(skipped.rows), "cut": cut})
    say_skipped(skipped, path, of)
    if uncut and limit:
        say(f"{path}: {len(uncut):,} of {of:,} texts are cut to {limit.tokens} tokens")
    return Pool(examples, sha256, path, kept, skipped, uncut)


def _without(skipped: Skipped, left: int) -> Kept:
    stay = np.ones(left + len(skipped.rows), bool)
    stay[skipped.rows] = False
    return Kept.where(stay)
