"""What every table is made with: the JSON of a benchmark, and Markdown."""

import json
from pathlib import Path
from typing import Any

from common import RESULTS

ROOT = Path(__file__).parent.parent


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(head), "|---" * len(head) + "|", *map(line, rows)]


def load(name: str) -> dict[str, Any]:
    """Read the figures that a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def pinned(package: str) -> str:
    """Return the version of a package that constraints.txt pins."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.partition("==")[2]
    raise ValueError(f"constraints.txt has no {package}.")
