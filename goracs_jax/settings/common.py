"""What the settings of several verbs share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec


def listed(kind: Callable[[str], float | str], name: str) -> PrimitiveConstructorSpec:
    """Numbers or names with commas between them, each once."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{name}[,{name}...]",
        instance_from_str=lambda texts: tuple(
            dict.fromkeys(map(kind, texts[0].split(",")))
        ),
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [
            ",".join(map(str, value)) if value else "None"
        ],
    )


Dtype = Literal["float32", "bfloat16"]
Budgets = Annotated[tuple[int, ...], listed(int, "INT")]
Lambdas = Annotated[
    tuple[float, ...] | None, tyro.conf.arg(name="lambda"), listed(float, "FLOAT")
]
Names = Annotated[tuple[str, ...], listed(str, "NAME")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all verbs share."""

    config: Path | None = None
    """YAML file with flags of this verb, as `budget: 64`; flags given here win."""
    dry_run: bool = False
    """Check the inputs, print the plan (stages, sizes, what is done already), stop."""
    seed: int = 0
    """Seed of everything random: a fresh adapter, sampling."""


@dataclass(frozen=True, kw_only=True)
class Devices(Settings):
    """What verbs share that run on many devices: all that JAX sees are used."""

    model_devices: int = 1
    """Devices over which one copy of the LLM goes; the others take other examples."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes; or auto, under SLURM, MPI, TPU."""
    processes: int | None = None
    """How many processes there are, unless auto; all see the same files."""
    process: int | None = None
    """Which of them this is, from 0, unless auto."""
