"""Weights in four and eight bits, against plain loops over the published layout."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest

from goracs_jax.errors import InputError
from goracs_jax.models import load_decoder, merge_adapters, save_merged
from goracs_jax.models.bitsandbytes import dequantised
from goracs_jax.models.tensors import Tensors

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
# The table of QLoRA, appendix E.
TABLE = """
-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453
-0.28444138169288635 -0.18477343022823334 -0.09105003625154495 0.0
0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0
"""
NF4 = np.array([float(number) for number in TABLE.split()], np.float32)
FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}
FOUR |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
EIGHT |= {"llm_int8_threshold": 6.0, "llm_int8_skip_modules": ["lm_head"]}


def four_bits(name, shape, *, double, dtype="bfloat16", kind="nf4", storage=np.uint8):
    """A random matrix as it is stored, and the numbers that it stands for."""
    count, table = shape[0] * shape[1], NF4
    places = RNG.integers(0, 16, count + count % 2)
    blocks = -(-count // 64)
    absmax = RNG.uniform(0.5, 2, blocks).astype(np.float32)
    state = {"quant_type": kind, "blocksize": 64, "dtype": dtype, "shape": shape}
    stored = {"absmax": absmax}
    if double:
        bytes_ = RNG.integers(0, 256, blocks).astype(np.uint8)
        outer = RNG.uniform(0.5, 2, -(-blocks // 256)).astype(np.float32)
        inner = np.sort(RNG.uniform(-1, 1, 256)).astype(np.float32)
        stored = {"absmax": bytes_, "nested_absmax": outer, "nested_quant_map": inner}
        state |= {"nested_blocksize": 256, "nested_dtype": "float32"}
        state |= {"nested_offset": 3.5}
        absmax = np.array(
            [inner[b] * outer[i // 256] for i, b in enumerate(bytes_)], np.float32
        ) + np.float32(3.5)
    packed = np.array([16 * a + b for a, b in places.reshape(-1, 2)], np.uint8)
    stored["quant_map"] = table
    text = json.dumps(state).encode()
    stored[f"quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, np.uint8)
    tensors = {f"{name}.{part}": tensor for part, tensor in stored.items()}
    tensors[name] = packed.view(storage)[:, None]
    numbers = [table[places[i]] * absmax[i // 64] for i in range(count)]
    types = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
    kept = np.array(numbers, np.float32).astype(types.get(dtype, np.float32))
    return tensors, kept.astype(np.float32).reshape(shape)


def eight_bits(name, shape):
    numbers = RNG.integers(-127, 128, shape).astype(np.int8)
    scales = RNG.uniform(0.5, 2, shape[0]).astype(np.float32)
    stem = name.removesuffix(".weight")
    tensors = {name: numbers, f"{stem}.SCB": scales}
    tensors[f"{name}_format"] = np.array(0, np.uint8)
    rows = [
        [int(q) * scale / np.float32(127) for q in row]
        for row, scale in zip(numbers, scales, strict=True)
    ]
    return tensors, np.array(rows, np.float32)


def opened(stored, bits):
    read = lambda name, part=(): stored[name][part]
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    return dequantised(Tensors("m", shapes, read), bits)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [[6, 64], [5, 13], [300, 70]])
def test_four_bits_are_the_loop(double, dtype, shape):
    stored, expected = four_bits("w", shape, double=double, dtype=dtype)
    found = opened(stored, 4)
    assert found.shapes == {"w": tuple(shape)}
    np.testing.assert_array_equal(found.read("w").astype(np.float32), expected)
    part = (slice(1, 4), slice(None))
    np.testing.assert_array_equal(found.read("w", part), found.read("w")[part])


def test_four_bits_may_be_stored_as_other_types():
    shape = [4, 64]
    for storage in (ml_dtypes.bfloat16, np.float32):
        stored, expected = four_bits("w", shape, double=True, storage=storage)
        found = opened(stored, 4).read("w").astype(np.float32)
        np.testing.assert_array_equal(found, expected)


def test_eight_bits_are_the_loop():
    stored, expected = eight_bits("w.weight", (5, 7))
    found = opened(stored, 8)
    assert found.shapes == {"w.weight": (5, 7)}
    # One rounding of the scale, and one of the product.
    np.testing.assert_allclose(found.read("w.weight"), expected, rtol=2e-7)


@pytest.fixture
def quantised(write_hf, llama_config, random_llama_tensors):
    """A model whose linear layers are quantised, and the same model in floats."""

    def write(config, quantise):
        tensors = random_llama_tensors(llama_config)
        stored = {}
        for name, tensor in list(tensors.items()):
            if "_proj" in name:
                parts, tensors[name] = quantise(name, list(tensor.shape))
                stored |= parts
            else:
                stored[name] = tensor
        raw = llama_config | {"quantization_config": config}
        return write_hf(raw, stored, "quantised"), write_hf(tensors=tensors), stored

    return write


def double(name, shape):
    return four_bits(name, shape, double=True)


@pytest.mark.parametrize(("config", "how"), [(FOUR, double), (EIGHT, eight_bits)])
def test_a_quantised_model_is_its_floats(quantised, config, how, tmp_path):
    ours, theirs, _ = quantised(config, how)
    found, expected = (load_decoder(path, key=KEY) for path in (ours, theirs))
    leaves = lambda model: jax.tree.leaves(jax.tree.map(np.asarray, model))
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-7)
    save_merged(merge_adapters(found), ours, tmp_path / "merged")
    again = load_decoder(tmp_path / "merged", key=KEY)
    name = lambda model: np.asarray(model.layers.mlp.up_proj.kernel[...])
    np.testing.assert_array_equal(name(again), name(found))


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{UP}.absmax"), r"absmax is missing"),
        (lambda t: t.pop(f"{UP}.nested_absmax"), r"nested_absmax is missing"),
        (lambda t: t.update({UP: t[UP][:-1]}), r"up_proj\.weight does not fit"),
        (
            lambda t: t.update({f"{UP}.quant_map": NF4[:15]}),
            r"quant_map does not fit",
        ),
        (
            lambda t: t.update({f"{UP}.quant_map": NF4 * np.float32(np.nan)}),
            r"quant_map does not fit",
        ),
        (
            lambda t: t.update({f"{UP}.absmax": t[f"{UP}.absmax"].astype(np.float32)}),
            r"absmax does not fit",
        ),
        (
            lambda t: t.update(
                {f"{UP}.quant_state.bitsandbytes__nf4": np.zeros(3, np.uint8)}
            ),
            r"bitsandbytes__nf4: not JSON",
        ),
    ],
)
def test_a_part_that_does_not_fit(quantised, write_hf, change, message):
    folder, _, stored = quantised(FOUR, double)
    raw = json.loads((folder / "config.json").read_text())
    change(stored)
    with pytest.raises(InputError, match=message):
        load_decoder(write_hf(raw, stored, "bad"), key=KEY)


def test_config_and_weights_belong_together(quantised, write_hf, llama_config):
    folder, floats, stored = quantised(FOUR, double)
    with pytest.raises(InputError, match="has no quantization_config, and the weights"):
        load_decoder(write_hf(llama_config, stored, "plain"), key=KEY)
    (floats / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="says 4 bits, and the weights are not"):
        load_decoder(floats, key=KEY)
