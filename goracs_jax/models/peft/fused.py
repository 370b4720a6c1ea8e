"""Write adapters of layers that the base stores as one matrix."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.fused import rows_of
from goracs_jax.models.lora_config import LoraConfig
from goracs_jax.models.peft.names import PREFIX
from goracs_jax.models.targets import FUSED, LINEAR_NAMES, WHOLE, Site, full_name

Arrays = dict[str, np.ndarray]


def fused_adapter(
    made: Mapping[str, np.ndarray], lora: LoraConfig, config: DecoderConfig
) -> tuple[Arrays, dict[str, Any]]:
    """Return an adapter of wholes that adds what the adapters of their parts add.

    The A of the whole has the rows of all A. Its B has each B in the rows of its part
    and in the columns of its A, and zeros elsewhere:

        [B_q A_q; B_v A_v] = [B_q 0; 0 B_v] [A_q; A_v]

    Its rank is the sum of the ranks, and its scale that of the first part.

    Args:
        made: The tensors of the parts, by their names in a file of PEFT.
        lora: The configuration, resolved.
        config: Sizes of the model.

    Returns:
        The tensors of the wholes, and the fields of adapter_config.json that differ.
    """
    rows, done, sites = rows_of(config), dict(made), list[Site]()
    take = lambda name, layer, part: done.pop(
        f"{PREFIX}{full_name(name, layer)}.lora_{part}.weight"
    )
    for layer in range(config.num_layers):
        groups: dict[str, list[str]] = {}
        for name in LINEAR_NAMES:
            if lora.ranks(name, config.num_layers)[layer]:
                groups.setdefault(WHOLE.get(name, name), []).append(name)
        for whole, names in groups.items():
            scales = [lora.scales(name, config.num_layers)[layer] for name in names]
            first = scales[0] or 1.0
            a = np.concatenate([take(name, layer, "A") for name in names])
            parts = [take(name, layer, "B") for name in names]
            b = parts[0]
            if whole in FUSED:
                height = rows[FUSED[whole][-1]].stop
                b, end = np.zeros((height, len(a)), np.float32), 0
                for name, part, scale in zip(names, parts, scales, strict=True):
                    start, end = end, end + part.shape[1]
                    b[rows[name], start:end] = part * np.float32(scale / first)
            r = len(a)
            alpha = scales[0] * (math.sqrt(r) if lora.rslora else r)
            sites.append(Site(whole, layer, r, alpha))
            stem = f"{PREFIX}{full_name(whole, layer)}.lora_"
            done |= {f"{stem}A.weight": a, f"{stem}B.weight": b}
    return done, _fields(sites, config.num_layers)


def _fields(sites: list[Site], num_layers: int) -> dict[str, Any]:
    names, kinds = {s.name for s in sites}, {(s.r, s.alpha) for s in sites}
    usual = max(sites, key=lambda site: site.r)
    everywhere = len(kinds) == 1 and len(sites) == len(names) * num_layers
    other = [s for s in sites if (s.r, s.alpha) != (usual.r, usual.alpha)]
    return {
        "r": usual.r,
        "lora_alpha": usual.alpha,
        "target_modules": sorted(names) if everywhere else [s.full_name for s in sites],
        "layers_to_transform": None,
        "rank_pattern": {s.full_name: s.r for s in other},
        "alpha_pattern": {s.full_name: s.alpha for s in other},
    }
