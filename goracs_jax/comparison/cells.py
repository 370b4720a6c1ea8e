"""The folder of a trial: what names it, and what a finished one has left."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax

from goracs_jax.comparison.design import COSTS, Trial
from goracs_jax.comparison.entries import Outcome
from goracs_jax.comparison.flags import searched
from goracs_jax.comparison.inputs import CompareInputs, is_calibrated_by_target
from goracs_jax.comparison.shared import seed_of
from goracs_jax.evaluate.metrics import Units
from goracs_jax.evaluate.outcomes import values_of
from goracs_jax.files import digest, hash_files
from goracs_jax.jobs import select
from goracs_jax.jobs.evaluate import EvaluateConfig, predictions_of, read_predictions
from goracs_jax.llm.profile import default_dtype
from goracs_jax.llm.prompts import Task
from goracs_jax.runs.identity import Identity, identity_of
from goracs_jax.runs.records import UNREADABLE, read_record
from goracs_jax.runs.revisions import revision_of
from goracs_jax.settings import Compare

METRICS = "metrics.json"
#: Passes of the language model with gradients.
OF_GRADIENTS = [name for name, cost in COSTS.items() if cost == "gradients"]


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
        trial: Trial = plain.pop("trial")
        tuned = {"learning_rate": trial.learning_rate}
        return {"cell": trial.key | (tuned if trial.learning_rate else {}), **plain}

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
            return Finished.of(record)._replace(trial=self.trial)
        except (*UNREADABLE, TypeError):
            return None

    @property
    def predictions(self) -> Path:
        """The file of the predictions of the trial's model for the test examples."""
        return predictions_of(self.folder / METRICS)

    def outcome(self, task: Task, finished: Finished, units: Units) -> Outcome:
        """Read the predictions of a finished trial, and join them with its costs."""
        values = values_of(task, read_predictions(self.predictions), units)
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
    if trial.learning_rate is not None:
        trained["learning_rate"] = trial.learning_rate
    if settings.tokens is not None:
        trained |= {"steps": None, "tokens": settings.tokens}
    depends_on = {
        **trial.key,
        **inputs.hashes_of(trial),
        "dtype": settings.dtype or default_dtype(jax.devices()[0]),
        "labels": inputs.training.scored,
        "training": trained,
        "lora": inputs.training.lora.identity(),
        "task": settings.task,
    }
    if settings.task == "seqrec":
        depends_on |= asdict(inputs.judging.ranking)
    if is_calibrated_by_target(settings):
        depends_on["calibrated_on"] = "target"
    if trial.selects:
        depends_on["encoder"] = inputs.hashes["encoder"]
        depends_on |= select.settings_of(searched(settings, trial.arm.record))
    depends_on |= _of_rows(settings, inputs, trial)
    if trial.selects and settings.scale != "max":
        depends_on["scale"] = settings.scale
    if revision is None:
        revision = revision_of(*_stages(trial, inputs.judging))
    identity = identity_of(depends_on, revision)
    return TrialFolder(trial, identity, settings.out / "cells" / digest(identity)[:16])


def _of_rows(s: Compare, inputs: CompareInputs, trial: Trial) -> dict[str, Any]:
    """Return what the rows and rewards of a trial depend on beside its files.

    Names are those of cells that exist; what is new is named where it is asked for.
    """
    found: dict[str, Any] = {}
    if "gradients" in trial.needs:
        seeds = [seed_of(s, trial, name) for name in trial.paid if name in OF_GRADIENTS]
        own = next((seed for seed in seeds if seed is not None), s.seed)
        found["gradients_seed"] = own
    if {"gradient", "subspace"} & {*trial.passes}:
        found["projection_dim"] = s.projection_dim
    # Objectives are reported of rows that were not paid for, too.
    if s.adapter_from_pool is not None and {*trial.passes} - {"text"}:
        found |= {
            "adapter_from_pool": s.adapter_from_pool,
            "adapter_seed": s.seed,
            "adapter_data": inputs.train.sha256,  # all of it, whatever a seed draws
            "preconditioner": s.preconditioner,
        }
    return found


def _stages(trial: Trial, judging: EvaluateConfig) -> list[str]:
    """List the kinds of stages that the result of a trial depends on."""
    stages = ["finetune"]
    if trial.selects:
        stages += ["embeddings", f"selection {trial.arm.method}"]
    if "gradients" in trial.needs:
        stages.append("gradient-norms")
    if judging.task == "ctr":
        return [*stages, "answers"]
    generated = judging.ranking.rank_by != "likelihood"
    return [*stages, "likelihood", *(["generation", "grounding"] * generated)]
