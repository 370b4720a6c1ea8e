"""`goracs embed` and `goracs grads`: arrays with one row per example."""

from collections.abc import Mapping
from pathlib import Path

from goracs_jax.errors import InputError
from goracs_jax.jobs.score import (
    Projection,
    Scores,
    embed_stage,
    listed,
    norms_stage,
    run,
)
from goracs_jax.mesh import leads
from goracs_jax.runs.opened import Llm, Pool, open_encoder, open_llm
from goracs_jax.runs.outputs import WIDTH, bytes_to_store, work_folder
from goracs_jax.runs.pools import left_out, limit_of, read_pools, save_left_out
from goracs_jax.runs.reading import scored_in
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Stage, check_stages
from goracs_jax.settings import Embed, Grads
from goracs_jax.settings.outputs import SKIPPED
from goracs_jax.verbs.processes import join_processes


def embed(settings: Embed) -> None:
    """Embed a file of examples."""
    outputs = {"embeddings": settings.out}
    pool = _read(settings, outputs)
    if settings.encoder and not settings.model:
        source = open_encoder(settings.encoder)
    elif settings.model and not settings.encoder:
        source = _open_llm(settings, settings.model)
    else:
        raise InputError("give either --model or --encoder.")
    stage = embed_stage("embeddings", pool, source, settings.labels)
    _run(settings, stage, outputs, pool)


def grads(settings: Grads) -> None:
    """Take the gradient norms of a file of examples, and what else the pass gives."""
    wanted = {
        "norms": settings.out,
        "losses": settings.losses,
        "errors": settings.errors,
        "projections": settings.projections,
    }
    outputs = {name: path for name, path in wanted.items() if path}
    if settings.projection_dim < 1:
        raise InputError(
            f"--projection-dim must be at least 1, got {settings.projection_dim}."
        )
    projection = None
    if settings.projections:
        projection = Projection(
            settings.projection_dim, settings.projection_dtype, settings.seed
        )
    pool = _read(settings, outputs)
    llm = _open_llm(settings, settings.model)
    scored = scored_in(pool, settings.labels)
    stage = norms_stage(pool, llm, settings.which, scored, projection)
    width = 3 + (projection.dim if projection else 0)
    _run(settings, stage, outputs, pool, width)


def _read(settings: Embed | Grads, outputs: Mapping[str, Path]) -> Pool:
    """Join the other processes, check the outputs and read the examples."""
    join_processes(settings)
    for name, out in outputs.items():
        flag = "--out" if out == settings.out else f"--{name}"
        if out.suffix != ".npy" or out.is_dir():
            raise InputError(f"{flag} must be a file that ends in .npy, got {out}.")
    encoder = settings.encoder if isinstance(settings, Embed) else None
    limit = limit_of(settings, settings.model, encoder)
    return read_pools(settings.data, limit=limit, flags=settings)[0]


def _open_llm(settings: Embed | Grads, model: Path) -> Llm:
    s = settings
    remat = s.remat if isinstance(s, Grads) else "products"
    return open_llm(model, s.adapter, s.seed, s, remat=remat, template=s.template)


def _run(
    settings: Embed | Grads,
    stage: Stage,
    outputs: Mapping[str, Path],
    pool: Pool,
    width: int = WIDTH,
) -> None:
    out, work, n_rows = settings.out, work_folder(settings.out), len(pool.examples)
    if settings.dry_run and not Scores.load(outputs, stage):
        check_stages(work, [stage])
        say(f"{stage.name} of {n_rows} examples: to do, into {listed(outputs)}")
        return
    run(stage, outputs, work, bytes_to_store(pool.of_file.of, width), pool)
    if leads() and not settings.dry_run:
        save_left_out(out.with_name(f"{out.name}.{SKIPPED}"), left_out(pool))
