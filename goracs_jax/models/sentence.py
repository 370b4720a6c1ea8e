"""Read how a sentence-transformers model makes one vector of its hidden states."""

import math
from pathlib import Path
from typing import Any

from goracs_jax.errors import InputError
from goracs_jax.models.folder import inside, load_json, read_json

# Pooling modes, by their old and new names in the config.json of a pooling module.
POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "mean": "mean",
    "cls": "cls",
    "max": "max",
}

# The length of texts stands in the first of these files; early versions named them
# after the kind of model. The list is that of sentence-transformers.
_KINDS = (
    "bert",
    "roberta",
    "distilbert",
    "camembert",
    "albert",
    "xlm-roberta",
    "xlnet",
)
LENGTHS = tuple(f"sentence_{kind}_config.json" for kind in _KINDS)


def sentence_options(folder: Path) -> dict[str, Any]:
    """Read pooling, normalisation and length from a sentence-transformers folder.

    Args:
        folder: The model folder. A plain Hugging Face folder has no modules.json and
            gives at most the length, in tokenizer_config.json.

    Returns:
        Keyword arguments of `read_encoder_config`.

    Raises:
        InputError: modules.json names other modules than Transformer, Pooling and an
            optional Normalize; the pooling is not supported; or texts get a prompt.

    >>> sentence_options(Path("no modules.json here"))
    {}
    """
    options = _length(folder / "tokenizer_config.json", "model_max_length")
    listing = folder / "modules.json"
    if not listing.is_file():
        return options
    _refuse_prompt(folder / "config_sentence_transformers.json")
    modules = _modules(listing)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise InputError(
                f"{listing}: module {kind!r} is not supported: use an encoder of "
                "Transformer, Pooling and Normalize."
            )
    if kinds not in (
        ["Transformer", "Pooling"],
        ["Transformer", "Pooling", "Normalize"],
    ):
        raise InputError(
            f"{listing}: modules {', '.join(kinds) or 'none'} are not supported: use "
            "an encoder of Transformer, Pooling and optionally Normalize, in order."
        )
    if modules[0].get("path"):
        raise InputError(
            f"{listing}: the Transformer is in folder {modules[0]['path']!r}: move its "
            "files beside modules.json and empty that path."
        )
    files = (folder / name for name in LENGTHS)
    if bert := next(filter(Path.is_file, files), None):
        lowercase = read_json(bert)[0].get("do_lower_case") or False
        if not isinstance(lowercase, bool):
            raise InputError(
                f"{bert}: do_lower_case must be true or false, got {lowercase!r:.40}: "
                "correct the file."
            )
        # This length takes precedence over that of the tokenizer.
        options |= _length(bert, "max_seq_length") | {"lowercase": lowercase}
    pooling = str(modules[1].get("path") or "")
    options["pooling"] = _pooling(inside(folder, f"{pooling}/config.json", listing))
    return options | {"normalize": "Normalize" in kinds}


def _modules(listing: Path) -> list[dict[str, Any]]:
    modules = load_json(listing)
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        raise InputError(f"{listing}: must be a list of objects: fetch it again.")
    return modules


def _length(path: Path, name: str) -> dict[str, Any]:
    """Read the largest number of tokens, if the file gives it."""
    length = read_json(path)[0].get(name) if path.is_file() else None
    if length is None:
        return {}
    # Tokenizers without a limit have 10^30, which some files write as a float.
    number = isinstance(length, int | float) and not isinstance(length, bool)
    if not number or length < 1 or not math.isfinite(length):
        raise InputError(
            f"{path}: {name} must be positive, got {length!r:.40}: correct the file."
        )
    return {"max_tokens": int(length)}


def _refuse_prompt(path: Path):
    name = read_json(path)[0].get("default_prompt_name") if path.is_file() else None
    if name is not None:
        raise InputError(
            f"{path}: default_prompt_name {name!r} is not supported: put the prompt "
            "into the texts and remove the field."
        )


def _pooling(path: Path) -> str:
    raw, where = read_json(path)
    chosen = [
        k for k, on in raw.items() if k.startswith("pooling_mode_") and on is True
    ]
    stated = raw.get("pooling_mode", chosen)
    stated = stated if isinstance(stated, list) else [stated]
    if len(stated) != 1 or stated[0] not in POOLING:
        raise InputError(
            f"{where}: pooling {' + '.join(map(str, stated)) or 'none'} is not "
            "supported: use an encoder with one of mean, cls and max."
        )
    return POOLING[stated[0]]
