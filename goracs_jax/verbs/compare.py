"""`goracs compare`: methods, budgets, lambdas and seeds, in a table and a picture."""

from goracs_jax.buckets import deliver
from goracs_jax.comparison import shared, trial
from goracs_jax.comparison.cells import folder_of
from goracs_jax.comparison.drawn import write_pools
from goracs_jax.comparison.inputs import CompareInputs, measure, read_inputs
from goracs_jax.comparison.lower import lower_states
from goracs_jax.comparison.progress import Progress, unfinished
from goracs_jax.comparison.protocol import Protocol
from goracs_jax.comparison.written import write
from goracs_jax.errors import InputError
from goracs_jax.files import locked, prepare_folder
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.outputs import bytes_to_store
from goracs_jax.runs.pools import save_left_out
from goracs_jax.runs.say import say
from goracs_jax.settings import Compare
from goracs_jax.settings.outputs import SKIPPED


def compare(settings: Compare) -> None:
    """Run `goracs compare`."""
    out, kept = settings.out, settings.out / "shared"
    inputs = read_inputs(settings)
    now = Progress.of(settings, inputs)
    if settings.finished:
        _say_finished(settings, now)
    todo = [] if settings.finished else now.todo
    if settings.dry_run:
        if todo:
            measure(settings, inputs)
        shared.say_plan(shared.scorings(settings, inputs, todo), kept)
        _say_plan(settings, inputs, now)
        return
    rows = len(inputs.train.examples) + len(inputs.valid.examples)
    prepare_folder(out, bytes_to_store(rows))
    with locked(out / "cells"):
        if todo:
            now = _run(settings, inputs, now)
        table = [(folder_of(settings, inputs, t), d) for t, d in now.found.items() if d]
        missing = [*unfinished(now.found), *now.untuned]
        protocol = Protocol.of(settings, inputs, now.tuned)
        save_left_out(out / SKIPPED, inputs.skipped)
        units, made = inputs.bootstrap.units, made_by(settings, inputs.skipped)
        made["leakage"] = inputs.leaked._asdict()
        write(out, settings.task, table, missing, protocol, units, made)


def _run(settings: Compare, inputs: CompareInputs, now: Progress) -> Progress:
    """Run the trials that are not done: first those that tune, then all others."""
    out, kept = settings.out, settings.out / "shared"
    sizes = measure(settings, inputs)
    (out / "comparison.json").unlink(missing_ok=True)
    write_pools(inputs.pools, kept)
    needed = shared.scorings(settings, inputs, now.todo)
    arrays = shared.compute(needed, kept)
    lower = lower_states(settings, inputs, now.todo, kept)
    arrays = arrays._replace(lower=lower)
    total = len(inputs.tuning) + len(inputs.trials)
    for phase in ("tuning", "found"):
        trials = list(getattr(now, phase))
        before = 0 if phase == "tuning" else len(inputs.tuning)
        for each in unfinished(getattr(now, phase)):
            say(f"trial {before + trials.index(each) + 1} of {total}: {each}")
            place = folder_of(settings, inputs, each)
            trial.run(settings, inputs, place, arrays, sizes)
            deliver(place.folder)
        now = Progress.of(settings, inputs)
    return now


def _say_finished(settings: Compare, now: Progress) -> None:
    """Say how many trials the table will have.

    Raises:
        InputError: None is finished.
    """
    done = len(now.found) - len(unfinished(now.found))
    if not done:
        raise InputError(
            f"{settings.out} has no finished trial of this comparison: leave "
            "--finished out to start it."
        )
    say(f"{done} of {len(now.found) + len(now.untuned)} trials are done")


def _say_plan(settings: Compare, inputs: CompareInputs, now: Progress) -> None:
    """Say which trials are done; with --finished, only of those that are."""
    listed = now.tuning | now.found
    for each, done in listed.items():
        if done or not settings.finished:
            folder = folder_of(settings, inputs, each).folder
            started = "started" if folder.exists() else "to do"
            say(f"{each}: {'done' if done else started}, {folder}")
    if settings.finished:
        return
    for each in now.untuned:
        say(f"{each}: to do, once its learning rate is tuned")
    total, todo = len(listed) + len(now.untuned), len(now.todo)
    say(f"{total} trials: {total - todo} done, {todo} to do")
