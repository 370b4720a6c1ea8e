"""`goracs compare`: methods, budgets, lambdas and seeds, in a table and a picture."""

from goracs_jax.comparison import shared, trial
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import measure, read_inputs
from goracs_jax.comparison.trial import TrialFolder, folder_of
from goracs_jax.comparison.written import write
from goracs_jax.errors import InputError
from goracs_jax.files import locked, prepare_folder
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.outputs import bytes_to_store
from goracs_jax.runs.say import say
from goracs_jax.settings import Compare


def compare(settings: Compare) -> None:
    """Run `goracs compare`."""
    out, kept = settings.out, settings.out / "shared"
    inputs = read_inputs(settings)
    places = {each: folder_of(settings, inputs, each) for each in inputs.trials}
    finished = {each: place.finished() for each, place in places.items()}
    todo = [each for each, done in finished.items() if not done]
    missing = todo if settings.finished else []
    if settings.finished:
        _say_finished(settings, len(places), len(todo))
        todo = []
    needed = shared.scorings(settings, inputs, todo)
    if settings.dry_run:
        shared.say_plan(needed, kept)
        _say_plan([places[each] for each in places if each not in missing], todo)
        return
    rows = len(inputs.train.examples) + len(inputs.valid.examples)
    prepare_folder(out, bytes_to_store(rows))
    with locked(out / "cells"):
        if todo:
            sizes = measure(settings, inputs)
            (out / "comparison.json").unlink(missing_ok=True)
            arrays = shared.compute(needed, kept)
            for each in todo:
                number = inputs.trials.index(each) + 1
                say(f"trial {number} of {len(places)}: {each}")
                finished[each] = trial.run(
                    settings, inputs, places[each], arrays, sizes
                )
        table = [(places[each], done) for each, done in finished.items() if done]
        units = inputs.bootstrap.units
        write(out, settings.task, table, missing, units, made_by(settings))


def _say_finished(settings: Compare, total: int, unfinished: int) -> None:
    """Say how many trials the table will have.

    Raises:
        InputError: None is finished.
    """
    if total == unfinished:
        raise InputError(
            f"{settings.out} has no finished trial of this comparison: leave "
            "--finished out to start it."
        )
    say(f"{total - unfinished} of {total} trials are done")


def _say_plan(places: list[TrialFolder], todo: list[Trial]) -> None:
    for place in places:
        started = "started" if place.folder.exists() else "to do"
        state = started if place.trial in todo else "done"
        say(f"{place.trial}: {state}, {place.folder}")
    say(f"{len(places)} trials: {len(places) - len(todo)} done, {len(todo)} to do")
