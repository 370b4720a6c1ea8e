"""What every manifest.json records: the settings, the versions and the machine."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from goracs_jax.data.skipped import Skipped, counts_of
from goracs_jax.settings import Settings

RECORDED = (
    *("jax", "jaxlib", "flax", "optax", "ott-jax", "POT"),
    *("transformers", "numpy", "scipy", "polars"),
)


def made_by(settings: Settings, skipped: Sequence[Skipped] = ()) -> dict[str, Any]:
    """Record the settings of a run, the versions that it used and the machine.

    Args:
        settings: The flags.
        skipped: The records that were left out; they are counted if there are any.

    >>> made_by(Settings(seed=3))["config"]["seed"]
    3
    """
    plain = lambda x: str(x) if isinstance(x, Path) else x
    counts = counts_of(skipped)
    return {
        "goracs_jax": version("goracs-jax"),
        "config": {k: plain(v) for k, v in vars(settings).items()},
        "device": device(),
        "repeatable": repeatable(jax.devices()[0].platform),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
        **({"left_out": counts} if counts else {}),
    }


def device() -> dict[str, Any]:
    """Describe the machine and its devices.

    >>> sorted(device())
    ['count', 'kind', 'machine', 'platform']
    """
    first, *others = jax.devices()
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": 1 + len(others),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def repeatable(platform: str) -> bool:
    """Tell whether a second run on such devices would write the same bytes.

    CPUs and TPUs add in a fixed order. On a GPU a scatter adds in no fixed order, and
    XLA times several kernels for a matrix product and keeps the fastest, which need not
    be the same one in every run. Its flag --xla_gpu_deterministic_ops forbids both
    (XLA's documentation, "Determinism").

    >>> repeatable("cpu"), repeatable("gpu")
    (True, False)
    """
    flags = os.environ.get("XLA_FLAGS", "")
    fixed = re.search(r"--xla_gpu_deterministic_ops(=true|=1)?(\s|$)", flags)
    return platform != "gpu" or fixed is not None
