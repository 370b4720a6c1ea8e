"""`goracs embed` and `goracs grads`: one array per file of examples."""

import json
import shutil
from pathlib import Path

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import atomic, digest, hash_files, locked, prepare_folder
from goracs_jax.settings import Embed, Grads
from goracs_jax.stages import UNREADABLE, Stage, run_stage
from goracs_jax.verbs.inputs import (
    bytes_to_store,
    embed_stage,
    keep_apart,
    norms_stage,
    open_encoder,
    open_llm,
    read_pool,
)
from goracs_jax.verbs.say import say


def embed(settings: Embed) -> None:
    """Embed a file of examples."""
    _check_out(settings, settings.model, settings.encoder)
    pool = read_pool(settings.data)
    if settings.encoder and not settings.model:
        source = open_encoder(settings.encoder)
    elif settings.model and not settings.encoder:
        source = open_llm(settings.model, settings.adapter, settings.seed)
    else:
        raise InputError("give either --model or --encoder.")
    stage = embed_stage("embeddings", pool, source, settings.labels)
    _write(settings, stage, len(pool.examples))


def grads(settings: Grads) -> None:
    """Gradient norms of a file of examples."""
    _check_out(settings, settings.model)
    pool = read_pool(settings.data)
    llm = open_llm(settings.model, settings.adapter, settings.seed)
    stage = norms_stage(pool, llm, settings.which, settings.labels)
    _write(settings, stage, len(pool.examples))


def _check_out(settings: Embed | Grads, *models: Path | None) -> None:
    out = settings.out
    if out.suffix != ".npy" or out.is_dir():
        raise InputError(f"--out must be a file that ends in .npy, got {out}.")
    keep_apart(out, settings.data, settings.adapter, *models)


def _write(settings: Embed | Grads, stage: Stage, n_rows: int) -> None:
    """Run one stage beside the output file; only its array and a record stay."""
    out = settings.out
    record_path = out.with_name(out.name + ".json")
    if _is_current(out, record_path, stage):
        say(f"{out} is already done.")
        return
    if settings.dry_run:
        say(f"{stage.name} of {n_rows} examples: to do, into {out}")
        return
    work = out.with_name(out.name + ".work")
    prepare_folder(work, bytes_to_store(n_rows))
    with locked(work):
        stage.prepare()
        result = run_stage(work, stage)
        (rows,) = result.arrays.values()
        with atomic(out) as file:
            np.save(file, rows)
        sums = {"inputs": digest(stage.inputs), "sha256": hash_files(out)}
        with atomic(record_path) as file:
            file.write(
                json.dumps(sums | {"seconds": result.seconds}, indent=1).encode()
            )
        shutil.rmtree(work)
    say(f"{out}: {rows.dtype} {list(rows.shape)}, {result.seconds:.1f} s")


def _is_current(out: Path, record_path: Path, stage: Stage) -> bool:
    try:
        record = json.loads(record_path.read_text())
        same = record["inputs"] == digest(stage.inputs)
        return same and record["sha256"] == hash_files(out)
    except UNREADABLE:
        return False
