"""`goracs finetune`: from a coreset and a model to a PEFT folder."""

from functools import partial

from goracs_jax.jobs.finetune import BYTES, open_inputs, run, stage_of
from goracs_jax.jobs.train_config import TrainConfig
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.outputs import working_in
from goracs_jax.runs.pools import left_out, limit_of, read_pools, save_left_out
from goracs_jax.runs.reading import scored_in
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import check_stages
from goracs_jax.settings import Finetune
from goracs_jax.settings.outputs import SKIPPED
from goracs_jax.verbs.events import require_tensorboard, write_events
from goracs_jax.verbs.processes import join_processes


def finetune(settings: Finetune) -> None:
    """Run `goracs finetune`."""
    out = settings.out
    join_processes(settings)
    if settings.tensorboard:
        require_tensorboard()
    config = TrainConfig.of(settings, settings.seed)
    scored = partial(scored_in, labels=settings.labels, default=config.scored)
    limit = limit_of(settings, settings.model, scored=scored)
    paths = (settings.data, settings.valid)
    train, valid = read_pools(*paths, limit=limit, flags=settings)
    config = config.reading(train, settings.labels)
    n_train, n_valid = len(train.examples), len(valid.examples)
    config.check_size(n_train)
    inputs = open_inputs(settings, train, valid, config)
    say(
        f"{n_train} training, {n_valid} validation examples: {_length(config, n_train)}"
    )
    if settings.dry_run:
        stage = stage_of(inputs, config, out)
        check_stages(out, [stage])
        say(f"{stage.name}: {'done' if stage.is_done(out) else 'to do'}")
        say(f"at most {BYTES / 2**20:.0f} MiB on disk; results: {out}")
        return
    with working_in(out, BYTES, lock="stages") as writes:
        tuned = run(inputs, config, out)
        if writes:
            skipped = left_out(train, valid)
            save_left_out(out / SKIPPED, skipped)
            tuned.save(out, made_by(settings, skipped))
        if writes and settings.tensorboard:
            write_events(out / "tensorboard", out / "metrics.jsonl")


def _length(config: TrainConfig, n_train: int) -> str:
    """Say how long a training takes, and what is kept of it."""
    loop = config.loop
    per_epoch = f"{loop.steps_per_epoch(n_train)} steps of {loop.batch_size} per epoch"
    most = "at most " if loop.keep == "best" else ""
    long = f"{loop.steps} steps" if loop.steps else f"{loop.epochs} epochs"
    return f"{per_epoch}, {most}{long}; kept: {loop.keep}"
