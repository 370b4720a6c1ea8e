"""Fetch a model by its name on the hub of Hugging Face, into the hub's own cache.

Only safetensors, configuration and tokenizer are fetched: no pickle, no code, and no
copy in another format. The variables of `huggingface_hub` hold: HF_ENDPOINT for another
hub, HF_HUB_OFFLINE for the cache alone, HF_HOME for its place, HF_TOKEN for models that
need a login.
"""

import contextlib
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Literal

from goracs_jax.errors import InputError, one_line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
CONFIG = ("config.json",)
#: What a model needs, tables of its tokenizer and parts of sentence encoders included.
FILES = ("*.json", "*.jinja", "*.model", "*.txt", "model*.safetensors")
#: The same model for other programs.
OTHER_FORMATS = ("onnx/*", "openvino/*", "original/*", "coreml/*", "gguf/*")


def is_hub_name(path: Path) -> bool:
    """Tell whether a path is the name of a model on the hub, organisation/model.

    What is there on the disk is never one, and neither is what would lie in a folder
    that is there.

    >>> is_hub_name(Path("Qwen/Qwen3-0.6B")), is_hub_name(Path("/models/qwen"))
    (True, False)
    """
    name = str(path)
    if not NAME.fullmatch(name) or path.suffix == ".gguf":
        return False
    return not (os.path.lexists(path) or os.path.lexists(path.parent))


def fetch_model(
    name: str,
    revision: str | None = None,
    *,
    files: Literal["all", "config"] = "all",
) -> Path:
    """Fetch a model from the hub, unless it is in the cache.

    Args:
        name: Its name there, organisation/model.
        revision: A branch, a tag or a commit; None means the branch main.
        files: "config" fetches config.json alone, from which sizes follow.

    Returns:
        Its folder in the cache.

    Raises:
        InputError: The hub has no such model or revision, does not give it to this
            user, or cannot be reached; or what it has is no folder of a model.
    """
    from huggingface_hub import is_offline_mode, snapshot_download  # takes a second
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    at = f"{name} at revision {revision}" if revision else name
    login = "log in with `hf auth login` or set HF_TOKEN"
    download = partial(
        snapshot_download,
        name,
        revision=revision,
        ignore_patterns=list(OTHER_FORMATS),
        library_name="goracs_jax",
    )
    try:
        folder = download(allow_patterns=list(FILES if files == "all" else CONFIG))
        if others := _other_shards(Path(folder)):
            download(allow_patterns=others)
    except GatedRepoError:
        raise InputError(
            f"{name}: the hub gives this model only to those who have asked for it: "
            f"ask on its page, then {login}."
        ) from None
    except RevisionNotFoundError:
        raise InputError(
            f"{at}: the hub has the model, but not this revision: give a branch, a tag "
            "or a commit of it as --revision."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{name}: neither a folder here nor a model that the hub shows you: check "
            f"the path or the name; for a private model, {login}."
        ) from None
    except LocalEntryNotFoundError as error:
        reason = one_line(error.__cause__ or error)
        reason = "HF_HUB_OFFLINE is set" if is_offline_mode() else reason
        raise InputError(
            f"{at}: neither a folder here nor whole in the cache of the hub, which "
            f"cannot be reached ({reason:.200}): check the path, or fetch it where "
            "there is a network."
        ) from None
    except Exception as error:  # noqa: BLE001 (its HTTP library has types of its own)
        raise InputError(
            f"{at}: cannot be fetched from the hub ({one_line(error):.200}): try "
            "again, or give a folder."
        ) from None
    if not any(Path(folder).rglob("config.json")):  # an encoder may have it inside
        raise InputError(
            f"{at}: the hub has no config.json of it, so it is no folder of a model: "
            "of GGUF files fetch one (hf download) and give its path; of an adapter, "
            "name the model that it was trained on."
        )
    return Path(folder)


def _other_shards(folder: Path) -> list[str]:
    """List the shards that an index names and `FILES` does not."""
    found: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        # What is no index is refused by who reads the weights.
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            found |= {*json.loads(index.read_bytes())["weight_map"].values()}
    shards = {str(name) for name in found if str(name).endswith(".safetensors")}
    return sorted(name for name in shards if not (folder / name).is_file())


def published_name(path: Path) -> str:
    """Return the name on the hub of a folder in its cache, and any other path as it is.

    >>> published_name(Path("hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de"))
    'Qwen/Qwen3-0.6B'
    """
    repository = path.parent.parent.name
    if path.parent.name != "snapshots" or not repository.startswith("models--"):
        return str(path)
    return repository.removeprefix("models--").replace("--", "/", 1)
