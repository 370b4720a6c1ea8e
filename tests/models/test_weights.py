import dataclasses
import json
import pickle
import re
from functools import partial

import families
import gguf
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from goracs_jax.errors import InputError
from goracs_jax.models import Decoder, load_decoder, load_encoder
from goracs_jax.models.gguf_config import read_gguf_config

KEY = jax.random.key(0)
IDS = jnp.arange(14).reshape(2, 7)
run = nnx.jit(lambda model, ids: model(ids))


def test_every_weight_arrives_transposed_in_its_layer(write_hf, random_llama_tensors):
    folder = write_hf()
    model = load_decoder(folder, key=KEY)
    stored = random_llama_tensors(model_config(folder))
    for i in range(2):
        name = f"model.layers.{i}.mlp.up_proj.weight"
        np.testing.assert_array_equal(
            model.layers.mlp.up_proj.kernel[i], stored[name].T
        )
    np.testing.assert_array_equal(model.head[...], stored["lm_head.weight"])


def test_adapters_are_those_of_the_constructor(write_hf):
    model = load_decoder(write_hf(), key=KEY)
    fresh = Decoder(model.config, key=KEY)
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.to_pure_dict(nnx.state(model, nnx.LoRAParam)),
        nnx.to_pure_dict(nnx.state(fresh, nnx.LoRAParam)),
    )


def test_shards_are_the_single_file(write_hf, random_llama_tensors):
    whole = write_hf()
    raw = model_config(whole)
    tensors = random_llama_tensors(raw)
    folder = write_hf(raw, {}, name="sharded")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i, name in enumerate(tensors):
        weight_map[name] = f"model-0000{i % 3 + 1}-of-00003.safetensors"
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(part, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    np.testing.assert_array_equal(
        run(load_decoder(folder, key=KEY), IDS), run(load_decoder(whole, key=KEY), IDS)
    )
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00003"):
        load_decoder(folder, key=KEY)
    index.write_text("{}")
    with pytest.raises(InputError, match="'weight_map' is missing"):
        load_decoder(folder, key=KEY)


def test_bfloat16_files_are_read(write_hf, llama_config, random_llama_tensors):
    tensors = random_llama_tensors(llama_config)
    small = {name: w.astype(ml_dtypes.bfloat16) for name, w in tensors.items()}
    model = load_decoder(write_hf(tensors=small), key=KEY)
    assert model.embed[...].dtype == jnp.float32
    np.testing.assert_array_equal(
        model.embed[...], small["model.embed_tokens.weight"].astype(np.float32)
    )
    half = load_decoder(write_hf(tensors=small, name="2"), key=KEY, dtype=jnp.bfloat16)
    assert half.embed[...].dtype == jnp.bfloat16


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(
    write_hf, llama_config, random_llama_tensors
):
    tied = llama_config | {"tie_word_embeddings": True}
    tensors = random_llama_tensors(tied)
    plain = run(load_decoder(write_hf(tied, tensors), key=KEY), IDS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    again = run(load_decoder(write_hf(tied, tensors, name="again"), key=KEY), IDS)
    np.testing.assert_array_equal(plain, again)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    with pytest.raises(InputError, match="tie_word_embeddings to false"):
        load_decoder(write_hf(tied, tensors, name="other"), key=KEY)


def test_all_misfits_stand_in_one_line(write_hf, llama_config, random_llama_tensors):
    tensors = random_llama_tensors(llama_config)
    del tensors["model.norm.weight"]
    tensors["model.layers.2.mlp.up_proj.weight"] = np.ones((64, 32), np.float32)
    name = "model.layers.1.self_attn.k_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    with pytest.raises(InputError) as error:
        load_decoder(write_hf(tensors=tensors), key=KEY)
    line = str(error.value)
    assert "\n" not in line
    assert "1 missing (model.norm.weight)" in line
    assert "1 unexpected (model.layers.2.mlp.up_proj.weight)" in line
    assert f"1 of the wrong shape ({name} (32, 16) instead of (16, 32))" in line


def test_refuses_pickles_and_what_is_not_there(write_hf, tmp_path):
    folder = write_hf()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        load_decoder(folder, key=KEY)
    weights.unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors: save"):
        load_decoder(folder, key=KEY)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"only pickle: pytorch_model\.bin"):
        load_decoder(folder, key=KEY)
    with pytest.raises(InputError, match="pickle files can run any code"):
        load_decoder(folder / "pytorch_model.bin", key=KEY)
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        load_decoder(folder, key=KEY)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_decoder(folder, key=KEY)
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        load_decoder(tmp_path / "nowhere", key=KEY)
    weights.write_bytes(whole)
    with pytest.raises(InputError, match="a folder with config"):
        load_decoder(weights, key=KEY)


# The pattern of Gemma's windows and the scale of its scores do not stand in a file:
# they are those of the published models.
GGUF_FAMILIES = {
    "llama": {},
    "llama-linear": {},
    "llama-bias": {},
    "llama-3": {"head_dim": 8},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 12},
    "gemma3": {
        "query_pre_attn_scalar": 12,
        "sliding_window_pattern": 6,
        "num_hidden_layers": 7,
        "rope_parameters": families.BOTH
        | {"sliding_attention": {"rope_theta": 10000.0}},
    },
}


@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_gguf_is_the_model_of_safetensors(
    write_hf, write_gguf, random_llama_tensors, family
):
    raw = families.raw_config(family, **GGUF_FAMILIES[family])
    tensors = random_llama_tensors(raw)
    theirs = load_decoder(write_hf(raw, tensors), key=KEY)
    if family == "llama-3":  # its scaling becomes a tensor, what is divided by it
        tensors["rope_freqs.weight"] = np.array(theirs.config.rope.divisors, np.float32)
        assert len(set(theirs.config.rope.divisors)) == 3
        raw["rope_parameters"] = families.PLAIN
    ours = load_decoder(write_gguf(raw, tensors), key=KEY)
    # The file rounds numbers to float32, and with them w to that of 1 + w.
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=2e-7)
    ours_config, theirs_config = (dataclasses.asdict(m.config) for m in (ours, theirs))
    for name in ("biases", "activation"):
        assert ours_config.pop(name) == theirs_config.pop(name)
    if family != "gemma3":  # the same rotation, said or left out
        assert ours_config["sliding_rope"] is theirs_config["sliding_rope"] is None
    jax.tree.map(close, ours_config, theirs_config)
    jax.tree.map(close, nnx.state(ours, nnx.Param), nnx.state(theirs, nnx.Param))


@pytest.mark.parametrize(
    ("family", "layers", "divisor"),
    [("gemma2", 46, 32 / 4), ("gemma3", 62, 32 / 4), ("gemma3", 48, 12)],
)
def test_gguf_scores_of_the_largest_gemma(
    write_gguf, random_llama_tensors, family, layers, divisor
):
    raw = families.raw_config(family, num_hidden_layers=layers, intermediate_size=8)
    path = write_gguf(raw, random_llama_tensors(raw))
    config = load_decoder(path, key=KEY).config
    assert config.attention_scale == divisor**-0.5


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16"])
def test_quantised_gguf(write_gguf, llama_config, random_llama_tensors, kind):
    tied = llama_config | {"tie_word_embeddings": True}
    tensors = random_llama_tensors(tied)
    path = write_gguf(tied, tensors, kind=gguf.GGMLQuantizationType[kind])
    model = load_decoder(path, key=KEY)
    assert model.config.tie_embeddings
    name = "model.layers.1.mlp.down_proj.weight"
    blocks = gguf.quants.quantize(tensors[name], gguf.GGMLQuantizationType[kind])
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(model.layers.mlp.down_proj.kernel[1], expected.T)


def test_gguf_refuses(write_gguf, llama_config, random_llama_tensors, tmp_path):
    tensors = random_llama_tensors(llama_config)
    for key, value, named in [
        ("rope.scaling.type", "yarn", "llama.rope.scaling.type 'yarn'"),
        ("expert_count", 8, "llama.expert_count 8 is not supported"),
        ("rope.dimension_count", 4, "llama.rope.dimension_count 4"),
        ("attention.sliding_window", 7, "'llama.attention.sliding_window' (7) is not"),
        ("attention.scale", 0.5, "'llama.attention.scale' (0.5) is not known"),
    ]:
        path = write_gguf(llama_config, tensors, changes={key: value})
        with pytest.raises(InputError, match=re.escape(named)):
            load_decoder(path, key=KEY)
    twice = tensors | {"rope_freqs.weight": np.ones(4, np.float32)}
    scaled = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    with pytest.raises(InputError, match="rope is scaled twice"):
        load_decoder(write_gguf(llama_config, twice, changes=scaled), key=KEY)
    short = tensors | {"rope_freqs.weight": np.ones(3, np.float32)}
    with pytest.raises(InputError, match=r"rope_freqs.weight has 3 numbers for .* 4: "):
        load_decoder(write_gguf(llama_config, short), key=KEY)
    with pytest.raises(InputError, match=r"general\.architecture 'gpt2'"):
        load_decoder(write_gguf(llama_config, tensors, arch="gpt2"), key=KEY)
    del tensors["model.embed_tokens.weight"]
    with pytest.raises(InputError, match=r"token_embd\.weight is missing"):
        load_decoder(write_gguf(llama_config, tensors), key=KEY)
    path = tmp_path / "model.gguf"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match="not a complete GGUF file"):
        load_decoder(path, key=KEY)
    path.write_bytes(b"what is this")
    with pytest.raises(InputError, match="not a complete GGUF file"):
        load_decoder(path, key=KEY)
    with pytest.raises(InputError, match="no such file"):
        load_decoder(tmp_path / "none.gguf", key=KEY)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the writer
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("kind", [None, "Q8_0", "F16"])
def test_gguf_weights_are_finite(
    write_gguf, llama_config, random_llama_tensors, kind, value
):
    tensors = random_llama_tensors(llama_config)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = value
    kind = kind and gguf.GGMLQuantizationType[kind]
    path = write_gguf(llama_config, tensors, kind=kind)
    message = r"blk\.1\.ffn_up\.weight has NaN or infinity"
    with pytest.raises(InputError, match=message):
        load_decoder(path, key=KEY)


def model_config(folder):
    return json.loads((folder / "config.json").read_text())


def test_encoder_takes_every_spelling_of_its_names(tmp_path):
    raw = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 10,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    rng = np.random.default_rng(0)
    dim = {"query": (8, 8), "key": (8, 8), "value": (8, 8)}
    layers = {f"attention.self.{name}": shape for name, shape in dim.items()} | {
        "attention.output.dense": (8, 8),
        "attention.output.LayerNorm": (8,),
        "intermediate.dense": (12, 8),
        "output.dense": (8, 12),
        "output.LayerNorm": (8,),
    }
    shapes = {
        "embeddings.word_embeddings.weight": (20, 8),
        "embeddings.position_embeddings.weight": (10, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "embeddings.LayerNorm.weight": (8,),
        "embeddings.LayerNorm.bias": (8,),
    }
    for i in range(2):
        for name, shape in layers.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
    tensors = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    } | {"cls.predictions.bias": np.zeros(20, np.float32)}
    hidden = []
    for spelling, stored in {"new": tensors, "old": old}.items():
        folder = tmp_path / spelling
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(raw))
        save_file(stored, folder / "model.safetensors")
        hidden.append(load_encoder(folder).hidden(IDS))
    np.testing.assert_array_equal(*hidden)
    del tensors["encoder.layer.1.output.LayerNorm.bias"]
    save_file(tensors, tmp_path / "new" / "model.safetensors")
    with pytest.raises(InputError, match=r"1 missing .*1\.output\.LayerNorm\.bias"):
        load_encoder(tmp_path / "new")


def test_config_from_gguf_needs_its_keys():
    with pytest.raises(InputError, match=r"'llama\.attention\.head_count' is missing"):
        read_gguf_config({"general.architecture": "llama"}, "m.gguf", {})
