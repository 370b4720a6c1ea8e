"""Load the tokenizer of a model from its folder or its GGUF file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goracs_jax.errors import InputError, one_line
from goracs_jax.models.folder import existing_model, inside, read_json
from goracs_jax.models.gguf_file import open_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(path: str | Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a model, without any download and without code of others.

    A folder may come with a tokenizer class of its own, which its tokenizer_config.json
    names in `auto_map`. It is never run: tokenizer.json has all that it needs.

    Args:
        path: A Hugging Face folder or a .gguf file. GGUF files must have a byte-level
            BPE tokenizer of kind smollm, gpt-2, llama-bpe or qwen2.

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
        try:
            return _gguf_tokenizer(path)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (as below)
            raise InputError(
                f"{path}: its tokenizer cannot be built ({one_line(error)}): use the "
                "model's Hugging Face folder."
            ) from None
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # takes seconds

    own_code = _has_own_code(path)
    kind = PreTrainedTokenizerFast if own_code else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001 (tokenizers has no type of its own)
        raise _unloaded(path, error) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's, no Exception
            raise
        raise _unloaded(path, error) from None
    if not tokenizer.is_fast:
        raise InputError(
            f"{path}: the tokenizer has no tokenizer.json, which gives the place of "
            "each token in the text: copy it there."
        )
    dropout = getattr(tokenizer.backend_tokenizer.model, "dropout", None)
    if dropout:
        raise InputError(
            f"{path / 'tokenizer.json'}: model.dropout {dropout:.3g} makes tokens "
            "random: set it to null."
        )
    return tokenizer


# Fields of tokenizer_config.json by which transformers would open another file than
# those that it knows by name.
_OTHER_FILES = ("vocab_file", "merges_file", "spm_file", "vocab", "merges", "gguf_file")


def _has_own_code(path: Path) -> bool:
    """Tell whether a folder has a tokenizer class of its own; no file may lie outside.

    Raises:
        InputError: A file that the tokenizer reads lies outside the folder, or there is
            a class and no tokenizer.json.
    """
    config = path / "tokenizer_config.json"
    if not config.exists():
        return False
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
    return "auto_map" in raw


def _unloaded(path: Path, error: BaseException) -> InputError:
    """Blame config.json, which transformers checks first, or else the tokenizer."""
    from transformers import AutoConfig

    config = path / "config.json"
    try:
        if config.is_file():
            AutoConfig.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=False
            )
    except Exception as fault:  # noqa: BLE001 (as above)
        return InputError(
            f"{config}: not what transformers reads ({one_line(fault)}): take the file "
            "that was published with the weights."
        )
    return InputError(
        f"{path}: no tokenizer could be loaded ({one_line(error)}): copy "
        "tokenizer.json and tokenizer_config.json there."
    )


# Split a text into contractions, letters, digits and signs (from the published
# tokenizer.json). Llama 3 keeps up to three digits together, Qwen 2 splits all digits.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED = 3, 4  # token types of GGUF


def _pre_tokenizer(kind: str) -> Any:
    """Make the pre-tokenizer, which splits a text before the merges, from its name."""
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as pre

    gpt2 = pre.ByteLevel(add_prefix_space=False, use_regex=True)
    bytes_only = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    words = lambda digits: pre.Split(Regex(_WORDS % digits), "isolated")
    return {
        "smollm": lambda: pre.Sequence([pre.Digits(individual_digits=True), gpt2]),
        "gpt-2": lambda: gpt2,
        "llama-bpe": lambda: pre.Sequence([words("1,3"), bytes_only]),
        "qwen2": lambda: pre.Sequence([words("1"), bytes_only]),
    }.get(kind, lambda: None)()


def _gguf_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    meta = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in open_gguf(path).metadata.items()
        if name.startswith("tokenizer.ggml.")
    }
    for name in ("model", "pre", "tokens", "merges", "token_type", "eos_token_id"):
        if name not in meta:
            raise InputError(
                f"{path}: metadata tokenizer.ggml.{name} is missing: use a GGUF file "
                "with its tokenizer."
            )
    kind = meta["pre"]
    splitter = _pre_tokenizer(kind)
    if meta["model"] != "gpt2" or splitter is None:
        raise InputError(
            f"{path}: tokenizer {meta['model']!r} with pre-tokenizer {kind!r} is not "
            "supported: use the model's Hugging Face folder."
        )
    names = meta["tokens"]
    ids = {token: i for i, token in enumerate(names)}
    if len(ids) < len(names):
        raise InputError(f"{path}: two tokens have the same text: fetch it again.")
    tokenizer = Tokenizer(
        BPE(
            ids,
            [tuple(merge.split(" ", 1)) for merge in meta["merges"]],
            # Some words of Llama 3's vocabulary cannot be reached by its merges.
            ignore_merges=kind == "llama-bpe",
        )
    )
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    added = {
        token: AddedToken(token, special=type_ == _CONTROL, normalized=False)
        for token, type_ in zip(names, meta["token_type"], strict=True)
        if type_ in (_CONTROL, _USER_DEFINED)
    }
    tokenizer.add_tokens([t for t in added.values() if not t.special])
    tokenizer.add_special_tokens([t for t in added.values() if t.special])
    special = {
        role: _name_of(meta, key, path)
        for role, key in [
            ("bos_token", "bos_token_id"),
            ("eos_token", "eos_token_id"),
            ("unk_token", "unknown_token_id"),
            ("pad_token", "padding_token_id"),
        ]
        if key in meta
    }
    # llama.cpp starts texts of Llama 3 with bos, even if the file does not say so.
    if meta.get("add_bos_token", kind == "llama-bpe"):
        bos = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, meta["bos_token_id"])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _name_of(meta: Mapping[str, Any], key: str, path: Path) -> str:
    """Return the text of a special token."""
    names, token = meta["tokens"], meta[key]
    if type(token) is not int or not 0 <= token < len(names):  # bool is another type
        raise InputError(
            f"{path}: metadata tokenizer.ggml.{key} must be the number of a token, in "
            f"[0, {len(names) - 1}], got {token!r}: fetch it again."
        )
    return names[token]
