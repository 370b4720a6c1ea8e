"""How a sentence-transformers folder turns token states into one vector."""

import json
from pathlib import Path
from typing import Any

from goracs_jax.errors import InputError
from goracs_jax.models.tensors import read_json


def sentence_options(folder: Path) -> dict[str, Any]:
    """Reads pooling, normalisation and length from a sentence-transformers folder.

    Args:
        folder: The model folder; a plain Hugging Face folder has no modules.json and
            gives no options.

    Returns:
        Keyword arguments of `EncoderConfig.from_hf`.

    Raises:
        InputError: If modules.json names a step other than Transformer, Pooling and
            Normalize, or the pooling is neither mean nor cls.

    >>> sentence_options(Path("no modules.json here"))
    {}
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return {}
    options: dict[str, Any] = {}
    for module in _modules(listing):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Transformer":
            options |= _length(folder / "sentence_bert_config.json")
        elif kind == "Pooling":
            where = folder / str(module.get("path", "")) / "config.json"
            options["pooling"] = _pooling(where)
        elif kind == "Normalize":
            options["normalize"] = True
        else:
            raise InputError(
                f"{listing}: module {kind!r} is not supported: use an encoder of "
                "Transformer, Pooling and Normalize."
            )
    return options


def _modules(listing: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads(listing.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{listing}: not JSON ({error}): fetch it again.") from None
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        raise InputError(f"{listing}: must be a list of objects: fetch it again.")
    return modules


def _length(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    raw, _ = read_json(path)
    return {
        "max_tokens": raw.get("max_seq_length"),
        "lowercase": bool(raw.get("do_lower_case", False)),
    }


def _pooling(path: Path) -> str:
    raw, where = read_json(path)
    chosen = [
        name.removeprefix("pooling_mode_")
        for name, on in raw.items()
        if name.startswith("pooling_mode_") and on is True
    ]
    names = {"mean_tokens": "mean", "cls_token": "cls"}
    if len(chosen) != 1 or chosen[0] not in names:
        raise InputError(
            f"{where}: pooling {' + '.join(chosen) or 'none'} is not supported: use an "
            "encoder with mean or cls pooling."
        )
    return names[chosen[0]]
