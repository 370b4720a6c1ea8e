import json
import math

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from goracs_jax.errors import InputError
from goracs_jax.llm.batches import bucket_length, make_batches
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.tokenization import load_tokenizer, tokenize
from goracs_jax.llm.tokens import NOT_SCORED, Tokens, check_ids, ragged

TEXT = "the cat sat on the mat, in 1995 and 12345 others; they'll say: the théâtre. "
CONTROL = ["<|endoftext|>", "<|im_start|>"]


def train_bpe(pre) -> Tokenizer:
    """A byte-level BPE of some 300 words, which differ with the way texts are split."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=CONTROL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT, TEXT.upper(), TEXT[5:]], trainer)
    return tokenizer


def write_gguf(
    path,
    tokenizer: Tokenizer,
    pre: str,
    *,
    model="gpt2",
    bos=None,
    eos=0,
    same=(),
    template=None,
):
    raw = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(raw["vocab"], key=raw["vocab"].get)
    for i in same:
        tokens[i] = tokens[-1]
    kinds = gguf.TokenType
    out = gguf.GGUFWriter(path, "llama")
    out.add_tokenizer_model(model)
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types(
        [kinds.CONTROL if t in CONTROL else kinds.NORMAL for t in tokens]
    )
    out.add_token_merges([" ".join(merge) for merge in raw["merges"]])
    out.add_bos_token_id(1)
    if template is not None:
        out.add_chat_template(template)
    if eos is not None:
        add = out.add_bool if isinstance(eos, bool) else out.add_int32
        add("tokenizer.ggml.eos_token_id", eos)
    if bos is not None:
        out.add_add_bos_token(bos)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    return path


def byte_level(use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern):
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([words, byte_level(use_regex=False)])


def published_splits():
    """The splits as other code states them."""
    import inspect

    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    llama3 = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {
        "smollm": pre_tokenizers.Sequence([digits, byte_level()]),
        "gpt-2": byte_level(),
        "llama-bpe": split(llama3),
        "qwen2": split(PRETOKENIZE_REGEX),
    }


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_gguf_tokenizer_is_the_one_that_was_written(tmp_path, pre):
    bpe = train_bpe(published_splits()[pre])
    path = write_gguf(tmp_path / "t.gguf", bpe, pre, bos=False)
    tokenizer = load_tokenizer(path)
    for text in (TEXT, "They'll  see\n\n 1 in 1234567, don't!\t", "naïve 😀"):
        assert tokenizer(text)["input_ids"] == bpe.encode(text).ids
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == 0


def test_gguf_has_its_chat_template(tmp_path):
    bpe, template = train_bpe(byte_level()), "{{ messages[0].content }}!"
    path = write_gguf(tmp_path / "t.gguf", bpe, "gpt-2", template=template)
    chat = [{"role": "user", "content": "the cat"}]
    said = load_tokenizer(path).apply_chat_template(chat, tokenize=False)
    assert said == "the cat!"
    plain = load_tokenizer(write_gguf(tmp_path / "p.gguf", bpe, "gpt-2"))
    assert plain.chat_template is None


def test_control_tokens_are_one_token_each(tmp_path):
    bpe = train_bpe(published_splits()["smollm"])
    tokenizer = load_tokenizer(write_gguf(tmp_path / "t.gguf", bpe, "smollm"))
    ids = tokenizer("<|im_start|>the<|endoftext|>")["input_ids"]
    assert ids == [1, *bpe.encode("the").ids, 0]
    assert set(tokenizer.all_special_tokens) == set(CONTROL)


@pytest.mark.parametrize(
    ("pre", "bos", "starts"),
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("smollm", None, False),
        ("smollm", True, True),
    ],
)
def test_bos_is_added_where_the_file_says_so(tmp_path, pre, bos, starts):
    bpe = train_bpe(published_splits()[pre])
    tokenizer = load_tokenizer(write_gguf(tmp_path / "t.gguf", bpe, pre, bos=bos))
    assert (tokenizer("the")["input_ids"][0] == 1) == starts


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pre": "deepseek-llm"}, "pre-tokenizer 'deepseek-llm' is not supported"),
        ({"pre": "smollm", "model": "t5"}, "tokenizer 't5' is not supported, only"),
        ({"pre": None}, "pre is missing, .* with gguf-new-metadata --pre-tokenizer"),
        ({"pre": "smollm", "eos": None}, "eos_token_id must be .*, got None: fetch"),
        (
            {"pre": "smollm", "eos": -1},
            r"eos_token_id must be .* in \[0, \d+\], got -1",
        ),
        (
            {"pre": "smollm", "eos": 10**6},
            "eos_token_id must be .*, got 1000000: fetch",
        ),
        ({"pre": "smollm", "eos": True}, "eos_token_id must be .*, got True: fetch"),
        ({"pre": "smollm", "same": [5]}, "two tokens have the same text: fetch"),
    ],
)
def test_gguf_tokenizer_refuses_by_name(tmp_path, changes, named):
    bpe = train_bpe(byte_level())
    path = write_gguf(tmp_path / "t.gguf", bpe, **changes)
    with pytest.raises(InputError, match=named):
        load_tokenizer(path)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"copy tokenizer\.json") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def tokenizer():
    bpe = train_bpe(published_splits()["smollm"])
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")


def test_folder_and_object_agree(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]


def test_labels_all_are_the_ids(tokenizer):
    tokens = tokenize([("the cat", " sat"), ("in", "")], tokenizer, context=50)
    np.testing.assert_array_equal(tokens.labels, tokens.ids)
    assert tokens.num_examples == 2
    assert tokens.ids[tokens.offsets[1:] - 1].tolist() == [0, 0]
    assert (
        tokens.ids[: tokens.lengths[0] - 1].tolist()
        == (tokenizer("the cat sat")["input_ids"])
    )


def test_labels_answer_begin_behind_the_prompt(tokenizer):
    prompt, answer = "the cat sat on ", "the mat 12"
    tokens = tokenize([(prompt, answer)], tokenizer, labels="answer", context=50)
    scored = tokens.labels[tokens.labels != NOT_SCORED]
    # "on " + "the" is cut as "on" + " the": the token across the border is scored.
    assert tokenizer.decode(scored[:-1]) == " the mat 12"
    assert scored[-1] == 0
    unscored = tokens.ids[tokens.labels == NOT_SCORED]
    assert tokenizer.decode(unscored) == "the cat sat on"


def test_a_token_that_ends_with_the_prompt_is_not_scored(tokenizer):
    tokens = tokenize([("the cat:\n", "sat")], tokenizer, labels="answer", context=50)
    unscored = tokens.ids[tokens.labels == NOT_SCORED]
    assert tokenizer.decode(unscored) == "the cat:\n"


def test_an_end_of_text_that_the_tokenizer_adds_is_not_added_twice(tokenizer):
    bpe = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bpe.post_processor = processors.TemplateProcessing(
        single=["<|im_start|>", "$A", "<|endoftext|>"],
        special_tokens=[("<|im_start|>", 1), ("<|endoftext|>", 0)],
    )
    both = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")
    plain = tokenize([("the", " cat")], tokenizer, labels="answer", context=50)
    ends = tokenize([("the", " cat")], both, labels="answer", context=50)
    assert ends.ids.tolist() == [1, *plain.ids.tolist()]
    assert ends.labels.tolist() == [NOT_SCORED, *plain.labels.tolist()]


def test_tokenize_refuses(tokenizer):
    fits = ("the", " cat")
    with pytest.raises(InputError, match=r"example 2 has 41 tokens.*context of 40"):
        tokenize([fits, ("1" * 39, "2")], tokenizer, context=40)
    assert tokenize([("1" * 38, "2")], tokenizer, context=40).lengths.tolist() == [40]
    with pytest.raises(InputError, match="example 3 has no token to score"):
        tokenize([fits, fits, ("", "")], tokenizer, context=40)
    with pytest.raises(InputError, match="no examples"):
        tokenize([], tokenizer, context=40)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(InputError, match="no end-of-text token"):
        tokenize([fits], bare, context=40)


@pytest.mark.parametrize("labels", ["all", "answer"])
def test_texts_come_one_by_one(tokenizer, monkeypatch, labels):
    """In groups of any size, which the numbers of places go over."""
    texts = [("the cat " * (i % 4), f"sat {i}") for i in range(11)]
    whole = tokenize(texts, tokenizer, labels=labels, context=256)
    monkeypatch.setattr("goracs_jax.llm.tokenization.TOGETHER", 4)
    places = [f"t.jsonl:{i}" for i in range(11)]
    found = tokenize(iter(texts), tokenizer, labels=labels, context=256, places=places)
    for name in Tokens._fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    texts[9] = ("the " * 300, "sat")
    with pytest.raises(InputError, match=r"t\.jsonl:9 has \d+ tokens, more than the"):
        tokenize(iter(texts), tokenizer, labels=labels, context=256, places=places)


@pytest.mark.parametrize("lengths", [[], [0], [3, 0, 2, 0, 0, 1], [0, 0, 4]])
def test_scored_tokens_are_counted(lengths):
    rng = np.random.default_rng(0)
    ids = [[5] * n for n in lengths]
    labels = [rng.choice([5, NOT_SCORED], n).tolist() for n in lengths]
    expected = [row.count(5) for row in labels]
    assert ragged(ids, labels).scored.tolist() == expected


def test_check_ids_names_the_example():
    tokens = ragged([[1, 2], [], [3, 9]])
    check_ids(tokens, 10)
    with pytest.raises(InputError, match=r"example 3 has token id 9, .* 0 to 8"):
        check_ids(tokens, 9)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=40), st.sampled_from([64, 600])
)
@settings(deadline=None)
def test_batches_hold_every_example_once(lengths, tokens_per_batch):
    examples = [[i + 1] * n for i, n in enumerate(lengths)]
    tokens = ragged(examples, [[i, *row[1:]] for i, row in enumerate(examples)])
    planned = make_batches(tokens, tokens_per_batch=tokens_per_batch)
    batches = [batch.padded() for batch in planned]
    seen = np.concatenate([b.rows for b in batches])
    assert sorted(seen[seen >= 0]) == list(range(len(lengths)))
    checked = []
    for batch in batches:
        size, time = batch.ids.shape
        full, filled = max(1, tokens_per_batch // time), (batch.rows >= 0).sum()
        # The last batch is halved while its rows fit.
        assert size == full or (batch is batches[-1] and full // 2 >= filled)
        assert filled > size // 2 or batch is not batches[-1]
        assert batch.shape == planned[len(checked)].shape
        assert batch.work == planned[len(checked)].work == (batch.ids >= 0).sum()
        checked.append(batch)
        for row, ids, labels in zip(*batch, strict=True):
            n = lengths[row] if row >= 0 else 0
            assert (ids[:n] == row + 1).all()
            assert (ids[n:] == -1).all()
            assert (labels[n:] == NOT_SCORED).all()
            assert n == 0 or labels[0] == row

    # map_batches undoes the order: the largest id of a row is its number plus one.
    found = map_batches(lambda ids, labels: np.stack([ids.max(1)] * 2, 1), batches)
    expected = np.arange(len(lengths)) + 1
    np.testing.assert_array_equal(found, np.stack([expected] * 2, 1))


def test_padding_is_a_few_percent_in_few_shapes():
    # Lengths of prompts with three to ten titles.
    lengths = np.random.default_rng(0).integers(110, 200, size=2000)
    batches = make_batches(ragged([[1] * n for n in lengths]))
    padded = sum(math.prod(batch.shape) for batch in batches)
    # Steps of 16 at 110 to 200 tokens: 8 of some 155 on average, and one last batch.
    assert padded / lengths.sum() < 1.07
    assert len({batch.shape for batch in batches}) <= 8


def test_buckets_grow_and_hold_their_length():
    lengths = range(1, 5000)
    buckets = [bucket_length(n) for n in lengths]
    assert all(n <= bucket for n, bucket in zip(lengths, buckets, strict=True))
    assert buckets == sorted(buckets)
    # Eight steps an octave, so at most an eighth more than needed (from 32 on).
    assert max(b / n for n, b in zip(lengths, buckets, strict=True) if n > 32) <= 1.125
