"""The folder of what can be fetched or computed again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `GORACS_CACHE`, or the folder goracs_jax in the user's cache home."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("GORACS_CACHE") or home / "goracs_jax")
