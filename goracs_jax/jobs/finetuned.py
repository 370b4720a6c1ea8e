"""How a training went, and the PEFT folder that is made of it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.choices import Keep
from goracs_jax.errors import InputError
from goracs_jax.files import together, write_json
from goracs_jax.runs.say import say
from goracs_jax.settings.outputs import ADAPTER, MANIFEST


class Finetuned(NamedTuple):
    """How a training went, and which adapter was kept."""

    valid_epochs: list[int]  # of each validation
    valid_losses: list[float]
    steps: int
    tokens: int
    train_seconds: float
    valid_seconds: float
    sizes: Mapping[str, int]
    identity: Mapping[str, Any]
    folder: Path  # where the files of the adapter are
    keep: Keep = "best"
    # Stages of earlier versions lack both: all layers ran in every step.
    lower_once: bool = False  # whether the layers below all adapters ran once
    lower_seconds: float = 0.0  # that they took for these texts, if they did

    @property
    def seconds(self) -> float:
        """What steps and validations took, with the states that they read."""
        return self.lower_seconds + self.train_seconds + self.valid_seconds

    @property
    def best(self) -> int:
        """The validation with the lowest loss."""
        return int(np.argmin(self.valid_losses))

    @property
    def kept(self) -> int:
        """The validation of the adapter that was kept: the best, or the last."""
        return self.best if self.keep == "best" else len(self.valid_losses) - 1

    @property
    def valid_loss(self) -> float:
        """The validation loss of the adapter that was kept."""
        return self.valid_losses[self.kept]

    def save(self, out: Path, made: Mapping[str, Any]) -> None:
        """Make a PEFT folder: all of its files appear, or none does.

        Args:
            out: The folder.
            made: What made it: settings, versions and machine, as `made_by` gives it.

        Raises:
            InputError: A file of the finished stage was removed.
        """
        for name in ADAPTER:
            if not (source := self.folder / name).exists():
                raise InputError(
                    f"{source} was removed: remove {self.folder} and run again."
                )
        rate = self.tokens / self.train_seconds
        plain = self._asdict()
        manifest = {
            **made,
            "inputs": plain.pop("identity"),
            "sizes": plain.pop("sizes"),
            "best_epoch": self.valid_epochs[self.best],
            "best_valid_loss": self.valid_losses[self.best],
            "kept_epoch": self.valid_epochs[self.kept],
            "kept_valid_loss": self.valid_loss,
            "tokens_per_second": rate,
            **{name: value for name, value in plain.items() if name != "folder"},
        }
        with together(out, (*ADAPTER, MANIFEST), seal=MANIFEST) as new:
            for name in ADAPTER:
                shutil.copyfile(self.folder / name, new / name)
            write_json(new / MANIFEST, manifest)
        kept = {
            "best": f"best epoch {manifest['best_epoch']} of {self.valid_epochs[-1]}",
            "last": f"last of {self.steps} steps",
            "average": f"average over the last tenth of {self.steps} steps",
        }[self.keep]
        say(f"{kept}: validation loss {self.valid_loss:.4f}; {rate:.0f} tokens/s")
        say(f"{out}: {', '.join([*ADAPTER, MANIFEST])}")

    @classmethod
    def load(cls, out: Path) -> "Finetuned":
        """Read the manifest of a PEFT folder back.

        Raises:
            OSError: There is none.
        """
        found = json.loads((out / "manifest.json").read_text())
        plain = {name: found[name] for name in cls._fields if name in found}
        return cls(**plain, identity=found["inputs"], folder=out)
