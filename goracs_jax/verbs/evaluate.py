"""`goracs evaluate`: from a model and test examples to metrics and predictions."""

import shutil
from pathlib import Path

from goracs_jax.evaluate.plan import Plan
from goracs_jax.jobs.evaluate import (
    EvaluateConfig,
    Evaluated,
    bootstrap_of,
    generated,
    prepare,
    run,
)
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.opened import open_llm
from goracs_jax.runs.outputs import bytes_to_store, work_folder, working_in
from goracs_jax.runs.pools import left_out, limit_of, read_pools, save_left_out
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import check_stages
from goracs_jax.settings import Evaluate
from goracs_jax.settings.outputs import SKIPPED
from goracs_jax.verbs.processes import join_processes


def evaluate(settings: Evaluate) -> None:
    """Run `goracs evaluate`."""
    s, out, work = settings, settings.out, work_folder(settings.out)
    join_processes(s)
    config = EvaluateConfig.of(s)
    limit = limit_of(s, s.model, room=generated(s))
    read = lambda path: read_pools(path, limit=limit, flags=s)[0]
    pool = read(s.test)
    bootstrap = bootstrap_of(pool, config)
    llm = open_llm(s.model, s.adapter, s.seed, s, template=s.template)
    inputs = prepare(pool, bootstrap, llm, config, work, read=read)
    if s.adapter is None:
        say("no --adapter: the model itself is evaluated, without fine-tuning.")
    if (found := Evaluated.load(out)) and found.is_of(inputs.identity):
        say(f"{out} is already done.")
        return
    if s.dry_run:
        _say_plan(inputs.plan, work, len(pool.examples))
        return
    with working_in(work, bytes_to_store(inputs.plan.rows)) as writes:
        evaluated = run(inputs, config, work)
        if writes:
            skipped = left_out(pool)
            save_left_out(out.with_name(f"{out.name}.{SKIPPED}"), skipped)
            evaluated.save(out, made_by(s, skipped))
            shutil.rmtree(work)


def _say_plan(plan: Plan, work: Path, examples: int) -> None:
    check_stages(work, plan.stages)
    for stage in plan.stages:
        say(f"{stage.name}: {'done' if stage.is_done(work) else 'to do'}")
    sizes = ", ".join(f"{n:,} {name}" for name, n in plan.sizes.items())
    say(f"{examples:,} examples{', ' if sizes else ''}{sizes}")
    say(f"at most {bytes_to_store(plan.rows) / 2**20:.0f} MiB in {work} until the end")
