"""`goracs plan`: what a job takes on some devices, before they are paid for."""

from goracs_jax.files import locked, prepare_folder
from goracs_jax.jobs.plan import PlanConfig, run
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.say import say
from goracs_jax.settings import Plan


def plan(settings: Plan) -> None:
    """Run `goracs plan`."""
    out = settings.out
    config = PlanConfig.of(settings)
    if settings.dry_run:
        say(
            f"{config.train_rows} training, {config.valid_rows} validation examples of "
            f"{config.length} padded tokens on {config.topology.devices} devices of "
            f"{config.topology.kind.name}"
        )
        run(config, compile=False).show()
        say(f"results: {out / 'plan.json'}")
        return
    prepare_folder(out, 1 << 20)
    with locked(out):
        run(config, compile=settings.compile).save(out, made_by(settings))
