"""Which files of a model's folder are read, and what is in them."""

import json
import os
import re
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from goracs_jax.errors import InputError
from goracs_jax.models import load_decoder
from goracs_jax.models.folder import inside, load_json
from goracs_jax.models.tensors import finite_floats
from goracs_jax.models.tokenizer import load_tokenizer

KEY = jax.random.key(0)


@pytest.fixture
def shards(write_hf, random_llama_tensors, llama_config):
    """A model in two files; returns its folder and a function that names the second."""
    folder = write_hf()
    tensors = random_llama_tensors(llama_config)
    (folder / "model.safetensors").unlink()
    last = "model.norm.weight"
    rest = {name: w for name, w in tensors.items() if name != last}
    save_file(rest, folder / "model-1.safetensors")
    save_file({last: tensors[last]}, folder / "model-2.safetensors")

    def name(second):
        weight_map = dict.fromkeys(rest, "model-1.safetensors") | {last: second}
        index = {"weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return folder, name


def test_shards_are_in_the_folder(shards, tmp_path):
    folder, name = shards
    other = tmp_path / "elsewhere"
    other.mkdir()
    away = other / "model-2.safetensors"
    os.rename(folder / "model-2.safetensors", away)
    (folder / "link").symlink_to(away)
    (folder / "linked").symlink_to(other)
    (folder / "loop").symlink_to(folder / "loop")
    named = ["../elsewhere/model-2.safetensors", str(away), "link", "loop"]
    for second in [*named, "linked/model-2.safetensors"]:
        with pytest.raises(InputError, match="leads outside the model's folder") as e:
            load_decoder(name(second), key=KEY)
        assert repr(second) in str(e.value)
        assert "index.json" in str(e.value)
    inner = folder / "inner"  # a link to another file of the folder is none outside
    inner.mkdir()
    os.rename(away, inner / "x")
    (folder / "link").unlink()
    (folder / "link").symlink_to("inner/x")
    load_decoder(name("link"), key=KEY)


@pytest.mark.parametrize("within", ["", "model", "a/b"])
def test_a_snapshot_of_the_cache_of_hugging_face(shards, tmp_path, within):
    folder, name = shards
    name("model-2.safetensors")
    repository = tmp_path / "models--some--model"
    snapshot = repository / "snapshots" / "0f" / within
    blobs = repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, file in enumerate(folder.iterdir()):
        os.rename(file, blobs / str(i))
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / str(i), snapshot))
    load_decoder(snapshot, key=KEY)
    index = snapshot / "model.safetensors.index.json"
    blob = (snapshot / "model-2.safetensors").resolve().name
    text = index.read_text().replace("model-2.safetensors", f"../../blobs/{blob}")
    index.write_text(text)  # such a blob is not in the folder's hash
    if not within:
        with pytest.raises(InputError, match="leads outside the model's folder"):
            load_decoder(snapshot, key=KEY)
    shutil.move(blobs / blob, repository / blob)
    second = snapshot / "model-2.safetensors"
    second.unlink()
    second.symlink_to(repository / blob)
    with pytest.raises(InputError, match="leads outside the model's folder"):
        inside(snapshot, second.name, index)


def test_blobs_are_those_of_the_cache(tmp_path):
    """A folder that is called snapshots, or blobs, is none of Hugging Face."""
    for home in ("some/snapshots/0f", "models--some/0f"):
        folder = tmp_path / home
        folder.mkdir(parents=True)
        blobs = folder.parents[1] / "blobs"
        blobs.mkdir(exist_ok=True)
        (blobs / "1").touch()
        (folder / "w").symlink_to(blobs / "1")
        with pytest.raises(InputError, match="leads outside the model's folder"):
            inside(folder, "w", folder)


@pytest.mark.parametrize(
    "second", ["", ".", "./", "/", "a\0b", "a\nb", "a\x1bb", "long" * 64]
)
def test_names_that_are_none_of_a_file(shards, second):
    _, name = shards
    with pytest.raises(InputError, match="is no name of a file") as error:
        load_decoder(name(second), key=KEY)
    assert repr(second) in str(error.value)
    assert str(error.value).isprintable()


def test_shards_that_are_no_files(shards):
    folder, name = shards
    (folder / "sub").mkdir()
    os.mkfifo(folder / "sub" / "pipe")
    for second, fault in [
        ("none", "is missing"),
        ("sub", "is not a file"),
        ("sub/pipe", "is not a file"),
    ]:
        with pytest.raises(InputError, match=f"/{second}: {fault}: fetch it again"):
            load_decoder(name(second), key=KEY)


def test_the_index_is_right_for_every_tensor(shards):
    folder, name = shards
    name("model-2.safetensors")
    index = folder / "model.safetensors.index.json"
    whole = json.loads(index.read_text())["weight_map"]
    last = "model.norm.weight"
    less = {k: v for k, v in whole.items() if k != "lm_head.weight"}
    for weight_map, message in [
        (whole | {"x": "model-1.safetensors"}, "x is nowhere, not in model-1"),
        (less, r"lm_head\.weight is in model-1\.safetensors, not nowhere"),
        (
            whole | {last: "model-1.safetensors", "lm_head.weight": whole[last]},
            r"lm_head\.weight is in model-1\.safetensors, not in model-2\.safetensors",
        ),
    ]:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(InputError, match=f"index.json: tensor {message}"):
            load_decoder(folder, key=KEY)


def test_shards_without_an_index(shards):
    folder, _ = shards
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    message = r"no model\.safetensors\.index\.json, which says what is in model-1\.saf"
    with pytest.raises(InputError, match=message):
        load_decoder(folder, key=KEY)


def test_a_tensor_in_two_shards(shards, random_llama_tensors, llama_config):
    folder, name = shards
    tensors = random_llama_tensors(llama_config)
    twice = {k: tensors[k] for k in ("model.norm.weight", "lm_head.weight")}
    save_file(twice, folder / "model-2.safetensors")
    message = "lm_head.weight is in model-1.safetensors and in model-2.safetensors"
    with pytest.raises(InputError, match=message):
        load_decoder(name("model-2.safetensors"), key=KEY)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": [-Infinity]}', "-Infinity is no number"),
        ('{"a": 1e999}', "1e999 is no number"),
        ('{"a": 1, "a": 1}', "key 'a' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"a": 1' + "0" * 5000 + "}", "not JSON"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_json_that_is_refused(tmp_path, text, named):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=named) as error:
        load_json(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "x.gguf"]
)
def test_what_git_leaves_in_the_place_of_a_large_file(write_hf, tmp_path, name):
    folder = write_hf()
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
    (folder / name).write_text(text)
    read = {
        "config.json": lambda: load_decoder(folder, key=KEY),
        "model.safetensors": lambda: load_decoder(folder, key=KEY),
        "tokenizer.json": lambda: load_tokenizer(folder),
        "x.gguf": lambda: load_decoder(folder / name, key=KEY),
    }
    with pytest.raises(InputError, match="fetch it with git lfs pull"):
        read[name]()


def test_a_folder_where_a_file_belongs(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_json(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_json(tmp_path / "none" / "x.json")


def test_names_that_stay_inside(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("a", "real/a", "link/a", "..a"):
        assert inside(tmp_path, name, tmp_path) == tmp_path / name


BAD = {
    "integers": (lambda w: w.astype(np.int32), "has numbers of type int32, not floats"),
    "booleans": (lambda w: w > 0, "has numbers of type bool, not floats"),
    "bytes": (lambda w: w.astype(np.uint8), "has numbers of type uint8, not floats"),
    "NaN": (lambda w: np.where(w == w.ravel()[-1], np.nan, w), "has NaN or infinity"),
    "infinity": (lambda w: np.where(w == w.ravel()[0], -np.inf, w), "has NaN or inf"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj"])
def test_weights_are_finite_floats(write_hf, random_llama_tensors, kind, name):
    spoil, message = BAD[kind]
    folder = write_hf()
    tensors = random_llama_tensors(json.loads((folder / "config.json").read_text()))
    name = name.removesuffix(".weight") + ".weight"
    bad = spoil(tensors[name])
    tensors[name] = bad.astype(np.float32) if bad.dtype == np.float64 else bad
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"tensor {name} {message}"):
        load_decoder(folder, key=KEY)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "MXFP4"),
        ("model.layers.0.mlp.up_proj.weight_scale_2", "NVFP4"),
        ("model.layers.0.mlp.up_proj.codes", "AQLM"),
        ("model.layers.0.mlp.up_proj.weight._data", "quanto"),
        ("model.layers.0.mlp.up_proj.weight_scales", "EETQ"),
        ("model.layers.0.mlp.up_proj.qweight", "GPTQ or AWQ"),
        ("model.layers.0.mlp.up_proj.weight_packed", "compressed-tensors"),
        ("model.layers.0.mlp.up_proj.W_q", "HQQ"),
        ("model.embed_tokens.biases", "MLX"),
        ("model.layers.0.mlp.up_proj._weight_qdata", "torchao"),
    ],
)
def test_quantised_weights_without_their_config_are_named(
    write_hf, random_llama_tensors, llama_config, name, method
):
    tensors = random_llama_tensors(llama_config) | {name: np.zeros((2, 2), np.uint8)}
    match = f"{re.escape(name)} is of weights that {method} quantised"
    with pytest.raises(InputError, match=match):
        load_decoder(write_hf(tensors=tensors), key=KEY)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
)
def test_the_bits_of_a_float_tell_whether_it_is_finite(dtype):
    largest = ml_dtypes.finfo(dtype).max
    finite = np.array([[0, -0.0, 1], [-1, 1e-7, largest]], dtype)
    for x in (finite, finite.T, finite[:, 1:], finite[:0]):
        np.testing.assert_array_equal(finite_floats(x, dtype, "w"), x)
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        x = finite.copy()
        x[1, 1] = bad
        for turned in (x, x.T):
            with pytest.raises(InputError, match="NaN or infinity"):
                finite_floats(turned, dtype, "w")


def test_a_number_that_the_type_cannot_hold():
    with pytest.raises(InputError, match="float16 cannot hold: give a wider"):
        finite_floats(np.array([1e5]), np.float16, "w")
