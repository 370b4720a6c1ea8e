"""How long help and imports take, beside the released state d9bac63.

    python benchmarks/startup.py [--rounds 7]

Both states run on the same Python, by turns (A B A B), each in a process of its own;
the other state lies in a temporary folder and needs tyro, which it used for its flags.
Writes results/startup.json: seconds by the clock and on the processors. With other
programs on the machine the former rise; ratios within a round stay fair.
"""

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import write

BEFORE = "d9bac63"
HERE = Path(__file__).parents[1]
CODE = {
    "import jax": "import jax",
    "import goracs_jax": "import goracs_jax",
    "import jax, goracs_jax": "import jax, goracs_jax",
    "goracs --help": "-m goracs_jax --help",
    "goracs select --help": "-m goracs_jax select --help",
}


class Seconds(NamedTuple):
    """How long one process took, by the clock and on the processors."""

    wall: float
    cpu: float


def main() -> None:
    """Time every command in both states."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        roots = {"before": unpack(BEFORE, Path(folder)), "now": HERE}
        for name in CODE:  # compiles all bytecode
            for root in roots.values():
                seconds(name, root)
        times = {name: {state: [] for state in roots} for name in CODE}
        for _ in range(rounds):
            for name in CODE:
                for state, root in roots.items():
                    times[name][state].append(seconds(name, root))
    path = write("startup", {"rounds": rounds, "before": BEFORE, **figures(times)})
    print(path.read_text())


def figures(times: dict[str, dict[str, list[Seconds]]]) -> dict:
    """Medians and ranges; ratios and differences are taken within a round."""
    return {
        "seconds": {kind: compared(times, kind) for kind in Seconds._fields},
        "over_import_jax": {
            kind: spread(
                [
                    getattr(both, kind) - getattr(jax, kind)
                    for both, jax in zip(
                        times["import jax, goracs_jax"]["now"],
                        times["import jax"]["now"],
                        strict=True,
                    )
                ]
            )
            for kind in Seconds._fields
        },
    }


def compared(times: dict[str, dict[str, list[Seconds]]], kind: str) -> dict:
    """Seconds of one kind in both states, and their ratios."""
    take = lambda name, state: [getattr(found, kind) for found in times[name][state]]
    ratio = lambda a, b: spread([x / y for x, y in zip(a, b, strict=True)])
    jax = take("import jax", "now")
    return {
        name: {state: spread(take(name, state)) for state in states}
        | {
            "now_to_before": ratio(take(name, "now"), take(name, "before")),
            "now_to_import_jax": ratio(take(name, "now"), jax),
        }
        for name, states in times.items()
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest, to a millisecond."""
    found = {"median": statistics.median(values)}
    found |= {"min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def seconds(name: str, root: Path) -> Seconds:
    """Time one command with the package of a folder."""
    code = CODE[name]
    arguments = code.split() if code.startswith("-m") else ["-c", code]
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - started
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime
    return Seconds(wall, cpu)


def unpack(commit: str, folder: Path) -> Path:
    """Write the package as it was at a commit into a folder."""
    archive = ["git", "archive", commit, "goracs_jax"]
    packed = subprocess.run(archive, cwd=HERE, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


if __name__ == "__main__":
    main()
