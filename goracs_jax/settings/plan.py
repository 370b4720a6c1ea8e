"""Settings of the verb that plans a job before it is paid for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from goracs_jax.settings.common import Backward, Hub, Machine, Settings
from goracs_jax.settings.flags import Flag
from goracs_jax.settings.outputs import PlanOut


@dataclass(frozen=True, kw_only=True)
class _Job:
    """How the job runs."""

    group: ClassVar[str] = "job"

    scored_tokens: int | None = None
    """Number of tokens of an example that the loss scores, as with --labels answer; all
    of them if left out."""
    epochs: int = 50
    """Number of epochs of the fine-tuning."""
    batch_size: int = 128
    """Number of examples of one step of the fine-tuning."""
    compile: bool = True
    """Compile the programs for the topology, where its compiler is installed
    (goracs_jax[tpu], goracs_jax[cuda]); without it, or with --no-compile, the plan is
    made by formulas."""


@dataclass(frozen=True, kw_only=True)
class Plan(_Job, Machine, Hub, Backward, Settings):
    """Say what a job takes on other devices: memory, hours and dollars of each stage.

    Nothing of the job is run, and the devices need not be at hand. The low end of a
    range is what the published peaks allow; the high end is at 30 % of the peak, with
    memory and exchanges between devices waited for.
    """

    group: ClassVar[str] = "job"

    topology: Annotated[str, Flag(metavar="KIND:SHAPE")]
    """Devices: chips of a TPU such as v5e:16x16, v6e:8x8, v5p:4x4x4 or tpu7x:2x2x1,
    GPUs such as h100:8, h200:8, a100:8 or b200:8; or those at hand (here)."""
    model: Path
    """LLM: a Hugging Face folder, of which config.json is enough, a .gguf file, or
    organisation/model on the hub."""
    train_rows: int
    """Number of training examples."""
    valid_rows: int
    """Number of validation examples."""
    row_tokens: int
    """Number of tokens of an example."""
    budget: int
    """Number n of examples to choose."""
    out: PlanOut
    """Folder for plan.json."""
