"""`goracs prepare`: from raw interactions to examples, items and a manifest."""

import math
from dataclasses import fields
from typing import Any

from goracs_jax.data.formats import Columns
from goracs_jax.data.raw_files import RawFiles, find_raw_files
from goracs_jax.data.records import Wording
from goracs_jax.data.splits import check_size
from goracs_jax.errors import InputError
from goracs_jax.files import locked, prepare_folder
from goracs_jax.inputs.parts import mib_of
from goracs_jax.jobs.prepare import PrepareConfig, run
from goracs_jax.llm.prompts import read_template
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.say import say
from goracs_jax.settings import Prepare
from goracs_jax.settings.common import Leaks
from goracs_jax.settings.outputs import EXAMPLES, MANIFEST
from goracs_jax.settings.paths import check_paths

#: Examples for test, the newest ones, and for validation, as in the paper.
HELD_OUT = 5_000


def prepare(settings: Prepare) -> None:
    """Run `goracs prepare`."""
    _check(settings)
    s, out = settings, settings.out
    columns = {name: getattr(s, f"{name}_column") for name in Columns._fields}
    files = find_raw_files(s.format, s.input, s.metadata, columns, s.encoding, s.order)
    check_paths(s, files.ratings, files.titles)
    config = _config(s, files)
    say(f"{files.name}: {files.ratings}, titles from {files.titles}")
    if s.dry_run:
        _say_plan(s, files, config)
        found = run(files, config)
        found.show()
        say(found.leaked().text)
        return
    prepare_folder(out, 64 << 20)
    with locked(out):
        run(files, config).save(out, made_by(s))


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
    for name, size in {"valid": settings.valid, "test": settings.test}.items():
        if size is None:
            continue
        if settings.split != "global":
            raise InputError(f"--{name} is for --split global: leave it out.")
        check_size(name, size)


def _config(s: Prepare, files: RawFiles) -> PrepareConfig:
    """Resolve the flags, with the defaults of the raw format and of the paper."""
    if s.repeats == "keep" and files.format.expand:
        raise InputError(
            f"--repeats keep: each line of {files.ratings} lists the user's earlier "
            "items again, which would all count as repeats: leave it out."
        )
    wording = Wording(
        task=s.task,
        noun=s.noun or files.format.noun,
        history=s.history,
        like_above=s.like_above,
        template=read_template(s.template, s.task) if s.template else None,
    )
    names = {field.name for field in fields(PrepareConfig)}
    given: dict[str, Any] = {k: v for k, v in vars(s).items() if k in names}
    sizes = {"valid": s.valid or HELD_OUT, "test": s.test or HELD_OUT}
    leaks = Leaks(leakage=s.leakage, near_copies=s.near_copies)
    given |= sizes | {"wording": wording, "leaks": leaks}
    return PrepareConfig(**given)


def _say_plan(s: Prepare, files: RawFiles, config: PrepareConfig) -> None:
    for path in dict.fromkeys((files.ratings, files.titles)):
        say(f"would read {path}: {mib_of(path):.1f} MiB")
    newest = "each user's newest"
    if s.split == "global":
        sizes = (config.test, config.valid)
        newest = "the newest {} for test, {} before for validation".format(*sizes)
    say(
        f"{s.task} with {s.min_history} to {s.history} earlier items, core {s.core}, "
        f"{newest}"
    )
    say(f"would write {', '.join((*EXAMPLES, MANIFEST))} into {s.out}")
