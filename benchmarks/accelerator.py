"""One script for a few minutes on an accelerator, most important figures first.

    python benchmarks/accelerator.py [--minutes 6] [--pieces DIR] [--parts ...]

The parts run in this order: the device's ceilings; the programs of a selection on
88,000 x 22,000 rows; gradient norms of SmolLM2-135M and of a random Llama of 7B shape;
Sinkhorn and POT; a LoRA training step, and that of torch + PEFT; 16 adapters at once;
evaluation; a selection from its start to its end. Programs are timed beside the seconds
that their FLOPs and bytes take at the peaks that the maker of the device publishes.
After every figure the script writes results/accelerator_KIND.json, and a copy into the
folder that the variable OUT names. It stops when the minutes are over. What could not
be done is in the JSON as `not_done`, with the reason.

On a CPU the sizes are smaller; --tiny makes them smallest. --pieces names the folder
that ship.py filled; without it, weights and tokens are random. The script needs JAX and
the packages that ship.py lists.
"""

import argparse
import contextlib
import os
import re
import shutil
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from accelerator_given import CPU, FULL, TINY, Given
from accelerator_models import Figures, evaluation, gradients
from accelerator_selection import selection, transports, whole_selection
from accelerator_training import adapters, training
from common import RESULTS, write

from goracs_jax.devices import kind_of
from goracs_jax.errors import InputError


def ceilings(given: Given) -> Figures:
    """Measure products and a copy, beside what the maker publishes."""
    yield "measured", given.measured._asdict()
    yield "floors are by", given.ceiling._asdict()


PARTS = {
    "ceilings": ceilings,
    "selection": selection,
    "gradient norms": gradients,
    "transports": transports,
    "LoRA training": training,
    "adapters": adapters,
    "evaluation": evaluation,
    "whole selection": whole_selection,
}
MODELS = ("small", "large")  # fields of the sizes that are no numbers


class Record:
    """The figures so far, written to disk after each of them."""

    def __init__(self, name: str, folder: Path, **about: Any):
        self.name, self.folder, self.about = name, folder, about
        self.parts: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    def add(self, part: str, step: str, figures: Any) -> None:
        """Add one entry to a part; write all, and a copy where OUT says."""
        with self.lock:
            self.parts.setdefault(part, {})[step] = figures
            path = write(self.name, {**self.about, "parts": self.parts}, self.folder)
            if out := os.environ.get("OUT"):
                shutil.copy(path, out)
        print(f"{part}, {step}: {figures}", flush=True)

    def stop_after(self, seconds: float, parts: Sequence[str]) -> None:
        """End the process after some seconds, whatever it is doing then."""

        def stop() -> None:
            begun = list(self.parts)
            for part in begun[-1:] + [part for part in parts if part not in begun]:
                self.add(part, "not_done", "the minutes are over")
            os._exit(0)

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()

    def run(self, name: str, given: Given) -> bool:
        """Run a part and return whether it ended as it should."""
        self.parts[name] = {}
        try:
            for step, figures in PARTS[name](given):
                self.add(name, step, figures)
        except Exception as error:  # noqa: BLE001  the other parts are still to run
            traceback.print_exc()
            self.add(name, "not_done", f"{type(error).__name__}: {error}"[:300])
            return False
        return True


def kind_name() -> str:
    """Return what files of this device are called."""
    seen = jax.devices()[0].device_kind
    try:
        return kind_of(seen).name
    except InputError:
        return re.sub(r"\W+", "_", seen.lower())


def main() -> None:
    """Run the parts in order; exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pieces", type=Path, help="the folder that ship.py filled")
    parser.add_argument("--instance", type=Path, help=".npz as of selection.py")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument(
        "--profile", type=Path, help="folder of traces of the parts, and of the JSON"
    )
    flags = parser.parse_args()
    ends = time.monotonic() + 60 * flags.minutes
    on_cpu = jax.default_backend() == "cpu"
    sizes = TINY if flags.tiny else CPU if on_cpu else FULL
    given = Given(
        sizes=sizes,
        seconds_left=lambda: ends - time.monotonic(),
        instance=flags.instance,
        pieces=flags.pieces,
    )
    record = Record(
        f"accelerator_{kind_name()}{'_tiny' * flags.tiny}",
        flags.profile or flags.out,
        minutes=flags.minutes,
        profiled=bool(flags.profile),
        sizes={k: v for k, v in sizes._asdict().items() if k not in MODELS},
    )
    record.stop_after(60 * flags.minutes, flags.parts)
    failed = []
    for name in flags.parts:
        traced = contextlib.nullcontext()
        if flags.profile:
            traced = jax.profiler.trace(str(flags.profile / name.replace(" ", "_")))
        with traced:
            failed += [] if record.run(name, given) else [name]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
