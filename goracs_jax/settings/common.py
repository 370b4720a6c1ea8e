"""Settings that several verbs share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from goracs_jax.settings.flags import Flag

Budgets = Annotated[tuple[int, ...], Flag(each=int, metavar="INT")]
Names = Annotated[tuple[str, ...], Flag(each=str, metavar="NAME")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all verbs share."""

    group: ClassVar[str] = "run"

    config: Path | None = None
    """YAML file with flags of this verb, such as `budget: 64`; flags that are typed
    override the file."""
    dry_run: bool = False
    """Check the inputs, print the plan (stages, sizes, what is done already) and
    stop."""
    seed: int = 0
    """Seed of everything that is drawn at random, in [0, 2**32 - 1]."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The settings of verbs that run on many devices; they use all that JAX sees."""

    group: ClassVar[str] = "devices and processes"

    model_devices: int = 1
    """Number of devices that share one copy of the LLM; each such group of devices
    takes other examples."""
    coordinator: Annotated[str | None, Flag(metavar="HOST:PORT")] = None
    """Address of the first of several processes, or auto under SLURM, MPI or on TPUs;
    without it one process runs alone."""
    processes: int | None = None
    """Number of processes, all of which see the same files; not needed with auto."""
    process: int | None = None
    """Number of this process, counted from 0; not needed with auto."""
