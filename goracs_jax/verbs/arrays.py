"""`goracs embed` and `goracs grads`: arrays with a row per example."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import atomic, digest, hash_files, locked, prepare_folder
from goracs_jax.mesh import join, leads
from goracs_jax.runs.opened import (
    Llm,
    Projection,
    bytes_to_store,
    embed_stage,
    keep_apart,
    norms_stage,
    open_encoder,
    open_llm,
    read_pool,
)
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import UNREADABLE, Stage, run_stage
from goracs_jax.settings import Embed, Grads


def embed(settings: Embed) -> None:
    """Embed a file of examples."""
    _join(settings)
    outputs = {"embeddings": settings.out}
    _check_outputs(settings, outputs, settings.model, settings.encoder)
    pool = read_pool(settings.data)
    if settings.encoder and not settings.model:
        source = open_encoder(settings.encoder)
    elif settings.model and not settings.encoder:
        source = _open_llm(settings, settings.model)
    else:
        raise InputError("give either --model or --encoder.")
    stage = embed_stage("embeddings", pool, source, settings.labels)
    n_rows = len(pool.examples)
    _write(settings, stage, outputs, n_rows, bytes_to_store(n_rows))


def grads(settings: Grads) -> None:
    """Gradient norms of a file of examples, and what else the pass gives."""
    _join(settings)
    wanted = {
        "norms": settings.out,
        "losses": settings.losses,
        "errors": settings.errors,
        "projections": settings.projections,
    }
    outputs = {name: path for name, path in wanted.items() if path}
    _check_outputs(settings, outputs, settings.model)
    if settings.projection_dim < 1:
        raise InputError(
            f"--projection-dim must be at least 1, got {settings.projection_dim}."
        )
    projection = None
    if settings.projections:
        projection = Projection(
            settings.projection_dim, settings.projection_dtype, settings.seed
        )
    pool = read_pool(settings.data)
    llm = _open_llm(settings, settings.model)
    stage = norms_stage(pool, llm, settings.which, settings.labels, projection)
    n_rows, width = len(pool.examples), 3 + (projection.dim if projection else 0)
    _write(settings, stage, outputs, n_rows, bytes_to_store(n_rows, width))


def _join(settings: Embed | Grads) -> None:
    if settings.coordinator:
        join(settings.coordinator, settings.processes, settings.process)


def _open_llm(settings: Embed | Grads, model: Path) -> Llm:
    s = settings
    return open_llm(model, s.adapter, s.seed, s.dtype, s.model_devices)


def _check_outputs(
    settings: Embed | Grads, outputs: dict[str, Path], *models: Path | None
) -> None:
    for name, out in outputs.items():
        flag = "--out" if out == settings.out else f"--{name}"
        if out.suffix != ".npy" or out.is_dir():
            raise InputError(f"{flag} must be a file that ends in .npy, got {out}.")
        keep_apart(out, settings.data, settings.adapter, *models, flag=flag)
    if len({out.resolve() for out in outputs.values()}) < len(outputs):
        raise InputError("two outputs have the same name: give each its own file.")


def _write(
    settings: Embed | Grads,
    stage: Stage,
    outputs: dict[str, Path],
    n_rows: int,
    needed_bytes: int,
) -> None:
    """Run one stage beside the output; only its arrays and their records stay."""
    if all(_is_current(out, stage) for out in outputs.values()):
        say(f"{_listed(outputs)} already done.")
        return
    if settings.dry_run:
        say(f"{stage.name} of {n_rows} examples: to do, into {_listed(outputs)}")
        return
    work = settings.out.with_name(settings.out.name + ".work")
    if leads():
        for out in outputs.values():
            prepare_folder(out.parent, 0)
        prepare_folder(work, needed_bytes)
    with locked(work) if leads() else contextlib.nullcontext():
        stage.prepare()
        result = run_stage(work, stage)
        if not leads():
            return
        for name, out in outputs.items():
            rows = result.arrays[name]
            with atomic(out) as file:
                np.save(file, rows)
            sums = {"inputs": digest(stage.identity), "sha256": hash_files(out)}
            with atomic(_record(out)) as file:
                file.write(
                    json.dumps(sums | {"seconds": result.seconds}, indent=1).encode()
                )
            say(f"{out}: {rows.dtype} {list(rows.shape)}, {result.seconds:.1f} s")
        shutil.rmtree(work)


def _listed(outputs: dict[str, Path]) -> str:
    return ", ".join(map(str, outputs.values()))


def seconds_of(out: Path) -> float:
    """What an array took that `embed` or `grads` wrote."""
    return json.loads(_record(out).read_text())["seconds"]


def _record(out: Path) -> Path:
    return out.with_name(out.name + ".json")


def _is_current(out: Path, stage: Stage) -> bool:
    try:
        record = json.loads(_record(out).read_text())
        same = record["inputs"] == digest(stage.identity)
        return same and record["sha256"] == hash_files(out)
    except UNREADABLE:
        return False
