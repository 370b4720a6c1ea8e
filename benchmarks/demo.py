"""Wall time, peak memory and result of `goracs demo` at its default sizes.

    python benchmarks/demo.py

The script writes results/demo.json and results/demo.png, the picture of the README.
"""

import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

from common import RESULTS, goracs, peak_mib, write

from goracs_jax.data.demo import fetch


def main() -> None:
    """Run the demo as a user would, in a fresh folder, after its downloads."""
    fetch()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        started = time.perf_counter()
        goracs("demo", "--out", out)
        wall = time.perf_counter() - started
        peak = peak_mib(resource.RUSAGE_CHILDREN)
        manifest = json.loads((out / "manifest.json").read_text())
        shutil.copy(out / "report.png", RESULTS / "demo.png")
    keep = ("sizes", "poo", "lower_bound", "trace", "table", "seconds")
    figures = {"wall_seconds": wall, "peak_memory_mib": peak}
    figures |= {"budget": manifest["config"]["budget"]}
    figures |= {"lambda": manifest["config"]["lambda_"]}
    print(write("demo", figures | {key: manifest[key] for key in keep}))


if __name__ == "__main__":
    main()
