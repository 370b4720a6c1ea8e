"""`goracs prepare`: raw interactions in; examples, items and a manifest out."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.table import Table

from goracs_jax.data.examples import write_jsonl
from goracs_jax.data.formats import Columns
from goracs_jax.data.interactions import CleaningStep, Raw, read_raw, tidy
from goracs_jax.data.negatives import check_negatives, draw_negatives
from goracs_jax.data.raw_files import RawFiles, find_raw_files
from goracs_jax.data.records import Wording, item_records, records, with_negatives
from goracs_jax.data.splits import (
    Log,
    Split,
    check_size,
    leave_one_out,
    make_log,
    split_by_time,
)
from goracs_jax.errors import InputError
from goracs_jax.files import hash_files, locked, prepare_folder, write_json
from goracs_jax.llm.prompts import read_template
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.outputs import keep_apart
from goracs_jax.runs.progress import progress
from goracs_jax.runs.say import say, waiting
from goracs_jax.settings import Prepare

HELD_OUT = 5_000  # the paper's newest interactions for test, and those before them
FILES = ("train.jsonl", "valid.jsonl", "test.jsonl", "items.jsonl")
MANIFEST = "manifest.json"


def prepare(settings: Prepare) -> None:
    """Run `goracs prepare`."""
    _check(settings)
    source = find_raw_files(
        settings.format,
        settings.input,
        settings.metadata,
        {name: getattr(settings, f"{name}_column") for name in Columns._fields},
    )
    for name in (*FILES, MANIFEST):
        inputs = (settings.input, source.ratings, source.titles, settings.template)
        keep_apart(settings.out / name, *inputs)
    wording = _wording(settings, source)
    say(f"{source.name}: {source.ratings}, titles from {source.titles}")
    if settings.dry_run:
        _say_plan(settings, source)
        return
    prepare_folder(settings.out, 64 << 20)
    with locked(settings.out):
        raw = _read(settings, source)
        tidied = tidy(
            raw.ratings.rows,
            raw.titles.rows,
            rated=settings.task == "ctr",
            repeats=settings.repeats == "keep",
            core=settings.core,
        )
        log = _unquote(make_log(tidied.table), wording)
        split = _split(settings, log)
        say(_table(tidied.steps))
        # The manifest of an earlier run goes first: it means that the rest is its own.
        (settings.out / MANIFEST).unlink(missing_ok=True)
        _write(settings, log, split, wording)
        manifest = _manifest(settings, source, raw, tidied.steps, log, split)
        write_json(settings.out / MANIFEST, manifest)
    sizes = (*map(len, split), len(log.item_ids))
    written = [f"{name} ({n:,})" for name, n in zip(FILES, sizes, strict=True)]
    say(f"{settings.out}: {', '.join([*written, MANIFEST])}")


def _check(settings: Prepare) -> None:
    for name, least in (("history", 1), ("core", 1), ("negatives", 0)):
        if (value := getattr(settings, name)) < least:
            raise InputError(f"--{name} must be at least {least}, got {value}.")
    if not 1 <= settings.min_history <= settings.history:
        raise InputError(
            f"--min-history must be in [1, {settings.history}], the --history, got "
            f"{settings.min_history}."
        )
    if not 0 <= settings.max_bad <= 1:
        raise InputError(f"--max-bad must be a share, got {settings.max_bad}.")
    if not math.isfinite(settings.like_above):
        raise InputError(f"--like-above must be finite, got {settings.like_above}.")
    sizes = {"valid": settings.valid, "test": settings.test}
    for name, size in sizes.items():
        if size is None:
            continue
        if settings.split != "global":
            raise InputError(f"--{name} is for --split global: leave it out.")
        check_size(name, size)


def _wording(settings: Prepare, source: RawFiles) -> Wording:
    template = settings.template
    return Wording(
        task=settings.task,
        noun=settings.noun or source.format.noun,
        history=settings.history,
        like_above=settings.like_above,
        template=read_template(template, settings.task) if template else None,
    )


def _read(settings: Prepare, source: RawFiles) -> Raw:
    mib = sum(path.stat().st_size for path in (source.ratings, source.titles)) / 2**20
    with progress() as bar:
        task = bar.add_task("MiB read", total=mib)
        tell = lambda done: bar.update(task, completed=done)
        raw = read_raw(source, settings.max_bad, tell)
    for path, reading in zip((source.ratings, source.titles), raw, strict=True):
        if reading.bad:
            say(
                f"{path}: {reading.bad:,} of {reading.lines:,} lines skipped: "
                f"{'; '.join(reading.first)}"
            )
    return raw


def _unquote(log: Log, wording: Wording) -> Log:
    """Titles without the character that ends a title in an answer."""
    quote = wording.texts.quote
    other = "\u2019" if quote == "'" else "'"
    count = sum(quote in title for title in log.titles) if quote else 0
    if not count:
        return log
    say(f"{quote} ends a title: inside {count:,} of them it is written {other}")
    return log._replace(titles=[title.replace(quote, other) for title in log.titles])


def _split(settings: Prepare, log: Log) -> Split:
    if settings.split == "leave-one-out":
        split = leave_one_out(log, min_history=settings.min_history)
    else:
        split = split_by_time(
            log,
            valid=settings.valid or HELD_OUT,
            test=settings.test or HELD_OUT,
            min_history=settings.min_history,
        )
    if settings.task == "seqrec":
        for rows in (split.valid, split.test):
            check_negatives(log, rows, settings.negatives)
    return split


def _write(settings: Prepare, log: Log, split: Split, wording: Wording) -> None:
    made = {part: records(log, rows, wording) for part, rows in split._asdict().items()}
    if settings.task == "seqrec":
        # Each part has its own draw: the size of one does not change the other's.
        rngs = np.random.default_rng(settings.seed).spawn(2)
        for part, rng in zip(("valid", "test"), rngs, strict=True):
            drawn = draw_negatives(
                log, getattr(split, part), settings.negatives, rng=rng
            )
            made[part] = with_negatives(log, made[part], drawn)
    with progress() as bar:
        for part, rows in split._asdict().items():
            tracked = bar.track(made[part], total=len(rows), description=part)
            write_jsonl(settings.out / f"{part}.jsonl", tracked)
    write_jsonl(settings.out / "items.jsonl", item_records(log))


def _manifest(
    settings: Prepare,
    source: RawFiles,
    raw: Raw,
    steps: Iterable[CleaningStep],
    log: Log,
    split: Split,
) -> dict[str, Any]:
    paths = {"ratings": source.ratings, "titles": source.titles}
    if settings.template:
        paths["template"] = settings.template
    with waiting("hashes"):
        inputs = {
            name: {"file": str(path), "sha256": hash_files(path)}
            for name, path in paths.items()
        }
        outputs = {name: hash_files(settings.out / name) for name in FILES}
    for name, reading in raw._asdict().items():
        inputs[name] |= {
            "lines": reading.lines,
            "bad": reading.bad,
            "first_bad": reading.first,
        }
    return {
        **made_by(settings),
        "format": source.name,
        "columns": source.columns._asdict(),
        "inputs": inputs,
        "steps": [step._asdict() for step in steps],
        "examples": {part: len(rows) for part, rows in split._asdict().items()},
        "items": len(log.item_ids),
        "outputs": outputs,
    }


def _table(steps: Iterable[CleaningStep]) -> Table:
    table = Table()
    for i, name in enumerate(CleaningStep._fields):
        table.add_column(name, justify="right" if i else "left")
    for step, *counts in steps:
        table.add_row(step, *(f"{count:,}" for count in counts))
    return table


def _say_plan(settings: Prepare, source: RawFiles) -> None:
    for path in dict.fromkeys((source.ratings, source.titles)):
        say(f"would read {path}: {path.stat().st_size / 2**20:.1f} MiB")
    held_out = "each user's newest"
    if settings.split == "global":
        sizes = (settings.test or HELD_OUT, settings.valid or HELD_OUT)
        held_out = "the newest {} for test, {} before for validation".format(*sizes)
    say(
        f"{settings.task} with {settings.min_history} to {settings.history} earlier "
        f"items, core {settings.core}, {held_out}"
    )
    say(f"would write {', '.join((*FILES, MANIFEST))} into {settings.out}")
