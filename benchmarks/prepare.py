"""Seconds and peak memory of `goracs prepare` on a million lines of Amazon reviews.

    python benchmarks/prepare.py [--lines N]

The script makes up reviews and titles in the format of Amazon's files of 2023: texts of
realistic lengths, users and items by Zipf's law. It prepares them in a process of its
own, with and without a core, and writes results/prepare.json.
"""

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import goracs, peak_mib, write

ITEMS = 50_000
USERS = 150_000
WORDS = 100  # mean length of a review, drawn from a geometric distribution


def make_reviews(folder: Path, n_lines: int) -> tuple[Path, Path]:
    """Write gzipped files of reviews and of metadata."""
    rng, drawn = np.random.default_rng(0), random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [
        "".join(drawn.choices(letters, k=drawn.randint(2, 9))) for _ in range(5000)
    ]
    text = lambda n: " ".join(drawn.choices(words, k=n))
    # Texts come from a pool. A text that repeats lies beyond the window of gzip.
    pool = [text(length) for length in rng.geometric(1 / WORDS, 20_000).tolist()]
    # The k-th most active user or popular item comes up with probability ~ 1/(k+9)^s.
    popular = lambda n, s: (p := (np.arange(n) + 10.0) ** -s) / p.sum()
    users = rng.choice(USERS, n_lines, p=popular(USERS, 0.6)).tolist()
    items = rng.choice(ITEMS, n_lines, p=popular(ITEMS, 0.8)).tolist()
    reviews, metadata = folder / "reviews.jsonl.gz", folder / "meta.jsonl.gz"
    with gzip.open(reviews, "wt", compresslevel=1) as file:
        for user, item in zip(users, items, strict=True):
            record = {
                "rating": float(drawn.randint(1, 5)),
                "title": text(4),
                "text": drawn.choice(pool),
                "images": [],
                "asin": f"B{item:09d}",
                "parent_asin": f"B{item:09d}",
                "user_id": f"AE{user:026d}",
                "timestamp": drawn.randint(1_200_000_000_000, 1_690_000_000_000),
                "helpful_vote": drawn.randint(0, 9),
                "verified_purchase": True,
            }
            file.write(json.dumps(record) + "\n")
    with gzip.open(metadata, "wt", compresslevel=1) as file:
        for item in range(ITEMS):
            record = {
                "main_category": "Video Games",
                "title": text(9).title(),
                "features": [text(20) for _ in range(4)],
                "description": [text(80)],
                "price": 9.99,
                "parent_asin": f"B{item:09d}",
            }
            file.write(json.dumps(record) + "\n")
    return reviews, metadata


def measure(reviews: Path, metadata: Path, out: Path, *flags: str) -> dict[str, Any]:
    """Measure one run, the start of the interpreter included."""
    inputs = ["--format", "amazon-2023", "--input", reviews, "--metadata", metadata]
    started = time.perf_counter()
    goracs("prepare", "--task", "seqrec", *inputs, "--out", out, *flags)
    seconds = time.perf_counter() - started
    manifest = json.loads((out / "manifest.json").read_text())
    return {
        "seconds": seconds,
        "lines": manifest["inputs"]["ratings"]["lines"],
        "examples": manifest["examples"],
        "items": manifest["items"],
    }


def main() -> None:
    """Make the raw files, prepare them, write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--lines", type=int, default=1_000_000)
    n_lines = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as folder:
        reviews, metadata = make_reviews(Path(folder), n_lines)
        runs = {}
        for name, flags in {"core 5": ["--core", "5"], "no core": []}.items():
            runs[name] = measure(reviews, metadata, Path(folder) / "out", *flags)
            # This is the largest of the runs so far; the runs come in rising order.
            runs[name]["peak_memory_mib"] = peak_mib(resource.RUSAGE_CHILDREN)
            print(name, runs[name])
        sizes = {
            "reviews_mib": reviews.stat().st_size / 2**20,
            "metadata_mib": metadata.stat().st_size / 2**20,
        }
    print(write("prepare", {"lines": n_lines, **sizes, "runs": runs}))


if __name__ == "__main__":
    main()
