"""Matrices that a checkpoint stores as one, as Phi does with q, k and v.

One matrix [out, in] holds the rows of several linear layers. A model has these layers
apart, so that all that names q_proj or v_proj holds for every family.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.targets import FUSED, WHOLE
from goracs_jax.models.tensors import Slices, Tensors

#: The name of a weight of a whole: of the matrix itself, or of its adapter.
NAME = re.compile(rf"(.*\.)({'|'.join(FUSED)})\.(.*weight)")


def rows_of(config: DecoderConfig) -> dict[str, slice]:
    """Return which rows of its whole each part has.

    >>> rows_of(DecoderConfig.tiny())["up_proj"]
    slice(48, 96, None)
    """
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    widths = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    widths |= dict.fromkeys(FUSED["gate_up_proj"], config.intermediate_size)
    ends = {
        whole: np.cumsum([widths[part] for part in parts]).tolist()
        for whole, parts in FUSED.items()
    }
    return {
        part: slice(end - widths[part], end)
        for whole, parts in FUSED.items()
        for part, end in zip(parts, ends[whole], strict=True)
    }


def split(tensors: Tensors, config: DecoderConfig) -> Tensors:
    """Return the tensors of a checkpoint with the parts of each whole by themselves.

    An adapter of a whole has one A, which becomes that of every part.

    Args:
        tensors: The checkpoint, of a model or of an adapter. A whole of another size
            stays as it is, so that who fills a model with it finds it.
        config: Sizes of the model.
    """
    rows = rows_of(config)
    stored: dict[str, tuple[str, slice]] = {}
    shapes = {}
    for name, shape in tensors.shapes.items():
        found = NAME.fullmatch(name)
        parts = FUSED[found[2]] if found else ()
        shared = "lora_A" in name
        height = max((rows[part].stop for part in parts), default=0)
        if not found or not (shared or shape[:1] == (height,)):
            shapes[name] = shape
            continue
        for part in parts:
            mine = slice(0, shape[0]) if shared else rows[part]
            new = f"{found[1]}{part}.{found[3]}"
            shapes[new] = (mine.stop - mine.start, *shape[1:])
            stored[new] = (name, mine)

    def read(name: str, part: Slices = ()) -> np.ndarray:
        if name not in stored:
            return tensors.read(name, part)
        whole, mine = stored[name]
        first, *rest = part or (slice(None),) * len(shapes[name])
        start, stop, _ = first.indices(mine.stop - mine.start)
        return tensors.read(
            whole, (slice(mine.start + start, mine.start + stop), *rest)
        )

    return Tensors(tensors.where, shapes, read)


def join(
    tensors: Mapping[str, Callable[[], np.ndarray]],
) -> dict[str, Callable[[], np.ndarray]]:
    """Return the tensors of a checkpoint with each whole in one; inverse of `split`.

    >>> one = {"m.gate_proj.weight": lambda: np.ones((2, 3))}
    >>> joined = join(one | {"m.up_proj.weight": lambda: np.zeros((2, 3))})
    >>> {name: make().shape for name, make in joined.items()}
    {'m.gate_up_proj.weight': (4, 3)}
    """
    made = {}
    for name, make in tensors.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        whole = WHOLE.get(part)
        if whole is None:
            made[name] = make
        elif part == FUSED[whole][0]:
            mine = [tensors[f"{stem}.{part}.weight"] for part in FUSED[whole]]
            made[f"{stem}.{whole}.weight"] = lambda mine=mine: np.concatenate(
                [make() for make in mine]
            )
    return made
