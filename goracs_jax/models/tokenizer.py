"""Load the tokenizer of a model from its folder or its GGUF file, as it is.

tokenizer.json describes a tokenizer completely: how a text is normalised, split, joined
to tokens, and what stands around it. Nothing else in a folder changes the ids.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goracs_jax.buckets import local_folder
from goracs_jax.errors import InputError, one_line
from goracs_jax.models.folder import existing_model, inside, read_json
from goracs_jax.models.gguf_tokenizer import gguf_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(path: str | Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a model, without any download and without code of others.

    The ids are those of `tokenizers.Tokenizer.from_file("tokenizer.json")`, whatever
    class tokenizer_config.json names. That file and special_tokens_map.json say which
    token ends a text. A folder without tokenizer.json is read by its class, which
    builds a tokenizer from the files of its vocabulary.

    A folder may come with a tokenizer class of its own, which its tokenizer_config.json
    names in `auto_map`. It is never run: tokenizer.json has all that it needs.

    Args:
        path: A Hugging Face folder or a .gguf file, with a byte-level BPE or a
            SentencePiece tokenizer.

    Returns:
        A fast tokenizer.

    Raises:
        InputError: Files are missing or damaged, or the kind of tokenizer is not
            supported.
    """
    path = existing_model(path)
    # At import, transformers warns that PyTorch is missing; we do not need it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if path.suffix == ".gguf":
        return gguf_tokenizer(path)
    _refuse_others(path)
    file = path / "tokenizer.json"
    if not file.exists():
        return _by_class(path)
    backend = _described(file)
    from transformers import PreTrainedTokenizerFast  # takes seconds

    # transformers reads the roles of tokens and the chat template.
    tokenizer = _loaded(PreTrainedTokenizerFast, path, "tokenizer_config.json")
    # It also adds tokens, and may split special ones: undone here.
    tokenizer._tokenizer = backend
    tokenizer.split_special_tokens = False
    # transformers compares with it and warns; each reader of texts has its own bound.
    tokenizer.model_max_length = sys.maxsize
    eos = tokenizer.eos_token
    if eos is not None and backend.token_to_id(str(eos)) is None:
        raise InputError(
            f"{path / 'tokenizer_config.json'}: eos_token {str(eos)!r:.60} is no token "
            "of tokenizer.json: take both files from where the model was published."
        )
    return tokenizer


def _described(file: Path) -> "Tokenizer":
    """Build what a tokenizer.json describes, if it is one and its tokens are fixed."""
    from tokenizers import Tokenizer, __version__

    raw, where = read_json(file)
    backend = _quiet(
        lambda: Tokenizer.from_file(os.fspath(file)),
        f"{where}: not what tokenizers {__version__} reads",
        "fetch it again, or install a newer version of the package tokenizers.",
    )
    # What stands around a text is only looked up when there is one.
    _quiet(lambda: backend.encode(""), f"{where}: cannot encode", "fetch it again.")
    vocabulary = backend.get_vocab()
    if len(set(vocabulary.values())) < len(vocabulary):
        raise InputError(f"{where}: two tokens have the same id: fetch it again.")
    dropout = getattr(backend.model, "dropout", None)
    if dropout:
        raise InputError(
            f"{where}: model.dropout {dropout:.3g} makes tokens random: set it to null."
        )
    # tokenizers numbers these tokens anew if the file's numbers are not free.
    for token in raw.get("added_tokens") or ():
        found = backend.token_to_id(token["content"])
        if found != token["id"]:
            raise InputError(
                f"{where}: added token {token['content']!r:.60} has id {token['id']} "
                f"there, but comes out as {found}: fetch it again, or list these "
                "tokens by their ids, without gaps, as tokenizers writes them."
            )
    return backend


def _quiet(load: Any, what: str, cure: str) -> Any:
    """Call a loader of another library, and say what was wrong in one line."""
    try:
        return load()
    except Exception as error:  # noqa: BLE001 (tokenizers has no type of its own)
        raise InputError(f"{what} ({one_line(error)}): {cure}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's, no Exception
            raise
        raise InputError(f"{what} ({one_line(error)}): {cure}") from None


def _loaded(kind: Any, path: Path, file: str) -> "PreTrainedTokenizerFast":
    return _quiet(
        lambda: kind.from_pretrained(
            local_folder(path), local_files_only=True, trust_remote_code=False
        ),
        f"{path}: no tokenizer could be loaded",
        f"copy {file} there from where the model was published.",
    )


#: Files of a vocabulary, and the packages without which transformers cannot read them.
_NEED = {"tokenizer.model": "sentencepiece", "tekken.json": "mistral_common"}


def _by_class(path: Path) -> "PreTrainedTokenizerFast":
    """Load a tokenizer that has no tokenizer.json by the name of its class."""
    from transformers import AutoTokenizer

    for name, package in _NEED.items():
        if (path / name).is_file() and importlib.util.find_spec(package) is None:
            raise InputError(
                f"{path}: no tokenizer.json, and {name} alone is not read: copy "
                "tokenizer.json there from where the model was published, or save one "
                "with the library that it was made for."
            )
    tokenizer = _loaded(AutoTokenizer, path, "tokenizer.json and tokenizer_config.json")
    if not tokenizer.is_fast:
        raise InputError(
            f"{path}: the tokenizer has no tokenizer.json, which gives the place of "
            "each token in the text: copy it there."
        )
    return tokenizer


# Fields of tokenizer_config.json by which transformers would open another file than
# those that it knows by name.
_OTHER_FILES = ("vocab_file", "merges_file", "spm_file", "vocab", "merges", "gguf_file")


def _refuse_others(path: Path) -> None:
    """Refuse a tokenizer that is outside its folder, or only in code of its own.

    Raises:
        InputError: A file that the tokenizer reads lies outside the folder, or there is
            a class and no tokenizer.json.
    """
    config = path / "tokenizer_config.json"
    if not config.exists():
        return
    raw, where = read_json(config)
    versions = raw.get("fast_tokenizer_files") or []
    for name in versions if isinstance(versions, list) else [versions]:
        inside(path, str(name), config)
    for name in _OTHER_FILES:
        # A path on the machine of who saved it is common, and nothing is there.
        file = raw.get(name)
        if isinstance(file, str) and os.path.exists(file):
            inside(path, os.path.relpath(file, path), config)
    if "auto_map" in raw and not (path / "tokenizer.json").is_file():
        raise InputError(
            f"{where}: the tokenizer needs code of its own (auto_map), which is never "
            "run: save it as tokenizer.json with the library that it was made for."
        )
