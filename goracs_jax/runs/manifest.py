"""What every manifest.json says: settings, versions and machine."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from goracs_jax.settings import Settings

RECORDED = (
    *("jax", "jaxlib", "flax", "optax", "ott-jax", "POT"),
    *("transformers", "numpy", "scipy", "polars"),
)


def made_by(settings: Settings) -> dict[str, Any]:
    """The settings of a run, and with what and on what it ran.

    >>> made_by(Settings(seed=3))["config"]["seed"]
    3
    """
    plain = lambda x: str(x) if isinstance(x, Path) else x
    device = jax.devices()[0]
    return {
        "goracs_jax": version("goracs-jax"),
        "config": {k: plain(v) for k, v in vars(settings).items()},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
    }
