"""Several processes that run one verb together."""

from goracs_jax.mesh import join
from goracs_jax.settings import Processes


def join_processes(settings: Processes) -> None:
    """Join the other processes, where there are some; call it before anything else.

    Raises:
        InputError: The flags do not say how many.
    """
    if settings.coordinator:
        join(settings.coordinator, settings.processes, settings.process)
