"""A trial on disk: select, fine-tune and evaluate once, and keep the results."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from goracs_jax.comparison.charges import Sizes, Trained, charged, training_flops
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.entries import Outcome
from goracs_jax.comparison.inputs import (
    CompareInputs,
    judged_settings,
    shared_settings,
)
from goracs_jax.comparison.shared import Shared, path_of
from goracs_jax.evaluate.outcomes import values_of
from goracs_jax.files import digest, hash_files, prepare_folder, write_json
from goracs_jax.jobs import evaluate, finetune, select
from goracs_jax.jobs.classes import say_classes
from goracs_jax.jobs.evaluate import (
    EvaluateConfig,
    Evaluated,
    predictions_of,
    read_predictions,
)
from goracs_jax.jobs.finetune import Finetuned, TrainConfig
from goracs_jax.jobs.select_config import SelectConfig
from goracs_jax.jobs.selected import Selected
from goracs_jax.llm.profile import default_dtype
from goracs_jax.llm.prompts import Task
from goracs_jax.report.picture import table
from goracs_jax.runs.identity import Identity, identity_of
from goracs_jax.runs.manifest import device, made_by
from goracs_jax.runs.opened import open_llm, read_pool
from goracs_jax.runs.outputs import bytes_to_store, work_folder
from goracs_jax.runs.records import UNREADABLE, read_record
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.say import say
from goracs_jax.settings import Compare, Finetune, Select, Training

METRICS = "metrics.json"


class Finished(NamedTuple):
    """What cell.json keeps of a finished trial."""

    trial: Trial
    inputs: Identity
    device: Mapping[str, Any]  # that trained the model
    chosen_on: Mapping[str, Any] | None  # the device that chose the rows
    poo: float | None
    valid_loss: float
    epochs: int
    seconds: Mapping[str, float]
    flops: Mapping[str, float]
    epoch_flops: float  # of an epoch over all training examples, and a validation
    predictions: str  # SHA-256 of their file

    def record(self) -> dict[str, Any]:
        """Return the trial as JSON has it."""
        plain = self._asdict()
        return {"cell": plain.pop("trial")._asdict(), **plain}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Finished":
        """Read what `record` wrote."""
        rest: dict[str, Any] = {name: record[name] for name in cls._fields[1:]}
        return cls(Trial(**record["cell"]), **rest)


class TrialFolder(NamedTuple):
    """A trial, all that it depends on, and its folder."""

    trial: Trial
    inputs: Identity
    folder: Path

    def finished(self) -> Finished | None:
        """Read a finished trial back; None where a file is lost or of another trial."""
        record = read_record(self.folder / "cell.json")
        try:
            if not record or digest(record["inputs"]) != digest(self.inputs):
                return None
            if record["predictions"] != hash_files(self.predictions):
                return None
            return Finished.of(record)
        except (*UNREADABLE, TypeError):
            return None

    @property
    def predictions(self) -> Path:
        """The file of the predictions of the trial's model for the test examples."""
        return predictions_of(self.folder / METRICS)

    def outcome(self, task: Task, finished: Finished) -> Outcome:
        """Read the predictions of a finished trial, and join them with its costs."""
        values = values_of(task, read_predictions(self.predictions))
        costs = (finished.seconds, finished.flops)
        return Outcome(values, finished.valid_loss, *costs)


def folder_of(
    settings: Compare, inputs: CompareInputs, trial: Trial, revision: int | None = None
) -> TrialFolder:
    """Find where a trial is kept; its name depends on settings and contents, not paths.

    Args:
        settings: The flags of the comparison.
        inputs: Its files; the hash of the encoder counts where rows are chosen, because
            POO is reported for every choice.
        trial: The trial.
        revision: The revision of the trial, by default that of all its stages.
    """
    trained = asdict(inputs.training.loop)
    del trained["tokens_per_batch"]  # memory and speed, not the result
    depends_on = {
        **trial._asdict(),
        **{name: sha for name, sha in inputs.hashes.items() if name != "encoder"},
        "dtype": settings.dtype or default_dtype(jax.devices()[0]),
        "labels": inputs.training.scored,
        "training": trained,
        "lora": inputs.training.lora.identity(),
        "task": settings.task,
    }
    if settings.task == "seqrec":
        depends_on |= asdict(inputs.judging.ranking)
    if trial.selects:
        depends_on["encoder"] = inputs.hashes["encoder"]
        depends_on |= select.settings_of(trial.base_method)
    if "gradients" in trial.needs:
        depends_on["gradients_seed"] = settings.seed
    if revision is None:
        revision = revision_of(*_stages(trial, inputs.judging))
    identity = identity_of(depends_on, revision)
    return TrialFolder(trial, identity, settings.out / "cells" / digest(identity)[:16])


def run(
    settings: Compare,
    inputs: CompareInputs,
    place: TrialFolder,
    shared: Shared,
    sizes: Sizes,
) -> Finished:
    """Select, fine-tune and evaluate; each part continues where it was stopped.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        place: The trial and its folder; cell.json is the last file in it.
        shared: What the trial selects from.
        sizes: The sizes that FLOPs are counted by.
    """
    trial, folder = place.trial, place.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "inputs.json", place.inputs)
    selected, data, rows = None, settings.train, np.arange(trial.budget)
    if trial.selects:
        selected = _select(settings, inputs, trial, shared, folder / "selection")
        data, rows = folder / "selection/coreset.jsonl", selected.selection.indices
    tuned = _finetune(settings, inputs, trial, data, folder / "adapter")
    _evaluate(settings, inputs, trial, folder)
    epochs, validations = tuned.valid_epochs[-1], len(tuned.valid_epochs)
    seconds = {need: shared.seconds[need] for need in trial.needs}
    passes = 0
    if selected:
        seconds["selection"] = _search_seconds(selected, trial)
        passes = 1 + len(selected.selection.trace)  # the first finds max(D)
    seconds["training"] = tuned.train_seconds + tuned.valid_seconds
    counts = sizes.train.tokens
    trained = Trained(rows, tuned.tokens / int(counts[rows].sum()), validations)
    everything = np.arange(len(counts))
    finished = Finished(
        trial=trial,
        inputs=place.inputs,
        device=device(),
        chosen_on=device() if selected else None,
        poo=selected and selected.selection.objective,
        valid_loss=tuned.valid_loss,
        epochs=epochs,
        seconds=seconds,
        flops=charged(trial, sizes, trained, passes),
        epoch_flops=training_flops(sizes, Trained(everything, 1, 1)),
        predictions=hash_files(place.predictions),
    )
    write_json(folder / "cell.json", finished.record())
    return finished


def _stages(trial: Trial, judging: EvaluateConfig) -> list[str]:
    """List the kinds of stages that the result of a trial depends on."""
    stages = ["finetune"]
    if trial.selects:
        stages += ["embeddings", f"selection {trial.base_method.name}"]
    if "gradients" in trial.needs:
        stages.append("gradient-norms")
    if judging.task == "ctr":
        return [*stages, "answers"]
    generated = judging.ranking.rank_by != "likelihood"
    return [*stages, "likelihood", *(["generation", "grounding"] * generated)]


def _select(
    settings: Compare, inputs: CompareInputs, trial: Trial, shared: Shared, out: Path
) -> Selected:
    given = shared.inputs_for(trial, inputs)
    arrays = {
        symbol: path_of(settings.out / "shared", symbol) for symbol in given.arrays
    }
    flags = Select(
        train=settings.train,
        valid=settings.valid if trial.by_label else None,
        by_label=trial.by_label,
        train_embeddings=arrays["x"],
        valid_embeddings=arrays["y"],
        grad_norms=arrays.get("g"),
        errors=arrays.get("e"),
        method=trial.base_method.name,
        budget=(trial.budget,),
        lambda_=(trial.lambda_ or 0.0,),
        seed=trial.seed,
        out=out,
    )
    config = SelectConfig.of(flags)
    say_classes(given.classes, config.budgets)
    prepare_folder(out, bytes_to_store(0))
    (selected,) = select.run(given, config, out)
    selected.save(out, made_by(flags))
    say(table(selected.table))
    return selected


def _finetune(
    settings: Compare, inputs: CompareInputs, trial: Trial, data: Path, out: Path
) -> Finetuned:
    shared = shared_settings(settings, Training)
    flags = Finetune(**shared, seed=trial.seed, data=data, out=out)
    config = TrainConfig.of(flags, trial.seed)
    given = finetune.open_inputs(flags, read_pool(data), inputs.valid, config)
    prepare_folder(out, finetune.BYTES)
    tuned = finetune.run(given, config, out)
    tuned.save(out, made_by(flags))
    return tuned


def _evaluate(
    settings: Compare, inputs: CompareInputs, trial: Trial, folder: Path
) -> Evaluated:
    adapter, out = folder / "adapter", folder / METRICS
    flags = judged_settings(settings, out, adapter, trial.seed)
    config, work = EvaluateConfig.of(flags), work_folder(out)
    llm = open_llm(flags.model, adapter, flags.seed, flags)
    bootstrap = inputs.bootstrap._replace(seed=flags.seed)
    given = evaluate.prepare(inputs.test, bootstrap, llm, config, work)
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
