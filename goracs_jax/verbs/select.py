"""`goracs select`: files in; indices, coreset, scores, manifest and picture out."""

from functools import cache

import numpy as np

from goracs_jax.cost import make_cost, nearest_distances
from goracs_jax.errors import InputError
from goracs_jax.files import locked, prepare_folder
from goracs_jax.report.picture import Row, table
from goracs_jax.runs.opened import bytes_to_store, keep_apart
from goracs_jax.runs.say import say, waiting
from goracs_jax.runs.stages import run_stage
from goracs_jax.selection.method import METHODS
from goracs_jax.selection.problem import check_memory, transport_bytes
from goracs_jax.settings import Select
from goracs_jax.verbs.cells import Cell, Inputs, make_cells, stored_selection
from goracs_jax.verbs.labels import say_classes
from goracs_jax.verbs.results import FILES, Chosen, write_results, write_summary
from goracs_jax.verbs.sources import Source, from_arrays, from_texts

# Settings that name a file.
READ = (
    *("train", "train_embeddings", "train_labels", "grad_norms", "errors"),
    *("valid", "valid_embeddings", "valid_labels"),
)


def select(settings: Select) -> None:
    """Run `goracs select`."""
    if settings.method not in METHODS:
        raise InputError(
            f"--method must be one of {', '.join(METHODS)}, got {settings.method!r}."
        )
    keep_apart(settings.out, settings.model, settings.encoder, settings.adapter)
    by_arrays = settings.train_embeddings or settings.valid_embeddings
    source = from_arrays(settings) if by_arrays else from_texts(settings)
    check_memory(max(settings.budget), source.n_valid)

    @cache
    def inputs() -> Inputs:
        return _compute(settings, source)

    cells = make_cells(settings, source, inputs)
    _keep_inputs(settings, cells)
    if source.labels:
        for budget in settings.budget:
            say_classes(source.labels, budget)
    if settings.dry_run:
        _say_plan(settings, source, cells)
        return
    missing = any(not s.is_done(settings.out) for s in source.stages.values())
    rows = source.n_train + source.n_valid if missing else 0
    prepare_folder(settings.out, bytes_to_store(rows))
    with locked(settings.out / "stages"):
        inputs()  # with all progress bars, before the spinners
        # A summary means that the cells that it names are its own.
        (settings.out / "summary.json").unlink(missing_ok=True)
        made = [_choose(settings, source, cell, inputs()) for cell in cells]
        if len(cells) == 1:
            say(table(made[0]))
        else:
            write_summary(settings, cells, [rows[0] for rows in made])


def _keep_inputs(settings: Select, cells: list[Cell]) -> None:
    """Refuse to write over what is read: a coreset that is chosen from anew."""
    written = {(cell.out / name).resolve() for cell in cells for name in FILES}
    for name in READ:
        path = getattr(settings, name)
        if path and path.resolve() in written:
            raise InputError(
                f"--out {settings.out} would write over the input {path}: choose "
                "another."
            )


def _compute(settings: Select, source: Source) -> Inputs:
    """x, y and g, given or from their stages, and the cost."""
    for stage in source.stages.values():
        if not stage.is_done(settings.out):
            stage.prepare()
    made = {s: run_stage(settings.out, stage) for s, stage in source.stages.items()}
    computed = {s: next(iter(result.arrays.values())) for s, result in made.items()}
    arrays = source.arrays | computed
    if settings.method == "error" and "e" not in arrays:
        arrays["e"] = made["g"].arrays["errors"]  # the LLM's, from the same pass
    cost = make_cost(arrays["x"], arrays["y"], arrays.get("g"), max(source.lambdas))
    seconds = {source.stages[s].name: result.seconds for s, result in made.items()}
    return Inputs(arrays, cost, np.asarray(nearest_distances(cost)), seconds)


def _choose(settings: Select, source: Source, cell: Cell, inputs: Inputs) -> list[Row]:
    """Run the stages of a cell and write its files."""
    chosen = []
    for method, stage in cell.stages.items():
        with waiting(f"{cell.name}: selection by {method}"):
            result = run_stage(settings.out, stage)
        selection = stored_selection(result.arrays)
        chosen.append(Chosen(method, selection, result.seconds))
    return write_results(settings, source, cell, inputs, chosen)


def _say_plan(settings: Select, source: Source, cells: list[Cell]) -> None:
    n_train, n_valid = source.n_train, source.n_valid
    budgets = ", ".join(map(str, settings.budget))
    say(f"{budgets} of {n_train} training examples for {n_valid} validation examples")
    stages = [("", stage) for stage in source.stages.values()]
    for cell in cells:
        place = f"{cell.name}: " if len(cells) > 1 else ""
        stages += [(place, stage) for stage in cell.stages.values()]
    for place, stage in stages:
        state = "done" if stage.is_done(settings.out) else "to do"
        say(f"{place}{stage.name}: {state}")
    n = max(settings.budget)
    say(f"transport of {n} x {n_valid}: {transport_bytes(n, n_valid) / 2**20:.0f} MiB")
    say(f"results: {settings.out}")
