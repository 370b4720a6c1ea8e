"""Small JSON files that describe the results beside them."""

import json
import zipfile
from pathlib import Path
from typing import Any

#: What reading a lost or damaged file raises.
UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
    *(RecursionError, OverflowError),
)


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where the file is lost, damaged or something else.

    >>> read_record(Path("/proc/none"))
    """
    try:
        found = json.loads(path.read_text())
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None
