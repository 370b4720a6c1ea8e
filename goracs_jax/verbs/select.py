"""`goracs select`: from files to indices, coreset, scores, manifest and picture."""

from dataclasses import replace
from pathlib import Path

from goracs_jax.files import locked, prepare_folder
from goracs_jax.jobs.budget import found_budget
from goracs_jax.jobs.classes import say_classes
from goracs_jax.jobs.select import load, run, searches
from goracs_jax.jobs.select_config import SelectConfig
from goracs_jax.jobs.select_inputs import SelectInputs, read_inputs
from goracs_jax.jobs.selected import GridPoint, save_summary
from goracs_jax.report.picture import table
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.outputs import bytes_to_store
from goracs_jax.runs.pools import save_left_out
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import check_stages
from goracs_jax.runs.stopping import Stopping
from goracs_jax.selection.problem import transport_bytes
from goracs_jax.settings import Select
from goracs_jax.settings.outputs import SKIPPED


def select(settings: Select) -> None:
    """Run `goracs select`."""
    inputs, config = read_inputs(settings)
    say_classes(inputs.classes, config.budgets)
    if settings.dry_run:
        _say_plan(settings.out, inputs, config)
        return
    sizes = {"y": inputs.n_valid}  # the first letter of a symbol; others are of N rows
    rows = sum(
        sizes.get(symbol[0], inputs.n_train)
        for symbol, stage in inputs.stages.items()
        if not stage.is_done(settings.out)
    )
    prepare_folder(settings.out, bytes_to_store(rows))
    made = made_by(replace(settings, **config.told), inputs.skipped)
    results, stopping = [], Stopping()
    loaded = curve = None
    with locked(settings.out / "stages"):
        save_left_out(settings.out / SKIPPED, inputs.skipped)
        if not config.budgets:
            loaded = load(inputs, config, settings.out)
            config, curve = found_budget(inputs, config, settings.out, loaded)
            say(f"budget auto: {config.budgets[0]} examples")
        folders = _folders(settings.out, config)
        for selected in run(inputs, config, settings.out, stopping, loaded):
            # A summary says that the folders it names are complete and belong to it.
            (settings.out / "summary.json").unlink(missing_ok=True)
            selected = selected._replace(curve=curve)
            formats = settings.coreset_formats or ()
            selected.save(folders[selected.point], made, formats)
            results.append(selected)
        if len(results) == 1:
            say(table(results[0].table))
        elif not stopping.asked():
            save_summary(settings.out, results)
        stopping.check()


def _folders(out: Path, config: SelectConfig) -> dict[GridPoint, Path]:
    """Find the folder of each grid point; a single one is written to --out itself."""
    points = config.points
    return {p: out / p.name if len(points) > 1 else out for p in points}


def _say_plan(out: Path, inputs: SelectInputs, config: SelectConfig) -> None:
    budgets = ", ".join(map(str, config.budgets)) or "auto"
    say(
        f"{budgets} of {inputs.n_train} training examples for {inputs.n_valid} "
        "validation examples"
    )
    found = searches(inputs, config) if config.budgets else []
    stages = [("", stage) for stage in inputs.stages.values()]
    for point, mine in found:
        place = f"{point.name}: " if len(found) > 1 else ""
        stages += [(place, stage) for stage in mine.values()]
    check_stages(out, inputs.stages.values())
    for place, stage in stages:
        say(f"{place}{stage.name}: {'done' if stage.is_done(out) else 'to do'}")
    for n in sorted(config.budgets)[-1:]:
        mib = transport_bytes(n, inputs.n_valid) / 2**20
        say(f"transport of {n} x {inputs.n_valid}: {mib:.0f} MiB")
    say(f"results: {out}")
