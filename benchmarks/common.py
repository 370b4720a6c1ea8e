"""What the benchmarks share: the folder of results, running verbs, measuring."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


PACKAGES = ("jax", "flax", "ott-jax", "POT", "numpy")


def write(name: str, figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write NAME.json in a folder: figures with the machine, versions and commit."""
    device = jax.devices()[0]
    record = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "device": f"{device.platform} {device.device_kind}",
        "cores": len(os.sched_getaffinity(0)),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {package: installed(package) for package in PACKAGES},
        **figures,
    }
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def commit() -> str | None:
    """Return the commit of this checkout, or None where there is none, as in a copy."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=RESULTS.parent
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def installed(package: str) -> str | None:
    """Return the version of a package, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def goracs(*words: object, stdout: int | None = None) -> None:
    """Run a verb in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "goracs_jax", *map(str, words)]
    subprocess.run(command, check=True, stdout=stdout)


def in_own_process(script: str, *words: object) -> dict[str, Any]:
    """Run a script in a fresh process and parse its last line, which is JSON."""
    command = [sys.executable, script, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """Return the peak resident memory in MiB, memory-mapped inputs included.

    Args:
        who: `RUSAGE_SELF` for this process, `RUSAGE_CHILDREN` for the largest of the
            processes that it started and that have ended.
    """
    return resource.getrusage(who).ru_maxrss / 1024


def timed(run: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """Call a function once to compile it and then `repeats` times.

    Returns:
        The last result, the seconds of the first call, and the median seconds of the
        others.
    """
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        result = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    first, *others = seconds
    return result, first, float(np.median(others))
