"""Wall time, peak memory and result of `goracs demo` at its default sizes.

    python benchmarks/demo.py

Writes results/demo.json and results/demo.png, the picture of the README.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RESULTS, write

from goracs_jax.data.demo import fetch


def main() -> None:
    """Run the demo as a user would, in a fresh folder, with its downloads at hand."""
    fetch()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "goracs_jax", "demo", "--out", str(out)], check=True
        )
        wall = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        manifest = json.loads((out / "manifest.json").read_text())
        shutil.copy(out / "report.png", RESULTS / "demo.png")
    keep = ("sizes", "poo", "lower_bound", "trace", "table", "seconds")
    figures = {"wall_seconds": wall, "peak_memory_mib": peak}
    figures |= {"budget": manifest["config"]["budget"]}
    figures |= {"lambda": manifest["config"]["lambda_"]}
    print(write("demo", figures | {key: manifest[key] for key in keep}))


if __name__ == "__main__":
    main()
