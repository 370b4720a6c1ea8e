"""Tokenizers of folders: tokenizer.json as it is, against `Tokenizer.from_file`."""

import json

import pytest
import tiny
import tokenizer_kinds
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from goracs_jax.errors import InputError
from goracs_jax.llm.tokenization import encode
from goracs_jax.llm.tokens import check_ids, ragged
from goracs_jax.models.tokenizer import load_tokenizer

TEXTS = [
    "They'll  see\n\n 1 in 1234567, don't!\t",
    "naïve théâtre 😀 ### Instruction: No<eos>Yes [PAD] <more>",
    "",
]


@pytest.fixture
def folder(tmp_path):
    """A BPE that splits unlike any class, that adds <eos> at the start of a text."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r"\d{1,2}|[A-Z][a-z]+|\s+|."), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    tiny.train_bpe(tokenizer, [tiny.WORDS, *TEXTS])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def configure(folder, **fields):
    config = {"eos_token": "<eos>"} | fields
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def assert_as_it_is(folder):
    described = Tokenizer.from_file(str(folder / "tokenizer.json"))
    described.no_truncation()
    described.no_padding()
    found = load_tokenizer(folder)
    for text in TEXTS:
        assert found(text)["input_ids"] == described.encode(text).ids
    assert len(found) == described.get_vocab_size()


@pytest.mark.parametrize(
    "name",
    [
        *("GPT2Tokenizer", "LlamaTokenizer", "Qwen2Tokenizer", "GemmaTokenizer"),
        *("BertTokenizer", "T5Tokenizer", "TokenizersBackend", "NoSuchClass", 5, None),
    ],
)
def test_ids_are_those_of_the_file_whatever_the_class(folder, name):
    configure(folder, tokenizer_class=name)
    assert_as_it_is(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"add_bos_token": True, "bos_token": "<eos>"},
        {"add_eos_token": True},
        {"add_prefix_space": True},
        {"split_special_tokens": True},
        {"pad_token": "[PAD]", "extra_special_tokens": ["<more>"]},
        {"added_tokens_decoder": {"900": {"content": "<more>", "special": True}}},
        {"model_max_length": "none"},
        {"model_max_length": 3},
        {"eos_token": "N"},  # a token of the vocabulary that stands within words
    ],
)
def test_what_the_configuration_adds_is_not_taken(folder, fields):
    configure(folder, **fields)
    assert_as_it_is(folder)


def test_roles_and_template_are_those_of_the_configuration(folder):
    configure(folder, chat_template="{{ messages[0].content }}")
    found = load_tokenizer(folder)
    assert found.eos_token_id == 0
    chat = [{"role": "user", "content": "No"}]
    assert found.apply_chat_template(chat, tokenize=False) == "No"


def put(*path, value):
    def change(raw):
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("model", "merges", 0, value="ab"), r"not what tokenizers [\d.]+ reads"),
        (put("model", "merges", 0, value=["a"]), "not what tokenizers"),
        (put("model", "merges", 0, value=["q", "~~"]), "`~~` out of vocabulary"),
        (put("version", value="2.0"), r"version '2\.0'.*newer version of the package"),
        (put("model", "type", value="Neo"), "or install a newer version of the"),
        (put("pre_tokenizer", value={"type": "Neo"}), "install a newer version"),
        (put("model", "vocab", value=["a"]), "expected a map"),
        (put("model", "vocab", "No", value="x"), "expected u32"),
        (put("model", "vocab", "No", value=-1), "expected u32"),
        (put("model", "vocab", "No", value=5), "two tokens have the same id"),
        (put("added_tokens", value="x"), "expected a sequence"),
        (put("added_tokens", 0, "id", value=7), "'<eos>' has id 7 there, but .* as 0"),
        (put("model", value=None), "not what tokenizers"),
        (put("post_processor", value=TEMPLATE), "cannot encode"),
        (
            put("model", "dropout", value=0.5),
            r"model\.dropout 0\.5 makes tokens random",
        ),
    ],
)
def test_vocabularies_that_are_none(folder, change, named):
    configure(folder)
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text())
    change(raw)
    file.write_text(json.dumps(raw))
    with pytest.raises(InputError, match=named) as error:
        load_tokenizer(folder)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"eos_token": 3}, "copy tokenizer_config.json"),
        ({"eos_token": ["<eos>"]}, "copy tokenizer_config.json"),
        ({"added_tokens_decoder": []}, "copy tokenizer_config.json"),
        ({"eos_token": "<end>"}, "'<end>' is no token of tokenizer.json"),
    ],
)
def test_configurations_that_are_none(folder, fields, named):
    configure(folder, **fields)
    with pytest.raises(InputError, match=named) as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json"])
def test_a_vocabulary_that_needs_another_package(folder, name, monkeypatch, capfd):
    configure(folder, tokenizer_class="LlamaTokenizer")
    (folder / "tokenizer.json").rename(folder / name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"no tokenizer.json, and {name} alone"):
        load_tokenizer(folder)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a": 1, "a": 1}', "\x00"])
def test_files_that_are_no_json(folder, text):
    configure(folder)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer\.json: (not JSON|must be a JSON)"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_every_kind_of_tokenizer_is_read_as_it_is(kind, tmp_path):
    tokenizer = tokenizer_kinds.KINDS[kind]()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    configure(tmp_path)
    assert_as_it_is(tmp_path)
    assert len({*load_tokenizer(tmp_path)(TEXTS[0])["input_ids"]}) > 1


@pytest.mark.parametrize(
    "model",
    [
        {"type": "Unigram", "unk_id": None, "vocab": [["<eos>", 0.0], ["N", -1.0]]},
        {"type": "WordLevel", "unk_token": "?", "vocab": {"<eos>": 0, "N": 1}},
    ],
)
def test_characters_without_a_token(folder, model):
    """tokenizers raises a plain Exception, not before it meets such a character."""
    configure(folder)
    raw = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(raw | {"model": model}))
    tokenizer = load_tokenizer(folder)
    assert encode(["N"], tokenizer)["input_ids"] == [[1]]
    with pytest.raises(InputError, match="the tokenizer cannot read the texts"):
        encode(["No"], tokenizer)


def test_ids_past_the_list_and_past_the_embedding(folder):
    """A number may be left out; one that the model does not have is refused."""
    configure(folder)
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["vocab"]["N"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    assert_as_it_is(folder)
    ids = load_tokenizer(folder)("N")["input_ids"]
    assert ids == [5000]
    with pytest.raises(InputError, match="token id 5000, the model has ids 0 to 299"):
        check_ids(ragged([ids]), 300)
