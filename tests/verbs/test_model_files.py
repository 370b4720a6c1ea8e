"""What is read of a model's folder is in the hash of a stage, and nothing is run."""

import builtins
import json
import os
import shutil

import numpy as np
import pytest
import tiny
from commands import TEXTS, assert_refused, edit_config, edit_tensors, run
from safetensors.numpy import load_file, save_file

from goracs_jax.models.tokenizer import load_tokenizer
from goracs_jax.runs import opened
from goracs_jax.runs.opened import hash_model

EMBED = "embed --data train.jsonl --model llm --adapter adapter --out e.npy"
ANSWERS = """{"instruction": "Is it?", "output": "Yes"}
{"instruction": "And?", "output": "No"}
"""


def shard(folder):
    """Put the weights of a folder into two files with their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(part, folder / file)
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)


def flip(path):
    """Change one bit of the last byte: the least of a float, or a bracket."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def test_every_byte_of_a_model_is_in_the_hash_of_a_stage(files, capsys):
    shard(files / "llm")
    tiny.write_adapter(files / "adapter")
    assert run(EMBED, None) == 0
    first = np.load("e.npy")
    read = [p for name in ("llm", "adapter") for p in sorted((files / name).iterdir())]
    names = {path.name for path in read}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {"model-0.safetensors", "model-1.safetensors"} <= names
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    for path in read:
        flip(path)
        capsys.readouterr()
        # Of JSON it is the last bracket, without which it is none.
        broken = path.suffix == ".json"
        assert run(f"{EMBED} --dry-run", None) == (2 if broken else 0), path
        assert ("to do" in capsys.readouterr().out) != broken, path
        flip(path)
        assert run(f"{EMBED} --dry-run", None) == 0
        assert "already done" in capsys.readouterr().out, path
    last = files / "llm" / "model-1.safetensors"  # and it is computed, not only said
    last.write_bytes(last.read_bytes()[:-1] + b"\x3e")
    assert run(EMBED, None) == 0
    assert not np.array_equal(np.load("e.npy"), first)


def test_a_gguf_file_and_links_are_hashed(tmp_path):
    file, folder = tmp_path / "m.gguf", tmp_path / "m"
    folder.mkdir()
    file.write_bytes(b"one")
    (folder / "w").symlink_to(file)  # as in the cache of Hugging Face
    before = hash_model(file), hash_model(folder)
    flip(file)
    after = hash_model(file), hash_model(folder)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_shard_from_elsewhere(files, capsys):
    shard(files / "llm")
    shutil.move("llm/model-1.safetensors", "away.safetensors")
    index = files / "llm" / "model.safetensors.index.json"
    whole = index.read_text()
    named = ("../away.safetensors", str(files / "away.safetensors"))
    for name in named:
        index.write_text(whole.replace("model-1.safetensors", name))
        message = rf"index\.json: '{name}' leads outside the model's folder"
        assert_refused(TEXTS, 5, capsys, message)
    index.write_text(whole)
    (files / "llm" / "model-1.safetensors").symlink_to(files / "away.safetensors")
    message = r"index\.json: 'model-1.safetensors' leads outside the model's folder"
    assert_refused(TEXTS, 5, capsys, message)


VERBS = {
    "embed": "embed --data train.jsonl --model llm --out e.npy",
    "grads": "grads --data train.jsonl --model llm --out g.npy",
    "select": TEXTS + " --budget 5",
    "finetune": "finetune --data train.jsonl --valid valid.jsonl --model llm --out f",
    "evaluate": "evaluate --task ctr --test ctr.jsonl --model llm --out m.json",
    "merge": "merge --model llm --adapter adapter --out f",
    "compare": "compare --train train.jsonl --valid valid.jsonl --test ctr.jsonl "
    "--task ctr --model llm --methods random --budgets 4 --out f",
}


def filled(value):
    """A change of one weight."""

    def spoil(tensor):
        tensor = tensor.copy()
        tensor[3, 3] = value
        return tensor

    return spoil


BAD_WEIGHTS = {
    "NaN": (filled(np.nan), "NaN or infinity"),
    "infinity": (filled(-np.inf), "NaN or infinity"),
    "integers": (lambda w: w.astype(np.int32), "numbers of type int32"),
    "booleans": (lambda w: w > 0, "numbers of type bool"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_takes_weights_that_are_no_numbers(files, capsys, verb, kind):
    spoil, message = BAD_WEIGHTS[kind]
    (files / "ctr.jsonl").write_text(ANSWERS)
    tiny.write_adapter(files / "adapter")
    name = "model.layers.1.mlp.down_proj.weight"
    edit_tensors(files / "llm", lambda t: t.update({name: spoil(t[name])}))
    message = rf"llm: tensor {name} has {message}"
    assert_refused(VERBS[verb], None, capsys, message)


@pytest.mark.parametrize("verb", ["embed", "evaluate", "finetune", "merge"])
def test_no_verb_takes_an_adapter_that_is_no_numbers(files, capsys, verb):
    (files / "ctr.jsonl").write_text(ANSWERS)
    path = tiny.write_adapter(files / "adapter") / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = np.inf
    save_file(tensors, path)
    adapter = "" if "--adapter" in VERBS[verb] else " --adapter adapter"
    message = r"adapter: tensor .* has NaN or infinity"
    assert_refused(VERBS[verb] + adapter, None, capsys, message)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", r"two\\nlines"),
        ("\x1b[2Jcleared", r"\\x1b\[2Jcleared"),
        ("long" * 10**5, r"long\w* \.\.\. \w*long\): use weights"),
    ],
)
def test_names_of_tensors_stay_on_one_line(files, capsys, name, shown):
    """A terminal shows what the file says, and does nothing that it says."""
    edit_tensors(files / "llm", lambda t: t.update({name: np.zeros(1, np.float32)}))
    assert_refused(VERBS["embed"], None, capsys, rf"1 unexpected \(.*{shown}")


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    "name", ["llm/config.json", "llm/tokenizer.json", "adapter/adapter_config.json"]
)
def test_what_never_ends_is_not_read(files, capsys, name, kind):
    tiny.write_adapter(files / "adapter")
    path = files / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    command = VERBS["embed"] + " --adapter adapter"
    assert_refused(command, None, capsys, rf"{name}: a device or a pipe: give a file")


RANKS = {
    "r": ({"r": 10**9}, r"\(1000000000, 32\)"),
    "a rank past 32 bits": ({"r": 2**40}, r"\(1099511627776, 32\)"),
    "rank_pattern": ({"rank_pattern": {"1.*v_proj": 10**8}}, r"\(100000000, 32\)"),
    "layers without tensors": (
        {"target_modules": ["q_proj", "v_proj", "k_proj"],
         "rank_pattern": {"k_proj": 10**8}},
        r"4 missing \(.*k_proj.lora_A",
    ),
    "another target": (
        {"target_modules": ["q_proj", "k_proj"]},
        r"4 missing \(.*k_proj.* 4 unexpected \(.*v_proj",
    ),
}  # fmt: skip


def refuse_the_model(monkeypatch):
    """Let no weights be read, and no hash of them be taken."""

    def load(*args, **kwargs):
        raise AssertionError("the adapter is looked at first")

    monkeypatch.setattr(opened, "load_decoder", load)
    monkeypatch.setattr(opened, "hash_model", load)


@pytest.mark.parametrize("field", [{"model_type": "gpt2"}, {"quantization": {}}])
def test_a_model_that_is_not_read_is_not_hashed(files, capsys, monkeypatch, field):
    """The hash reads all weights, which can be hundreds of gigabytes."""
    monkeypatch.setattr(opened, "hash_model", lambda path: pytest.fail("read whole"))
    edit_config(files / "llm", **field)
    assert_refused(VERBS["embed"], None, capsys, "is not supported")


def test_a_table_of_another_size(files, capsys, monkeypatch):
    """A token was added to the vocabulary of another base."""
    refuse_the_model(monkeypatch)
    adapter = tiny.write_adapter(files / "adapter")
    changed = tiny.ADAPTER | {"modules_to_save": ["embed_tokens"]}
    (adapter / "adapter_config.json").write_text(json.dumps(changed))
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"] = np.ones((301, 32))
    save_file(tensors, adapter / "adapter_model.safetensors")
    message = r"1 of the wrong shape \(.*embed_tokens.* \(301, 32\) instead of \(300,"
    assert_refused(EMBED, None, capsys, message)


@pytest.mark.parametrize("kind", RANKS)
@pytest.mark.parametrize("verb", ["embed", "finetune", "merge"])
def test_a_rank_that_no_tensor_has(files, capsys, monkeypatch, verb, kind):
    """It is refused before there is a model, and so before there is memory for it."""
    refuse_the_model(monkeypatch)
    changes, message = RANKS[kind]
    adapter = tiny.write_adapter(files / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(tiny.ADAPTER | changes))
    given = "" if "--adapter" in VERBS[verb] else " --adapter adapter"
    message = rf"adapter: tensors do not fit the model: .*{message}.*: use the"
    assert_refused(VERBS[verb] + given, None, capsys, message)


UNMERGEABLE = {
    "bias": ({"lora_bias": True}, "adds a bias to q_proj, which has none"),
    "head": ({"modules_to_save": ["lm_head"]}, "which are one table in this model"),
}


@pytest.mark.parametrize("dry_run", ["", " --dry-run"])
@pytest.mark.parametrize("kind", UNMERGEABLE)
def test_what_cannot_be_merged_leaves_nothing(files, capsys, kind, dry_run):
    changes, message = UNMERGEABLE[kind]
    edit_config(files / "llm", tie_word_embeddings=True)
    edit_tensors(files / "llm", lambda t: t.pop("lm_head.weight"))
    adapter = tiny.write_adapter(files / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(tiny.ADAPTER | changes))
    tensors = load_file(adapter / "adapter_model.safetensors")
    stem = "base_model.model."
    if kind == "bias":
        biases = [n for n in tensors if n.endswith("lora_B.weight")]
        tensors |= {
            n.replace("weight", "bias"): tensors[n][:, 0].copy() for n in biases
        }
    else:
        tensors[f"{stem}lm_head.weight"] = np.ones((300, 32), np.float32)
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert_refused(VERBS["merge"] + dry_run, None, capsys, message)
    assert not (files / "f").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("initializer_range", None), ("use_cache", "x"), ("id2label", 3)],
)
def test_a_tokenizer_needs_no_config_of_a_model(files, field, value):
    """Fields that change nothing here, but that transformers checks."""
    expected = load_tokenizer(files / "llm")("Name 12")["input_ids"]
    edit_config(files / "llm", **{field: value})
    assert load_tokenizer(files / "llm")("Name 12")["input_ids"] == expected


CODE = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path("was-run").touch()
class Tok(PreTrainedTokenizerFast): pass
"""


@pytest.mark.parametrize("named", [["tok.Tok", None], [None, "tok.Tok"], "tok.Tok"])
def test_code_of_a_folder_is_never_run(files, capsys, monkeypatch, named):
    expected = load_tokenizer(files / "llm")("Name the next tree: 12 ash")["input_ids"]
    (files / "llm" / "tok.py").write_text(CODE)
    config = files / "llm" / "tokenizer_config.json"
    auto_map = {"auto_map": {"AutoTokenizer": named}, "tokenizer_class": "Tok"}
    config.write_text(json.dumps(json.loads(config.read_text()) | auto_map))

    def ask(*arguments):
        raise AssertionError("nothing may be asked")

    monkeypatch.setattr(builtins, "input", ask)
    found = load_tokenizer(files / "llm")("Name the next tree: 12 ash")["input_ids"]
    assert found == expected
    (files / "llm" / "tokenizer.json").unlink()
    message = r"needs code of its own \(auto_map\), which is never run"
    assert_refused(VERBS["embed"], None, capsys, message)
    assert not (files / "was-run").exists()


def test_a_tokenizer_from_elsewhere(files, capsys):
    config = files / "llm" / "tokenizer_config.json"
    whole = json.loads(config.read_text())
    shutil.copy("llm/tokenizer.json", "tokenizer.1.0.json")
    for field, value in [
        ("fast_tokenizer_files", ["../tokenizer.1.0.json"]),
        ("gguf_file", "tokenizer.1.0.json"),
    ]:
        config.write_text(json.dumps(whole | {field: value}))
        message = r"tokenizer_config\.json: '\.\./tokenizer\.1\.0\.json' leads outside"
        assert_refused(VERBS["embed"], None, capsys, message)
