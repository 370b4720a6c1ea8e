"""Floats of 8 bits with scales, against plain loops over the published layouts."""

import json
import re

import families
import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from goracs_jax.errors import InputError
from goracs_jax.models import load_decoder, load_encoder
from goracs_jax.models.float8 import Scales, dequantised
from goracs_jax.models.tensors import Tensors

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
#: The values of a byte, by the definition of each type: sign, exponent, mantissa.
SPLITS = {E4M3: (4, 7), E5M2: (5, 15)}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
BLOCKS = FP8 | {"weight_block_size": [16, 16]}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}


def compressed(strategy, **weights):
    usual = {"num_bits": 8, "type": "float", "symmetric": True}
    weights = usual | {"strategy": strategy} | weights
    group = {"targets": ["Linear"], "weights": weights}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def number(byte: int, kind) -> float:
    """The value of a byte, which is no special one."""
    exponents, bias = SPLITS[kind]
    mantissas = 7 - exponents
    sign = -1.0 if byte >> 7 else 1.0
    exponent = (byte >> mantissas) & (2**exponents - 1)
    mantissa = (byte & (2**mantissas - 1)) / 2**mantissas
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias)
    return sign * (1 + mantissa) * 2.0 ** (exponent - bias)


def matrix(shape, grid, rows, columns, *, kind=E4M3):
    """A random matrix, its scales, and the numbers that they stand for, in a loop."""
    bytes_ = RNG.integers(0, 0x70, shape) + 0x80 * RNG.integers(0, 2, shape)
    bytes_ = bytes_.astype(np.uint8)
    scales = RNG.uniform(0.5, 2, grid).astype(np.float32)
    table = scales.reshape(-1, 1) if len(grid) < 2 else scales
    expected = np.zeros(shape, np.float32)
    for i in range(shape[0]):
        for j in range(shape[1]):
            scale = table[i // rows, j // columns]
            expected[i, j] = np.float32(number(int(bytes_[i, j]), kind)) * scale
    return bytes_.view(kind), scales, expected


def opened(stored, scales=None):
    read = lambda name, part=(): stored[name][part]
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    narrow = frozenset(n for n, t in stored.items() if t.dtype.itemsize == 1)
    return dequantised(Tensors("m", shapes, read, narrow), scales or Scales())


@pytest.mark.parametrize("kind", [E4M3, E5M2])
@pytest.mark.parametrize("end", ["weight_scale_inv", "weight_scale"])
@pytest.mark.parametrize(
    ("shape", "grid", "block", "stated"),
    [
        ((6, 10), (), (6, 10), None),
        ((6, 10), (1,), (6, 10), None),
        ((6, 10), (1, 1), (6, 10), (4, 4)),
        ((6, 10), (6, 1), (1, 10), None),
        ((6, 10), (6,), (1, 10), None),
        ((6, 10), (3, 5), (2, 2), None),  # what divides the matrix
        ((6, 10), (2, 3), (4, 4), (4, 4)),  # the last blocks are cut off
    ],
)
def test_scales_are_the_loop(kind, end, shape, grid, block, stated):
    numbers, scales, expected = matrix(shape, grid, *block, kind=kind)
    found = opened({"a.weight": numbers, f"a.{end}": scales}, Scales(stated))
    assert found.shapes == {"a.weight": shape}
    assert found.read("a.weight").dtype == np.float32
    np.testing.assert_array_equal(found.read("a.weight"), expected)
    part = (slice(1, 5), slice(3, None))
    np.testing.assert_array_equal(found.read("a.weight", part), expected[part])


def test_scales_may_be_exponents_of_two():
    numbers, _, _ = matrix((4, 4), (), 4, 4)
    exponents = np.array([[126, 127], [128, 130]], np.uint8)
    factors = np.kron([[0.5, 1], [2, 8]], np.ones((2, 2)))
    for scales in (exponents, exponents.view(ml_dtypes.float8_e8m0fnu)):
        stored = {"a.weight": numbers, "a.weight_scale_inv": scales}
        read = lambda name, part=(), stored=stored: stored[name][part]
        shapes = {"a.weight": (4, 4), "a.weight_scale_inv": (2, 2)}
        tensors = Tensors("m", shapes, read, frozenset(["a.weight"]))
        found = dequantised(tensors, Scales()).read("a.weight")
        np.testing.assert_array_equal(found, numbers.astype(np.float32) * factors)


@pytest.fixture
def quantised(write_hf, llama_config, random_llama_tensors):
    """A model whose linear layers are quantised, and the same model in floats."""

    def write(config, end, grid, block):
        tensors = random_llama_tensors(llama_config)
        stored = {}
        for name, tensor in list(tensors.items()):
            stored[name] = tensor
            if "_proj" in name:
                shape = tensor.shape
                numbers, scales, tensors[name] = matrix(
                    shape, grid(shape), *block(shape)
                )
                stored |= {name: numbers, name.removesuffix("weight") + end: scales}
        raw = llama_config | ({"quantization_config": config} if config else {})
        return write_hf(raw, stored, "quantised"), write_hf(tensors=tensors), stored

    return write


whole = (lambda shape: (), lambda shape: shape)
by_row = (lambda shape: (shape[0], 1), lambda shape: (1, shape[1]))
by_block = (lambda shape: (shape[0] // 16, shape[1] // 16), lambda shape: (16, 16))


@pytest.mark.parametrize(
    ("config", "end", "layout"),
    [
        (BLOCKS, "weight_scale_inv", by_block),
        (None, "weight_scale_inv", by_block),
        (FP8, "weight_scale_inv", whole),
        (FBGEMM, "weight_scale", by_row),
        (None, "weight_scale", by_row),
        (compressed("tensor"), "weight_scale", whole),
        (compressed("channel"), "weight_scale", by_row),
        (
            compressed("block", block_structure=[16, 16]),
            "weight_scale",
            by_block,
        ),
    ],
)
def test_a_quantised_model_is_its_floats(quantised, config, end, layout):
    ours, theirs, _ = quantised(config, end, *layout)
    found, expected = (load_decoder(path, key=KEY) for path in (ours, theirs))
    leaves = lambda model: jax.tree.leaves(jax.tree.map(np.asarray, model))
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("config", [None, compressed("tensor")])
def test_scales_of_activations_change_nothing(quantised, write_hf, config):
    """Those of inputs, and of keys and values in the cache of generation."""
    folder, floats, stored = quantised(compressed("tensor"), "weight_scale", *whole)
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    if config is None:  # a model in floats, of which the cache alone is rounded
        del raw["quantization_config"]
        stored = load_file(floats / "model.safetensors")
    inside = ("self_attn.k_scale", "self_attn.v_scale", "self_attn.q_proj.input_scale")
    inside += ("self_attn.k_proj.output_scale",)
    names = [f"model.layers.{i}.{name}" for i in (0, 1) for name in inside]
    more = stored | {name: np.ones((1,), np.float32) for name in names}
    found = load_decoder(write_hf(raw, more, "cache"), key=KEY)
    expected = load_decoder(floats, key=KEY)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{UP}_scale_inv"), "weight_scale, is missing"),
        (lambda t: t.pop(UP), "has a scale and no floats of 8 bits"),
        (
            lambda t: t.update({f"{UP}_scale": np.ones((1,), np.float32)}),
            "has two scales",
        ),
        (
            lambda t: t.update({f"{UP}_scale_inv": np.ones((3, 2), np.float32)}),
            r"has the shape \(64, 32\), it \(3, 2\)",
        ),
        (
            lambda t: t.update({UP: np.full((64, 32), np.nan, E4M3)}),
            "up_proj.weight has NaN or infinity",
        ),
        (
            lambda t: t.update(
                {f"{UP}_scale_inv": np.full((4, 2), np.inf, np.float32)}
            ),
            "up_proj.weight has NaN or infinity",
        ),
    ],
)
def test_a_part_that_does_not_fit(quantised, write_hf, change, message):
    folder, _, stored = quantised(BLOCKS, "weight_scale_inv", *by_block)
    raw = json.loads((folder / "config.json").read_text())
    change(stored)
    with pytest.raises(InputError, match=message):
        load_decoder(write_hf(raw, stored, "bad"), key=KEY)


@pytest.mark.parametrize("name", ["scale_weight", "scale"])
def test_scales_of_another_convention_are_named(write_hf, random_llama_tensors, name):
    raw = json.loads((write_hf() / "config.json").read_text())
    stored = random_llama_tensors(raw)
    stored[UP] = stored[UP].astype(E4M3)
    other = UP.replace("weight", name)
    stored[other] = np.ones((1,), np.float32)
    with pytest.raises(InputError, match=rf"{other} scales floats of 8 bits under an"):
        load_decoder(write_hf(tensors=stored, name="other"), key=KEY)


def test_config_and_weights_belong_together(quantised, llama_config):
    folder, floats, _ = quantised(BLOCKS, "weight_scale_inv", *by_block)
    (floats / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="says that weights are floats of 8 bits"):
        load_decoder(floats, key=KEY)


def test_floats_without_any_scales_are_as_they_are(write_hf, random_llama_tensors):
    raw_tensors = random_llama_tensors(
        json.loads((write_hf() / "config.json").read_text())
    )
    stored = {n: t.astype(E4M3) if "proj" in n else t for n, t in raw_tensors.items()}
    found = load_decoder(write_hf(tensors=stored, name="cast"), key=KEY)
    expected = stored[UP].astype(np.float32).T
    np.testing.assert_array_equal(found.layers.mlp.up_proj.kernel[1], expected)


def test_only_language_models_have_them(tmp_path, write_hf):
    folder = write_hf(families.BERT, {"embeddings.LayerNorm.weight": np.ones(8, E4M3)})
    with pytest.raises(InputError, match=r"LayerNorm\.weight is stored as F8_E4M3"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "of 'gptq' is not supported"),
        ({"quant_method": "awq"}, "of 'awq' is not supported"),
        ({"quant_method": "mxfp4"}, "of 'mxfp4' is not supported"),
        ({"quant_method": ["fp8"]}, "is not supported"),
        (BLOCKS | {"fmt": "e5m2"}, "fmt 'e5m2' is not"),
        (BLOCKS | {"weight_block_size": [128]}, "a block must have two numbers"),
        (BLOCKS | {"rotation": 1}, "'rotation' (1) is not known"),
        (compressed("group"), "strategy 'group' is not"),
        (compressed("tensor", num_bits=4), "num_bits 4 is not"),
        (
            compressed("tensor") | {"format": "pack-quantized"},
            "format 'pack-quantized' is not",
        ),
        (compressed("tensor") | {"config_groups": {}}, "must name a group"),
    ],
)
def test_other_methods_are_named_before_any_weight_is_read(
    write_hf, llama_config, config, named
):
    raw = llama_config | {"quantization_config": config}
    with pytest.raises(InputError, match=re.escape(named)) as error:
        load_decoder(write_hf(raw, {}), key=KEY)
    assert "\n" not in str(error.value)
