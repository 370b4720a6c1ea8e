"""Several processes that run one verb together."""

from goracs_jax.errors import InputError
from goracs_jax.mesh import join
from goracs_jax.settings import Processes


def join_processes(settings: Processes) -> None:
    """Join the other processes, where there are some; call it before anything else.

    Raises:
        InputError: The flags do not say where or how many.
    """
    if settings.coordinator:
        join(settings.coordinator, settings.processes, settings.process)
    elif settings.processes is not None or settings.process is not None:
        raise InputError(
            "--processes and --process need --coordinator, where the processes meet: "
            "give it, or leave them out."
        )
