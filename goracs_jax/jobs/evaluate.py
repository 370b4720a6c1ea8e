"""Evaluation of a model on test examples: metrics with intervals, and predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from rich.table import Table

from goracs_jax.data.examples import read_records, write_jsonl
from goracs_jax.errors import InputError
from goracs_jax.evaluate.calibration import Fitted, is_far_too_sure
from goracs_jax.evaluate.metrics import Bootstrap, Estimate
from goracs_jax.evaluate.outcomes import values_of
from goracs_jax.evaluate.plan import Plan, plan_ctr
from goracs_jax.evaluate.seqrec import RankingConfig, plan_seqrec
from goracs_jax.files import digest, hash_files, together, write_json
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.prompts import Task
from goracs_jax.runs.identity import Identity
from goracs_jax.runs.opened import Llm, Pool, read_pool
from goracs_jax.runs.outputs import work_folder
from goracs_jax.runs.records import UNREADABLE, read_record
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import run_stage
from goracs_jax.settings import Compare, Evaluate

#: Raised when the same arrays are judged by other metrics or under other names.
JUDGEMENT = 2


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What an evaluation depends on, apart from the test examples and the model."""

    task: Task
    items: Path  # the titles of seqrec
    ranking: RankingConfig
    resamples: int
    seed: int
    calibrate_on: Path | None = None  # for ctr; None fits halves of the test users
    columns: tuple[str, ...] | None = None  # what the records call their parts

    @classmethod
    def of(cls, settings: Evaluate) -> "EvaluateConfig":
        """Resolve flags: items.jsonl lies beside the test file unless it is named.

        Raises:
            InputError: A number is too small, the output is no .json file, or seqrec is
                to be calibrated.
        """
        s, out = settings, settings.out
        if out.suffix != ".json" or out.is_dir():
            raise InputError(f"--out must be a file that ends in .json, got {out}.")
        if s.calibrate_on and s.task != "ctr":
            raise InputError("--calibrate-on is for --task ctr: leave it out.")
        for name in ("beams", "max_new_tokens", "resamples"):
            if (value := getattr(s, name)) < 1:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} must be at least 1, got {value}.")
        return cls(
            task=s.task,
            items=s.items or s.test.with_name("items.jsonl"),
            ranking=RankingConfig(
                rank_by=s.rank_by, beams=s.beams, max_new_tokens=s.max_new_tokens
            ),
            resamples=s.resamples,
            seed=s.seed,
            calibrate_on=s.calibrate_on,
            columns=s.columns,
        )


def generated(settings: Evaluate | Compare) -> int:
    """Return how many tokens of the context a generated title needs."""
    generates = settings.task == "seqrec" and settings.rank_by != "likelihood"
    return settings.max_new_tokens if generates else 0


class EvaluateInputs(NamedTuple):
    """The test examples, and what the task computes for them with a model."""

    pool: Pool
    plan: Plan
    bootstrap: Bootstrap
    identity: Identity


class Evaluated(NamedTuple):
    """The metrics of a model, and its predictions, one record per test example."""

    task: Task
    metrics: Mapping[str, Estimate]
    predictions: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, int]
    seconds: Mapping[str, float]  # by stage
    identity: Identity
    diagnostics: Mapping[str, Any]  # the calibration of ctr, the exposure of seqrec

    @property
    def values(self) -> dict[str, Float[np.ndarray, " examples"]]:
        """One value per test example for each metric, whose mean is the metric."""
        return values_of(self.task, self.predictions)

    def save(self, out: Path, made: Mapping[str, Any]) -> None:
        """Write the metrics, and the predictions beside them.

        Args:
            out: The .json file of the metrics.
            made: What made them: settings, versions and machine, as `made_by` gives it.
        """
        record = {
            **made,
            "task": self.task,
            "metrics": {name: found._asdict() for name, found in self.metrics.items()},
            "interval": "95 %, percentiles of resamples of users",
            "diagnostics": self.diagnostics,
            "inputs": self.identity,
            "sizes": self.sizes,
            "seconds": self.seconds,
        }
        names = [predictions_of(out).name, out.name]
        # Other runs may write into the same folder, but none into this one's own.
        with together(out.parent, names, out.name, work_folder(out)) as new:
            write_jsonl(new / names[0], map(dict, self.predictions))
            record["predictions"] = hash_files(new / names[0])
            write_json(new / out.name, record)
        say(_table(self.metrics))
        for note in notes_of(self.diagnostics):
            say(note)
        say(f"{out}, {predictions_of(out)}")

    @classmethod
    def load(cls, out: Path) -> "Evaluated | None":
        """Read a result back; None where a file of it is lost or changed."""
        record = read_record(out) or {}
        try:
            if record["predictions"] != hash_files(predictions_of(out)):
                return None
            metrics = {n: Estimate(**found) for n, found in record["metrics"].items()}
            predictions = read_predictions(predictions_of(out))
            names = ("sizes", "seconds", "inputs", "diagnostics")
            rest = (record[name] for name in names)
            return cls(record["task"], metrics, predictions, *rest)
        except UNREADABLE:
            return None

    def is_of(self, identity: Identity) -> bool:
        """Tell whether the result has this identity."""
        return digest(self.identity) == digest(identity)


def prepare(
    pool: Pool,
    bootstrap: Bootstrap,
    llm: Llm,
    config: EvaluateConfig,
    work: Path,
    lower: LowerTable | None = None,
    read: Callable[[Path], Pool] | None = None,
) -> EvaluateInputs:
    """Plan an evaluation and check the test examples; nothing is computed.

    Args:
        pool: The test examples.
        bootstrap: What the intervals resample.
        llm: The model, with its adapter.
        config: The task and its numbers.
        work: Where stages are kept.
        lower: What the layers below all adapters make of the prompts of ctr, if it was
            kept.
        read: Reads what a calibration is fitted on; by default the whole file.

    Raises:
        InputError: The first example that does not fit the task.
    """
    if config.task == "ctr":
        read = read or partial(read_pool, columns=config.columns)
        target = config.calibrate_on and read(config.calibrate_on)
        plan = plan_ctr(pool, llm, target, lower)
    else:
        plan = plan_seqrec(pool, llm, config.items, config.ranking, work)
    identity = {
        "judgement": JUDGEMENT,
        "stages": {stage.name: stage.identity for stage in plan.stages},
        "resamples": config.resamples,
        "seed": config.seed,
    }
    return EvaluateInputs(pool, plan, bootstrap, identity)


def run(inputs: EvaluateInputs, config: EvaluateConfig, work: Path) -> Evaluated:
    """Evaluate a model; stages that a stopped run has finished are not run again.

    Args:
        inputs: What `prepare` made.
        config: The task and its numbers.
        work: Where stages are kept.
    """
    plan = inputs.plan
    for stage in plan.stages:
        if not stage.is_done(work):
            stage.prepare()
    results = {stage.name: run_stage(work, stage) for stage in plan.stages}
    arrays = {name: result.arrays for name, result in results.items()}
    judged = plan.judge(arrays, inputs.bootstrap)
    users = int(inputs.bootstrap.units.max()) + 1
    rows = inputs.pool.of_file.rows.tolist()  # as the file numbers them
    return Evaluated(
        config.task,
        judged.metrics,
        [p | {"example": rows[p["example"]]} for p in judged.predictions],
        {"examples": len(inputs.pool.examples), "users": users, **plan.sizes},
        {name: result.seconds for name, result in results.items()},
        inputs.identity,
        judged.diagnostics,
    )


def predictions_of(metrics: Path) -> Path:
    """Return the path of the predictions that belong to a file of metrics.

    >>> predictions_of(Path("test/before.json")).name
    'before.predictions.jsonl'
    """
    return metrics.with_suffix(".predictions.jsonl")


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Read a file of predictions, one record per test example."""
    return [example.record for example in read_records(path)]


def users_of(pool: Pool) -> list[str]:
    """Name the user of each example; where not all records do, the example's number."""
    users = [example.record.get("user") for example in pool.examples]
    known = all(user is not None for user in users)
    return list(map(str, users if known else range(len(users))))


def bootstrap_of(pool: Pool, config: EvaluateConfig) -> Bootstrap:
    """Find what intervals resample: the users of the examples.

    Raises:
        InputError: There are fewer than two.
    """
    _, units = np.unique(users_of(pool), return_inverse=True)
    if units.max() < 1:
        raise InputError(
            f"{pool.path} has one user only, too few for an interval: give examples of "
            "more users."
        )
    return Bootstrap(units, config.resamples, config.seed)


def notes_of(diagnostics: Mapping[str, Any]) -> list[str]:
    """Say in a line what the diagnostics of a model tell.

    >>> found = {"fits": [{"a": 0.1, "b": 0.0}], "margin_sd": 7.0}
    >>> notes_of({"calibration": found})
    ['the model is far too sure: its margins (SD 7) fit best when multiplied by 0.1.']
    >>> notes_of({"exposure": {"coverage@10": 0.25, "long_tail_items": 9}})
    ['coverage@10: 25.0 % of all items rank among the ten first of an example.']
    """
    notes = []
    if found := diagnostics.get("calibration"):
        fits = [Fitted(**each) for each in found["fits"]]
        if is_far_too_sure(fits, found["margin_sd"]):
            said = ", ".join(f"{fitted.a:.2g}" for fitted in fits)
            notes.append(
                "the model is far too sure: its margins (SD "
                f"{found['margin_sd']:.2g}) fit best when multiplied by {said}."
            )
    if found := diagnostics.get("exposure"):
        notes.append(
            f"coverage@10: {100 * found['coverage@10']:.1f} % of all items rank among "
            "the ten first of an example."
        )
        if "long_tail_items" not in found:
            notes.append(
                "the long tail is not known: items.jsonl has no `interactions` (goracs "
                "prepare counts them)."
            )
    return notes


def _table(metrics: Mapping[str, Estimate]) -> Table:
    """Make the table of metrics with their intervals, for the terminal."""
    table = Table("metric")
    for name in ("value", "95 % from", "to"):
        table.add_column(name, justify="right")
    for name, found in metrics.items():
        table.add_row(name, *(f"{x:.4f}" for x in found))
    return table
