"""TensorBoard event files out of the records of a training."""

import importlib.util
import json
import shutil
from pathlib import Path

from goracs_jax.errors import InputError

# What a record is about, not what it measures.
PLACES = ("step", "epoch")


def require_tensorboard() -> None:
    """Refuse before work starts.

    Raises:
        InputError: The writer of event files is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "--tensorboard needs an extra package: pip install "
            "'goracs_jax[tensorboard]', or leave the flag out."
        )


def write_events(folder: Path, metrics: Path) -> None:
    """Write every number of metrics.jsonl as a scalar of its step.

    Args:
        folder: Made anew: event files only ever grow.
        metrics: The records.
    """
    from tensorboardX import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for line in metrics.read_text().splitlines():
            record = json.loads(line)
            for name in record.keys() - set(PLACES):
                writer.add_scalar(name, record[name], record["step"])
