"""`goracs evaluate`: a model and test examples in; metrics and predictions out."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from goracs_jax.data.examples import write_jsonl
from goracs_jax.errors import InputError
from goracs_jax.evaluate.metrics import Bootstrap, Estimate
from goracs_jax.files import (
    digest,
    hash_files,
    locked,
    prepare_folder,
    write_json,
)
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.opened import (
    Llm,
    Pool,
    bytes_to_store,
    keep_apart,
    open_llm,
    read_pool,
)
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import UNREADABLE, run_stage
from goracs_jax.settings import Evaluate
from goracs_jax.verbs.rankings import Plan, plan_ctr, plan_seqrec


def evaluate(settings: Evaluate) -> None:
    """Run `goracs evaluate`."""
    check(settings)
    pool = read_pool(settings.test)
    bootstrap = bootstrap_of(settings, pool)
    llm = open_llm(settings.model, settings.adapter, settings.seed, settings.dtype)
    work = settings.out.with_name(settings.out.name + ".work")
    plan = make_plan(settings, pool, llm, work)
    if settings.adapter is None:
        say("no --adapter: the model itself is evaluated, without fine-tuning.")
    identity = {
        "stages": {stage.name: stage.identity for stage in plan.stages},
        "resamples": settings.resamples,
        "seed": settings.seed,
    }
    if _is_current(settings.out, identity):
        say(f"{settings.out} is already done.")
        return
    if settings.dry_run:
        _say_plan(plan, work, len(pool.examples))
        return
    prepare_folder(work, bytes_to_store(plan.rows))
    with locked(work):
        for stage in plan.stages:
            if not stage.is_done(work):
                stage.prepare()
        results = {stage.name: run_stage(work, stage) for stage in plan.stages}
        arrays = {name: result.arrays for name, result in results.items()}
        metrics, predictions = plan.judge(arrays, bootstrap)
        # The metrics of an earlier run go first: they mean that the rest is theirs.
        settings.out.unlink(missing_ok=True)
        write_jsonl(predictions_of(settings.out), predictions)
        users = int(bootstrap.units.max()) + 1
        record = made_by(settings) | {
            "task": settings.task,
            "metrics": {name: found._asdict() for name, found in metrics.items()},
            "interval": "95 %, percentiles of resamples of users",
            "inputs": identity,
            "sizes": {"examples": len(pool.examples), "users": users, **plan.sizes},
            "seconds": {name: result.seconds for name, result in results.items()},
            "predictions": hash_files(predictions_of(settings.out)),
        }
        write_json(settings.out, record)
        shutil.rmtree(work)
    say(_table(metrics))
    say(f"{settings.out}, {predictions_of(settings.out)}")


def predictions_of(metrics: Path) -> Path:
    """The file of predictions beside one of metrics.

    >>> predictions_of(Path("test/before.json")).name
    'before.predictions.jsonl'
    """
    return metrics.with_suffix(".predictions.jsonl")


def check(settings: Evaluate) -> None:
    """Refuse what is wrong whatever the files hold."""
    out = settings.out
    if out.suffix != ".json" or out.is_dir():
        raise InputError(f"--out must be a file that ends in .json, got {out}.")
    sources = (settings.test, settings.items, settings.model, settings.adapter)
    for path in (out, predictions_of(out)):
        keep_apart(path, *sources)
    for name in ("beams", "max_new_tokens", "resamples"):
        if (value := getattr(settings, name)) < 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} must be at least 1, got {value}.")


def make_plan(settings: Evaluate, pool: Pool, llm: Llm, work: Path) -> Plan:
    """What the task needs; bad test examples show now."""
    plan = {"ctr": plan_ctr, "seqrec": plan_seqrec}[settings.task]
    return plan(settings, pool, llm, work)


def bootstrap_of(settings: Evaluate, pool: Pool) -> Bootstrap:
    """Users are drawn where all records name theirs, examples otherwise."""
    users = [example.record.get("user") for example in pool.examples]
    known = all(user is not None for user in users)
    names = (
        [str(user) for user in users] if known else list(map(str, range(len(users))))
    )
    _, units = np.unique(names, return_inverse=True)
    if units.max() < 1:
        raise InputError(
            f"{settings.test} has one user, which leaves no interval: give more."
        )
    return Bootstrap(units, settings.resamples, settings.seed)


def _is_current(out: Path, identity: Mapping[str, Any]) -> bool:
    try:
        record = json.loads(out.read_text())
        same = digest(record["inputs"]) == digest(identity)
        return same and record["predictions"] == hash_files(predictions_of(out))
    except UNREADABLE:
        return False


def _say_plan(plan: Plan, work: Path, examples: int) -> None:
    for stage in plan.stages:
        say(f"{stage.name}: {'done' if stage.is_done(work) else 'to do'}")
    sizes = ", ".join(f"{n:,} {name}" for name, n in plan.sizes.items())
    say(f"{examples:,} examples{', ' if sizes else ''}{sizes}")
    say(f"at most {bytes_to_store(plan.rows) / 2**20:.0f} MiB in {work} until the end")


def _table(metrics: Mapping[str, Estimate]) -> Table:
    table = Table("metric")
    for name in ("value", "95 % from", "to"):
        table.add_column(name, justify="right")
    for name, found in metrics.items():
        table.add_row(name, *(f"{x:.4f}" for x in found))
    return table
