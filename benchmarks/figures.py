"""What all tables are made with: the JSON of a benchmark, and Markdown."""

import json
from typing import Any

from common import RESULTS


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(head), "|---" * len(head) + "|", *map(line, rows)]


def load(name: str) -> dict[str, Any]:
    """The figures that a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())
