"""SentencePiece in GGUF files, against the plain loop of its algorithm."""

import functools
import itertools
import json

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import GGUF_REFUSED
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from goracs_jax.errors import InputError
from goracs_jax.models.gguf_tokenizer import SPLITS
from goracs_jax.models.tokenizer import load_tokenizer

Kind = gguf.TokenType
TEXT = "the cat sat on the mat, in 1995 and 12345 others; they'll say: the théâtre. "


@functools.cache
def words() -> list[str]:
    """Pieces of a BPE on characters, in the order in which they are joined."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=90, show_progress=False)
    tokenizer.train_from_iterator([TEXT, TEXT.upper(), TEXT[5:]], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    letters = sorted(set(model["vocab"]) & set("".join(model["vocab"])))
    return ["".join(pair) for pair in model["merges"]] + letters


SPECIAL = [("<unk>", Kind.UNKNOWN), ("<s>", Kind.CONTROL), ("</s>", Kind.CONTROL)]
BYTES = [(f"<0x{i:02X}>", Kind.BYTE) for i in range(256)]
OWN = [("<|u|>", Kind.USER_DEFINED)]


def vocabulary(with_bytes=True):
    normal = [(word, Kind.NORMAL) for word in dict.fromkeys(words())]
    return SPECIAL + BYTES * with_bytes + OWN + normal


def write(path, vocab=None, *, leave=(), **values):
    """A file as llama.cpp's converter writes it; `values` are put over its keys."""
    vocab = vocabulary() if vocab is None else vocab
    keys = {
        "model": "llama",
        "tokens": [token for token, _ in vocab],
        "scores": [-float(i) for i in range(len(vocab))],
        "token_type": [int(kind) for _, kind in vocab],
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | values
    out = gguf.GGUFWriter(path, "llama")
    add = {bool: out.add_bool, int: out.add_uint32, str: out.add_string}
    for key, value in keys.items():
        if key not in leave:
            name = f"tokenizer.ggml.{key}"
            add.get(type(value), out.add_array)(name, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    return path


def joined(text: str, tokens, prefix: bool) -> list[int]:
    """Join the neighbours of highest score, the first of them, until none is left."""
    ids = {token: i for i, (token, _) in enumerate(tokens)}
    normal = {token for token, kind in tokens if kind == Kind.NORMAL}
    parts = list((" " * bool(prefix and text) + text).replace(" ", "▁"))
    while True:
        pairs = [a + b for a, b in itertools.pairwise(parts)]
        known = [(ids[pair], i) for i, pair in enumerate(pairs) if pair in normal]
        if not known:
            break
        _, i = min(known)  # scores fall with the id
        parts[i : i + 2] = [pairs[i]]
    found = []
    for part in parts:
        own = [f"<0x{byte:02X}>" for byte in part.encode()]
        found += [ids[part]] if part in ids else [ids[byte] for byte in own]
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = tmp_path_factory.mktemp("spm") / "t.gguf"
    return {
        prefix: load_tokenizer(write(path, add_space_prefix=prefix))
        for prefix in (True, False)
    }


@given(st.text("thecas mtin,19 é😀\n", max_size=30), st.booleans())
@settings(deadline=None, max_examples=200)
def test_sentence_piece_is_the_plain_loop(loaded, text, prefix):
    found = loaded[prefix](text)["input_ids"]
    assert found == [1, *joined(text, vocabulary(), prefix)]
    assert loaded[prefix].decode(found, skip_special_tokens=True) == text


def test_words_of_a_real_text_are_joined(loaded):
    ids = loaded[True](TEXT)["input_ids"]
    assert ids == [1, *joined(TEXT, vocabulary(), True)]
    assert len(ids) < len(TEXT) / 2


def test_tokens_that_are_cut_out_whole(loaded):
    one = loaded[False]
    number = {token: i for i, (token, _) in enumerate(vocabulary())}
    middle = one("the<|u|>cat</s>")["input_ids"]
    plain = lambda text: joined(text, vocabulary(), False)
    assert middle == [1, *plain("the"), number["<|u|>"], *plain("cat"), 2]
    assert one.eos_token_id == 2


def test_what_stands_around_a_text(tmp_path):
    path = tmp_path / "t.gguf"
    ids = lambda **values: load_tokenizer(write(path, **values))("the")["input_ids"]
    body = joined("the", vocabulary(), True)
    assert ids() == [1, *body]
    assert ids(add_bos_token=False) == body
    assert ids(add_bos_token=False, add_eos_token=True) == [*body, 2]
    assert ids(pre="whatever") == [1, *body]  # SentencePiece does not split


def test_a_vocabulary_without_spaces_is_of_another_kind(tmp_path):
    """As one of byte-level BPE, which writes Ġ: all spaces would be unknown."""
    tokens = [(token.replace("▁", "Ġ"), kind) for token, kind in vocabulary()]
    with pytest.raises(InputError, match="no token has a ▁, which stands for a space"):
        load_tokenizer(write(tmp_path / "t.gguf", tokens))


def test_unknown_characters_without_bytes(tmp_path):
    tokens = vocabulary(with_bytes=False)
    found = load_tokenizer(write(tmp_path / "t.gguf", tokens))("the 😀😀")["input_ids"]
    body = joined("the ", tokens, True)
    assert found == [1, *body, 0]  # one token for all in a row, as SentencePiece has it
    none = [(token, Kind.NORMAL) for token, _ in tokens]
    with pytest.raises(InputError, match="neither for all bytes nor for what is unkn"):
        load_tokenizer(write(tmp_path / "t.gguf", none))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"leave": ["model"]}, "there is no tokenizer in it, as in adapters"),
        ({"leave": ["tokens"]}, r"field 'tokenizer\.ggml\.tokens' is missing"),
        ({"leave": ["scores"]}, r"field 'tokenizer\.ggml\.scores' is missing"),
        ({"leave": ["token_type"]}, "token_type' is missing"),
        ({"leave": ["bos_token_id"]}, "bos_token_id must be the number .* got None"),
        ({"model": "bert"}, "tokenizer 'bert' is not supported, only byte-level BPE"),
        *(({"model": x}, f"tokenizer {x!r} is not supported") for x in GGUF_REFUSED),
        ({"model": 3}, "model' must be str, got 3"),
        ({"tokens": "abc"}, "tokens' must be list, got 'abc'"),
        ({"tokens": [1, 2, 3]}, r"tokens\[0\] must be a str, got 1"),
        ({"scores": [1.0, 2.0]}, r"scores has 2 members for \d+ tokens"),
        ({"token_type": [1]}, r"token_type has 1 members for \d+ tokens"),
        ({"eos_token_id": 10**6}, r"eos_token_id must be .* got 1000000"),
        ({"unknown_token_id": 10**6}, r"unknown_token_id must be .* got 1000000"),
        ({"add_bos_token": "yes"}, "add_bos_token' must be true or false"),
    ],
)
def test_vocabularies_that_are_none(tmp_path, values, named):
    with pytest.raises(InputError, match=named) as error:
        load_tokenizer(write(tmp_path / "t.gguf", **values))
    assert str(error.value).startswith(str(tmp_path / "t.gguf"))
    assert "\n" not in str(error.value)


BYTE_LEVEL = [("</s>", Kind.CONTROL)] + [
    (token, Kind.NORMAL)
    for token in [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc"]
]
GPT2 = {"model": "gpt2", "bos_token_id": 0, "eos_token_id": 0, "merges": ["a b"]}


@pytest.mark.parametrize(
    ("merge", "shown"),
    [("abc", "'abc'"), ("a b c", "'a b c'"), ("a q", "'a q'"), ("x zz", "'x zz'")],
)
def test_merges_that_are_no_pair_of_tokens(tmp_path, merge, shown):
    values = GPT2 | {"pre": "gpt-2", "merges": ["a b", merge]}
    with pytest.raises(InputError, match=rf"merges\[1\] {shown} is no pair of tokens"):
        load_tokenizer(write(tmp_path / "t.gguf", BYTE_LEVEL, **values))


def test_files_that_do_not_say_how_texts_are_split(tmp_path):
    """Qwen has one tokenizer; the Llama family has many."""
    path = write(tmp_path / "t.gguf", BYTE_LEVEL, **GPT2)
    with pytest.raises(InputError, match=r"ggml\.pre is missing, .*--pre-tokenizer"):
        load_tokenizer(path)
    for value in ("default", "deepseek-llm", 3):
        with pytest.raises(InputError, match=f"pre-tokenizer {value!r} is not"):
            load_tokenizer(write(path, BYTE_LEVEL, **GPT2, pre=value))


def test_splits_are_those_of_another_reader_of_gguf_files():
    """transformers names the patterns of some, by the same names."""
    mapping = pytest.importorskip(
        "transformers.integrations.gguf.gguf_tokenizer_mapping"
    )
    theirs = mapping.GGUF_PRE_TOKENIZER_SPLITS
    common = SPLITS.keys() & theirs.keys()
    assert {"llama-bpe", "qwen2", "tekken", "smaug-bpe"} <= common
    for name in common:
        assert SPLITS[name].pattern == theirs[name]
