"""Write the log of a training as event files of TensorBoard."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

from goracs_jax.errors import InputError

#: The fields of an entry that say where it stands; the others are measured.
PLACES = ("step", "epoch")


def require_tensorboard() -> None:
    """Refuse to start a training whose event files could not be written.

    Raises:
        InputError: The writer of event files is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "--tensorboard needs an extra package: pip install "
            "'goracs_jax[tensorboard]', or leave the flag out."
        )


def write_events(folder: Path, metrics: Path) -> None:
    """Write every number of a training's log as a scalar of its step.

    Args:
        folder: Where they go. It is made anew, because event files only ever grow.
        metrics: The file of the log, metrics.jsonl.
    """
    from tensorboardX import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(os.fspath(folder)) as writer:
        for line in metrics.read_text().splitlines():
            entry = json.loads(line)
            for name in entry.keys() - set(PLACES):
                writer.add_scalar(name, entry[name], entry["step"])
