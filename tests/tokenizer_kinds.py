"""A tokenizer of each kind that tokenizer.json describes; docs/models.md lists them."""

from tiny import WORDS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

PIECES = "".join(sorted({*WORDS, "▁"}))


def _letters(first=()):
    return {piece: i for i, piece in enumerate([*first, *PIECES])}


def byte_level_bpe():
    """As GPT-2, Llama 3, Qwen and Mistral's Tekken have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({x: i for i, x in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_piece_bpe():
    """As Llama 2, Mistral 7B, Gemma and Phi-3 have it: unknown characters are bytes."""
    octets = [f"<0x{i:02X}>" for i in range(256)]
    vocabulary = _letters(["<unk>", *octets])
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def unigram():
    """As T5, XLM-R and ALBERT have it."""
    pieces = [("<unk>", 0.0), *((piece, -2.0) for piece in PIECES)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def word_piece():
    """As BERT and MiniLM have it."""
    inner = [f"##{piece}" for piece in PIECES]
    tokenizer = Tokenizer(models.WordPiece(_letters(["[UNK]", *inner])))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def word_level():
    """One token for each word."""
    tokenizer = Tokenizer(
        models.WordLevel(_letters(["<unk>", "see", "in"]), unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


KINDS = {
    "byte-level BPE": byte_level_bpe,
    "SentencePiece BPE, with bytes": sentence_piece_bpe,
    "Unigram": unigram,
    "WordPiece": word_piece,
    "WordLevel": word_level,
}
#: Of a GGUF file, `tokenizer.ggml.model`: these are refused by name.
GGUF_REFUSED = ("bert", "t5", "rwkv", "plamo2", "none")
