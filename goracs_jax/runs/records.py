"""Small JSON files that describe the results beside them."""

import json
from pathlib import Path
from typing import Any

from goracs_jax.inputs.array_files import BROKEN as UNREADABLE


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where the file is lost, damaged or something else.

    >>> read_record(Path("/proc/none"))
    """
    try:
        found = json.loads(path.read_text())
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None
