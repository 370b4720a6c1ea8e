"""What every table is made with: the JSON of a benchmark, and Markdown."""

import json
from typing import Any

from common import RESULTS


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(head), "|---" * len(head) + "|", *map(line, rows)]


def load(name: str) -> dict[str, Any]:
    """Read the figures that a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())
