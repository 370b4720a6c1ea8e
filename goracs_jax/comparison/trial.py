"""One trial: select, fine-tune and evaluate, and keep the results."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from goracs_jax.comparison.cells import METRICS, Finished, TrialFolder
from goracs_jax.comparison.charges import (
    Search,
    Sizes,
    Trained,
    charged,
    training_flops,
)
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.flags import searched
from goracs_jax.comparison.inputs import (
    CompareInputs,
    judged_settings,
    shared_settings,
)
from goracs_jax.comparison.shared import Shared, files_of
from goracs_jax.comparison.steps import steps_for
from goracs_jax.files import hash_files, prepare_folder, write_json
from goracs_jax.jobs import evaluate, finetune, select
from goracs_jax.jobs.classes import say_classes
from goracs_jax.jobs.evaluate import EvaluateConfig, Evaluated
from goracs_jax.jobs.finetuned import Finetuned
from goracs_jax.jobs.selected import Selected
from goracs_jax.jobs.train_config import TrainConfig
from goracs_jax.llm.lower import LowerTable
from goracs_jax.report.picture import table
from goracs_jax.runs.manifest import device, made_by
from goracs_jax.runs.opened import Pool, open_llm, read_pool
from goracs_jax.runs.outputs import bytes_to_store, work_folder
from goracs_jax.runs.reading import tokenize_pool
from goracs_jax.runs.say import say
from goracs_jax.selection.method import Searching
from goracs_jax.settings import Compare, Finetune, Select, Training
from goracs_jax.training.order import Order


def run(
    settings: Compare,
    inputs: CompareInputs,
    place: TrialFolder,
    shared: Shared,
    whole: Sizes,
) -> Finished:
    """Select, fine-tune and evaluate; each part continues where it was stopped.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        place: The trial and its folder; cell.json is the last file in it.
        shared: What the trial selects from.
        whole: The sizes of all examples, by which FLOPs are counted.
    """
    trial, folder = place.trial, place.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "inputs.json", place.inputs)
    drawn = inputs.draws[trial.seed]
    sizes = whole.of(drawn)
    selected, data, rows = None, drawn.train, np.arange(trial.budget)
    if trial.selects:
        selected = _select(settings, inputs, trial, shared, folder / "selection")
        data = read_pool(folder / "selection/coreset.jsonl", settings.columns)
        rows = selected.selection.indices
    lower, tokens = shared.lower, int(sizes.train.tokens[rows].sum())
    tuned = _finetune(settings, inputs, trial, data, folder / "adapter", lower)
    _evaluate(settings, inputs, trial, folder, lower)
    epochs, validations = tuned.valid_epochs[-1], len(tuned.valid_epochs)
    seconds = shared.seconds_of(settings, trial, whole, sizes)
    passes = dim = 0
    if selected:
        seconds["selection"] = _search_seconds(selected, trial)
        passes = 1 + len(selected.selection.trace)  # the first finds max(D)
        assert selected.drawn, "not loaded"
        dim = selected.drawn.train.shape[1]
    seconds["training"] = tuned.seconds
    trained = Trained(rows, tuned.tokens / tokens, validations, tuned.lower_once)
    everything = np.arange(len(sizes.train.tokens))
    finished = Finished(
        trial=trial,
        inputs=place.inputs,
        device=device(),
        chosen_on=device() if selected else None,
        poo=selected and selected.selection.objective,
        valid_loss=tuned.valid_loss,
        epochs=epochs,
        seconds=seconds,
        flops=charged(trial, sizes, trained, Search(passes, dim)),
        epoch_flops=training_flops(sizes, Trained(everything, 1, 1)),
        predictions=hash_files(place.predictions),
    )
    write_json(folder / "cell.json", finished.record())
    return finished


def _select(
    settings: Compare, inputs: CompareInputs, trial: Trial, shared: Shared, out: Path
) -> Selected:
    given, drawn = shared.inputs_for(settings, trial, inputs), inputs.draws[trial.seed]
    files = files_of(settings, trial)
    paths = {k: settings.out / "shared" / kept.file for k, kept in files.items()}
    method = searched(settings, trial.arm.record)
    config = replace(trial.config, method=method, scale=settings.scale)
    flags = Select(
        train=drawn.train.path,
        valid=drawn.valid.path if trial.arm.by_label else None,
        by_label=trial.arm.by_label,
        train_embeddings=paths["x"],
        valid_embeddings=paths["y"],
        grad_norms=paths.get("g"),
        rewards=paths.get("r"),
        errors=paths.get("e"),
        method=trial.arm.method,
        budget=config.budgets,
        lambda_=config.lambdas,
        seed=trial.seed,
        out=out,
        scale=config.scale,
        effort=settings.effort if isinstance(method, Searching) else Select.effort,
        bound=settings.bound if isinstance(method, Searching) else Select.bound,
    )
    flags = replace(flags, **config.told)
    say_classes(given.classes, config.budgets)
    prepare_folder(out, bytes_to_store(0))
    (selected,) = select.run(given, config, out)
    selected.save(out, made_by(flags))
    say(table(selected.table))
    return selected


def _finetune(
    settings: Compare,
    inputs: CompareInputs,
    trial: Trial,
    data: Pool,
    out: Path,
    lower: LowerTable | None,
) -> Finetuned:
    valid = inputs.draws[trial.seed].valid
    shared = shared_settings(settings, Training)
    flags = Finetune(**shared, seed=trial.seed, data=data.path, out=out)
    flags = replace(flags, valid=valid.path)
    if trial.learning_rate is not None:
        flags = replace(flags, learning_rate=trial.learning_rate)
    config = TrainConfig.of(flags, trial.seed).reading(data, flags.labels)
    given = finetune.open_inputs(flags, data, valid, config)
    if settings.tokens is not None:
        tokens = tokenize_pool(data, given.llm, config.scored)
        order, size = Order.of(tokens, trial.seed), config.loop.batch_size
        steps = steps_for(settings.tokens, tokens.lengths, order, size)
        flags = replace(flags, steps=steps)
        config = TrainConfig.of(flags, trial.seed).reading(data, flags.labels)
    prepare_folder(out, finetune.BYTES)
    tuned = finetune.run(given._replace(lower=lower), config, out)
    tuned.save(out, made_by(flags))
    return tuned


def _evaluate(
    settings: Compare,
    inputs: CompareInputs,
    trial: Trial,
    folder: Path,
    lower: LowerTable | None,
) -> Evaluated:
    adapter, out = folder / "adapter", folder / METRICS
    paths = (inputs.test.path, inputs.draws[trial.seed].valid.path)
    flags = judged_settings(settings, out, adapter, trial.seed, *paths)
    config, work = EvaluateConfig.of(flags), work_folder(out)
    llm = open_llm(flags.model, adapter, flags.seed, flags, template=flags.template)
    bootstrap = inputs.bootstrap._replace(seed=flags.seed)
    given = evaluate.prepare(inputs.test, bootstrap, llm, config, work, lower)
    if (found := Evaluated.load(out)) and found.is_of(given.identity):
        return found
    prepare_folder(work, bytes_to_store(given.plan.rows))
    evaluated = evaluate.run(given, config, work)
    evaluated.save(out, made_by(flags))
    shutil.rmtree(work)
    return evaluated


def _search_seconds(selected: Selected, trial: Trial) -> float:
    # A method without needs draws rows; all that follows the draw is for the report.
    if not trial.needs:
        return selected.selection.trace[-1].seconds
    return selected.seconds[f"selection {selected.method}"]
