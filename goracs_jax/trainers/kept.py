"""Results with one row per example that are kept on disk, so that a run can resume."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from goracs_jax.buckets import writable
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.passes import map_batches
from goracs_jax.runs.outputs import working_in
from goracs_jax.runs.stages import Arrays, Stage, run_stage

#: The folder for results that have an identity, unless another is given.
OUT = Path("goracs-out")


def compute_or_read(
    name: str,
    identity: Any,
    out: str | Path,
    inputs: Mapping[str, Any],
    compute: Callable[[Mapper], Arrays],
    needed_bytes: int,
) -> Arrays:
    """Compute arrays; with an identity, keep their parts, or read back what is kept.

    Args:
        name: What is computed.
        identity: A JSON value that names the inputs; None keeps nothing.
        out: The folder; the result goes to its `stages/NAME-...`.
        inputs: What else the arrays depend on, besides what the identity names.
        compute: From a mapper over batches to arrays by name.
        needed_bytes: What the disk must have room for.

    Raises:
        InputError: The identity is no JSON value, or the folder cannot be written.
    """
    if identity is None:
        return compute(map_batches)
    inputs = {"identity": identity, **inputs}
    try:
        digest(inputs)
    except TypeError as error:
        raise InputError(
            f"identity must be text, numbers, or lists and dicts of them ({error})."
        ) from None
    with writable(out) as folder, working_in(folder, needed_bytes):
        return run_stage(folder, Stage(name, inputs, compute)).arrays
