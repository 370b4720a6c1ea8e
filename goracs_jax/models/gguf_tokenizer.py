"""Build the tokenizer that a GGUF file describes, as llama.cpp reads it.

Two kinds are read. Both start from characters and join neighbours as long as they can:

- byte-level BPE (model "gpt2") reads bytes, splits texts into words by a pattern that
  the file names (pre), and joins the pair that comes first in a list of merges;
- SentencePiece (model "llama") reads characters with ▁ for a space, does not split, and
  joins the pair whose union has the highest score.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from goracs_jax.errors import InputError, one_line
from goracs_jax.models.fields import Fields
from goracs_jax.models.gguf_file import open_gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_HUGGING_FACE = "use the model's Hugging Face folder."
# Token types of GGUF.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

# Split a text into contractions, letters, digits and signs (from the published
# tokenizer.json). Llama 3 keeps up to three digits together, Qwen 2 splits all digits.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Mistral's Tekken also splits words where a capital letter follows a small one.
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Split(NamedTuple):
    """How texts are split before the merges, and what llama.cpp adds to that."""

    pattern: str | None = None  # None for that of GPT-2
    single_digits: bool = False  # whether digits are split off first
    nfc: bool = False
    # Some words of these vocabularies cannot be reached by the merges; and texts start
    # with bos, even if the file does not say so.
    whole_words_and_bos: bool = False


_LLAMA3 = Split(_WORDS % "{1,3}", whole_words_and_bos=True)
#: By tokenizer.ggml.pre; llama.cpp has several names for the same.
SPLITS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mellum"), Split()),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell"),
        Split(single_digits=True),
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx"), Split(_WORDS % "{1,3}")),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Split(_WORDS % "", nfc=True)),
    "tekken": Split(_TEKKEN, whole_words_and_bos=True),
}
# Files of 2024 and before may lack the name. These families have one tokenizer each.
_OF_FAMILY = {"qwen2": "qwen2", "qwen3": "qwen2"}


def gguf_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """Build the tokenizer of a GGUF file.

    Args:
        path: The file.

    Returns:
        A fast tokenizer.

    Raises:
        InputError: The file has no tokenizer, one of another kind, or a vocabulary that
            is none: the message says which.
    """
    try:
        return _built(path)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (tokenizers has no type of its own)
        raise InputError(
            f"{path}: its tokenizer cannot be built ({one_line(error)}): "
            f"{_HUGGING_FACE}"
        ) from None


def _built(path: Path) -> "PreTrainedTokenizerFast":
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast  # takes seconds

    metadata = open_gguf(path).metadata
    field = Fields(metadata, str(path), prefix="tokenizer.ggml.")
    if field.get("model") is None:
        raise InputError(
            f"{path}: there is no tokenizer in it, as in adapters and in parts that "
            "read pictures: give the GGUF file of a whole language model."
        )
    kind = field("model", str)
    if kind not in ("gpt2", "llama"):
        raise InputError(
            f"{path}: tokenizer {kind!r} is not supported, only byte-level BPE (gpt2) "
            f"and SentencePiece (llama): {_HUGGING_FACE}"
        )
    names = _listed(field, "tokens", str)
    ids = {token: i for i, token in enumerate(names)}
    if len(ids) < len(names):
        raise InputError(f"{path}: two tokens have the same text: fetch it again.")
    kinds = _listed(field, "token_type", int, len(names))
    special = {
        role: _name_of(field, key, names)
        for role, key in _ROLES.items()
        if key == "eos_token_id" or field.get(key) is not None
    }
    if kind == "gpt2":
        split = _split(field, str(metadata.get("general.architecture")))
        tokenizer = _byte_level(field, ids, split)
        starts = split.whole_words_and_bos
    else:
        if _UNKNOWN in kinds:
            special.setdefault("unk_token", names[kinds.index(_UNKNOWN)])
        tokenizer = _sentence_piece(field, ids, kinds, special.get("unk_token"))
        starts = True
    added = {
        token: AddedToken(token, special=type_ == _CONTROL, normalized=False)
        for token, type_ in zip(names, kinds, strict=True)
        if type_ in (_CONTROL, _USER_DEFINED)
    }
    tokenizer.add_tokens([t for t in added.values() if not t.special])
    tokenizer.add_special_tokens([t for t in added.values() if t.special])
    around = ["$A"]
    if field.flag("add_bos_token", default=starts):
        around.insert(0, _name_of(field, "bos_token_id", names))
    if field.flag("add_eos_token"):
        around.append(special["eos_token"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around,
        special_tokens=[(name, ids[name]) for name in {*around} - {"$A"}],
    )
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        found.chat_template = template
    return found


def _listed(
    field: Fields, name: str, kind: type, length: int | None = None
) -> list[Any]:
    """Return a list whose members are all of one type, of a given length."""
    found = field(name, list)
    if length is not None and len(found) != length:
        raise InputError(
            f"{field.where}: {field.prefix}{name} has {len(found)} members for "
            f"{length} tokens: fetch the file again."
        )
    for i, value in enumerate(found):
        if type(value) is not kind:
            raise InputError(
                f"{field.where}: {field.prefix}{name}[{i}] must be a "
                f"{kind.__name__}, got {value!r:.40}: fetch the file again."
            )
    return found


def _name_of(field: Fields, key: str, names: list[str]) -> str:
    """Return the text of a special token."""
    token = field.get(key)
    if type(token) is not int or not 0 <= token < len(names):  # bool is another type
        raise InputError(
            f"{field.where}: metadata {field.prefix}{key} must be the number of a "
            f"token, in [0, {len(names) - 1}], got {token!r}: fetch it again."
        )
    return names[token]


def _split(field: Fields, architecture: str) -> Split:
    """Return how texts are split, by the name in the file."""
    name = field.get("pre", _OF_FAMILY.get(architecture))
    if name is None:
        raise InputError(
            f"{field.where}: {field.prefix}pre is missing, so that it is unknown how "
            "texts are split before the merges: add it with gguf-new-metadata "
            f"--pre-tokenizer (such as {', '.join(list(SPLITS)[:4])}), or "
            f"{_HUGGING_FACE}"
        )
    if not isinstance(name, str) or name not in SPLITS:
        raise InputError(
            f"{field.where}: pre-tokenizer {name!r:.60} is not supported, only "
            f"{', '.join(sorted(SPLITS))}: {_HUGGING_FACE}"
        )
    return SPLITS[name]


def _byte_level(field: Fields, ids: dict[str, int], split: Split) -> "Tokenizer":
    """Build a byte-level BPE from a list of merges."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers
    from tokenizers import pre_tokenizers as pre
    from tokenizers.models import BPE

    merges = [merge.split(" ") for merge in _listed(field, "merges", str)]
    for i, pair in enumerate(merges):
        parts = pair if len(pair) != 2 else [*pair, "".join(pair)]
        if len(pair) != 2 or any(part not in ids for part in parts):
            raise InputError(
                f"{field.where}: {field.prefix}merges[{i}] {' '.join(pair)!r:.60} is "
                "no pair of tokens whose union is one: fetch the file again."
            )
    tokenizer = Tokenizer(
        BPE(
            ids,
            [(left, right) for left, right in merges],
            ignore_merges=split.whole_words_and_bos,
        )
    )
    if split.nfc:
        tokenizer.normalizer = normalizers.NFC()
    of_gpt2 = split.pattern is None
    steps: list[Any] = [pre.ByteLevel(add_prefix_space=False, use_regex=of_gpt2)]
    if split.pattern is not None:
        steps.insert(0, pre.Split(Regex(split.pattern), "isolated"))
    if split.single_digits:
        steps.insert(0, pre.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(
    field: Fields, ids: dict[str, int], kinds: list[int], unknown: str | None
) -> "Tokenizer":
    """Build a SentencePiece BPE from the scores of its tokens.

    It has no list of merges: two neighbours are joined if their union is a token, the
    highest score first. Tokens that are cut out of a text as a whole take no part.
    """
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    if not any("▁" in token for token in ids):
        raise InputError(
            f"{field.where}: tokenizer.ggml.model says SentencePiece, but no token has "
            "a ▁, which stands for a space: its vocabulary is of another kind: "
            f"{_HUGGING_FACE}"
        )
    scores = _listed(field, "scores", float, len(ids))
    has_bytes = all(f"<0x{byte:02X}>" in ids for byte in range(256))
    if unknown is None and not has_bytes:
        raise InputError(
            f"{field.where}: its SentencePiece tokenizer has tokens neither for all "
            f"bytes nor for what is unknown: {_HUGGING_FACE}"
        )
    normal = {
        token: score
        for token, kind, score in zip(ids, kinds, scores, strict=True)
        if kind == _NORMAL
    }
    best_first = sorted(normal, key=lambda token: (-normal[token], ids[token]))
    merges = [
        (token[:i], token[i:])
        for token in best_first
        for i in range(1, len(token))
        if token[:i] in normal and token[i:] in normal
    ]
    tokenizer = Tokenizer(
        BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=has_bytes)
    )
    spaces = normalizers.Replace(" ", "▁")
    starts = field.flag("add_space_prefix", default=True)
    before = [normalizers.Prepend("▁")] if starts else []
    tokenizer.normalizer = normalizers.Sequence([*before, spaces])
    after = [decoders.Strip(" ", 1, 0)] if starts else []
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *after,
        ]
    )
    return tokenizer
