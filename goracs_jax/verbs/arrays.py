"""`goracs embed` and `goracs grads`: one array per file of examples."""

import json
import shutil
from pathlib import Path

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import atomic, digest, hash_files, prepare_folder
from goracs_jax.settings import Embed, Grads
from goracs_jax.stages import Stage, run_stage
from goracs_jax.verbs.inputs import (
    embed_stage,
    norms_stage,
    open_encoder,
    open_llm,
    read_pool,
)
from goracs_jax.verbs.say import say


def embed(settings: Embed) -> None:
    """Embed a file of examples."""
    pool = read_pool(settings.data)
    if settings.encoder and not settings.model:
        source = open_encoder(settings.encoder)
    elif settings.model and not settings.encoder:
        source = open_llm(settings.model, None, settings.seed)
    else:
        raise InputError("give either --model or --encoder.")
    _write(
        settings, embed_stage("embeddings", pool, source, settings.labels), "embeddings"
    )


def grads(settings: Grads) -> None:
    """Gradient norms of a file of examples."""
    pool = read_pool(settings.data)
    llm = open_llm(settings.model, settings.adapter, settings.seed)
    _write(settings, norms_stage(pool, llm, settings.which, settings.labels), "norms")


def _write(settings: Embed | Grads, stage: Stage, array: str) -> None:
    """Run one stage beside the output file; only the array and its record stay."""
    out = settings.out
    record_path = out.with_name(out.name + ".json")
    if _is_current(out, record_path, stage):
        say(f"{out} is already done.")
        return
    work = out.with_name(out.name + ".work")
    if settings.dry_run:
        say(f"would compute {stage.name} of {settings.data} into {out}")
        return
    prepare_folder(out.parent, 0)
    stage.prepare()
    result = run_stage(work, stage)
    rows = result.arrays[array]
    with atomic(out) as file:
        np.save(file, rows)
    record = {
        "inputs": digest(stage.inputs),
        "sha256": hash_files(out),
        "seconds": result.seconds,
    }
    with atomic(record_path) as file:
        file.write(json.dumps(record, indent=1).encode())
    shutil.rmtree(work)
    say(f"{out}: {rows.dtype} {list(rows.shape)}, {result.seconds:.1f} s")


def _is_current(out: Path, record_path: Path, stage: Stage) -> bool:
    if not (out.exists() and record_path.exists()):
        return False
    record = json.loads(record_path.read_text())
    return record["inputs"] == digest(stage.inputs) and record["sha256"] == hash_files(
        out
    )
