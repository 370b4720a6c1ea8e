"""transformers, seen in 5.24.0, without PyTorch."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast


@pytest.fixture
def saved(tmp_path):
    """A tokenizer that takes "12" in one piece, in a folder, with its class's name."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["one two"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())

    def save(name):
        changed = json.dumps(config | {"tokenizer_class": name})
        (tmp_path / "tokenizer_config.json").write_text(changed)
        return tmp_path

    return fast, save


@pytest.mark.parametrize(
    ("name", "kept"), [("GPT2Tokenizer", False), ("PreTrainedTokenizerFast", True)]
)
def test_a_tokenizer_is_rebuilt_by_the_name_of_its_class(saved, name, kept):
    """transformers 5.24: `AutoTokenizer` takes some parts from the class, not the file.

    With "GPT2Tokenizer" in tokenizer_config.json, the pre-tokenizer that stands in
    tokenizer.json is replaced by GPT-2's, and other tokens come out. So
    `load_tokenizer` (goracs_jax/models/tokenizer.py) never asks for the class of a
    folder that has a tokenizer.json, the tokenizer of a GGUF file is a
    PreTrainedTokenizerFast, and the files of a folder are copied and not saved anew
    (goracs_jax/models/merge.py).
    """
    fast, save = saved
    parts = lambda t: json.loads(t.backend_tokenizer.to_str())["pre_tokenizer"]
    again = AutoTokenizer.from_pretrained(save(name))
    assert (parts(again) == parts(fast)) == kept, (
        "AutoTokenizer follows tokenizer.json: models/tokenizer.py may use any class"
    )


def test_code_of_a_folder_is_asked_for_though_it_is_not_needed(saved, monkeypatch):
    """transformers 5.24: with `auto_map`, a folder's own tokenizer class is to be run.

    `AutoTokenizer` asks on standard input whether to run it, and if it must not, it
    refuses the folder although tokenizer.json has all that is needed. So
    `load_tokenizer` (goracs_jax/models/tokenizer.py) says trust_remote_code=False and
    takes PreTrainedTokenizerFast for such a folder.
    """
    fast, save = saved
    folder = save("Tok")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    auto_map = {"auto_map": {"AutoTokenizer": ["tok.Tok", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | auto_map))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "n")
    with pytest.raises(ValueError, match="custom code"):
        AutoTokenizer.from_pretrained(folder)
    assert len(asked) == 1, "nothing is asked: trust_remote_code need not be given"
    with pytest.raises(ValueError, match="custom code"):
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    found = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
    assert len(asked) == 1
    assert found("12 one")["input_ids"] == fast("12 one")["input_ids"]


@pytest.mark.parametrize(
    "fields", [{"eos_token": "o"}, {"split_special_tokens": True, "eos_token": "<s>"}]
)
def test_a_tokenizer_is_changed_by_its_configuration(saved, fields):
    """transformers 5.24: PreTrainedTokenizerFast, too, gives other ids than the file.

    Tokens that have a role are added as special ones, which are cut out of words, and
    special ones may be split. So `load_tokenizer` (goracs_jax/models/tokenizer.py) puts
    the tokenizer of tokenizer.json back.
    """
    _, save = saved
    folder = save("PreTrainedTokenizerFast")
    described = Tokenizer.from_file(str(folder / "tokenizer.json"))
    described.add_special_tokens(["<s>"])
    described.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | fields))
    found = PreTrainedTokenizerFast.from_pretrained(folder)
    assert found("one<s>two")["input_ids"] != described.encode("one<s>two").ids, (
        "the configuration changes no ids: load_tokenizer need not replace _tokenizer"
    )


def test_rope_theta_is_inside_rope_parameters():
    """transformers 5.24: the old spelling of rotations is read, the new one is written.

    So `read_decoder_config` (goracs_jax/models/hf_config.py) reads both, and what
    `save_merged` (goracs_jax/models/merge.py) writes has both.
    """
    old = {"rope_theta": 123.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    config = AutoConfig.for_model("llama", **old)
    rope = config.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"], rope["factor"]) == (123, "linear", 2)
    written = config.to_dict()
    gone = "transformers writes rope_theta at the top again: one spelling is enough"
    assert written["rope_parameters"]["rope_theta"] == 123.0, gone
    assert "rope_theta" not in written, gone


def test_the_type_of_weights_is_written_as_dtype():
    """transformers 5.24: "torch_dtype" is read and written as "dtype".

    So `save_merged` (goracs_jax/models/merge.py) drops the old name.
    """
    config = AutoConfig.for_model("llama", torch_dtype="bfloat16").to_dict()
    assert config["dtype"] == "bfloat16"
    assert "torch_dtype" not in config, "torch_dtype is back: save_merged may keep it"


def test_query_and_key_rows_of_gguf_files_are_permuted():
    """llama.cpp, as transformers 5.24 reads it: query and key rows are interleaved.

    The converter of llama.cpp puts the two halves of every head between each other,
    for Llama alone. So `unpermute` (goracs_jax/models/gguf_file.py) takes them apart.
    """
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    config = {"num_attention_heads": 2, "num_key_value_heads": 1}
    reader = LlamaTensorProcessor(config=config)
    stored = np.arange(8)[:, None]
    rows = lambda name: reader.process(stored, name).weights.ravel().tolist()
    gone = "GGUF files have rows in Hugging Face's order: unpermute can go"
    assert rows("blk.0.attn_q.weight") == [0, 2, 1, 3, 4, 6, 5, 7], gone
    assert rows("blk.0.attn_k.weight") == [0, 2, 4, 6, 1, 3, 5, 7], gone
    assert rows("blk.0.attn_v.weight") == list(range(8))


IMPORT = """
import importlib.util as util, sys
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
import transformers
"""


@pytest.mark.parametrize("quiet", [False, True])
def test_an_import_without_pytorch_announces_it(monkeypatch, quiet):
    """transformers 5.24: a line on standard error says that PyTorch is absent.

    So `load_tokenizer` (goracs_jax/models/tokenizer.py) sets
    TRANSFORMERS_NO_ADVISORY_WARNINGS before it imports transformers.
    """
    monkeypatch.delenv("TRANSFORMERS_NO_ADVISORY_WARNINGS", raising=False)
    if quiet:
        monkeypatch.setenv("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True
    )
    assert ("PyTorch was not found" in done.stderr) != quiet, (
        "transformers is quiet: the variable in models/tokenizer.py can go"
    )
