import struct
import tracemalloc

import gguf
import numpy as np
import pytest

from goracs_jax.errors import InputError
from goracs_jax.models import gguf_file
from goracs_jax.models.gguf_file import open_gguf, part_names, unpermute
from goracs_jax.runs.opened import hash_model

Kind = gguf.GGMLQuantizationType


def write_blocks(path, blocks: np.ndarray, kind: Kind):
    out = gguf.GGUFWriter(path, "llama")
    out.add_tensor("w", blocks, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return open_gguf(path)


def random_blocks(rows: int, per_row: int, num_halves: int, num_bytes: int):
    """Blocks of some float16 numbers and then bytes, as GGUF stores them."""
    rng = np.random.default_rng(0)
    halves = rng.normal(size=(rows, per_row, num_halves)).astype(np.float16)
    data = rng.integers(0, 256, size=(rows, per_row, num_bytes)).astype(np.uint8)
    blocks = np.concatenate([halves.view(np.uint8), data], axis=-1)
    return blocks.reshape(rows, -1), halves.astype(np.float32), data


def test_q8_0_is_scale_times_signed_byte(tmp_path):
    blocks, halves, data = random_blocks(3, 2, 1, 32)
    file = write_blocks(tmp_path / "w.gguf", blocks, Kind.Q8_0)
    expected = (halves * data.view(np.int8)).reshape(3, 64)
    np.testing.assert_array_equal(file.read("w"), expected)
    assert file.shape("w") == (3, 64)


def test_q4_1_is_scale_times_nibble_plus_minimum(tmp_path):
    blocks, halves, data = random_blocks(3, 2, 2, 16)
    file = write_blocks(tmp_path / "w.gguf", blocks, Kind.Q4_1)
    # The low nibbles are the first sixteen weights of a block, the high the others.
    nibbles = np.concatenate([data & 15, data >> 4], axis=-1).astype(np.float32)
    expected = (halves[..., :1] * nibbles + halves[..., 1:]).reshape(3, 64)
    np.testing.assert_array_equal(file.read("w"), expected)
    library = gguf.quants.dequantize(blocks, Kind.Q4_1)
    np.testing.assert_array_equal(file.read("w"), library)


@pytest.mark.parametrize(
    "kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]
)
def test_every_type_is_dequantised_as_the_library_does(tmp_path, kind):
    kind = Kind[kind]
    rows = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    try:
        blocks = gguf.quants.quantize(rows, kind)
    except NotImplementedError:  # Q4_K, Q6_K: any bytes are weights, with finite scales
        num_weights, num_bytes = gguf.GGML_QUANT_SIZES[kind]
        shape = (3, 512 // num_weights, num_bytes)
        blocks = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        halves = {Kind.Q4_K: slice(0, 4), Kind.Q6_K: slice(-2, None)}[kind]
        blocks[..., halves] = np.tile(np.float16([0.25, 0.5]).view(np.uint8), 1)[halves]
        blocks = blocks.reshape(3, -1)
    file = write_blocks(tmp_path / "w.gguf", blocks, kind)
    expected = gguf.quants.dequantize(blocks, kind)
    assert file.shape("w") == (3, 512)
    assert np.isfinite(expected).all()
    assert np.std(expected) > 0.1
    np.testing.assert_array_equal(file.read("w"), expected)


def test_a_quantisation_without_a_formula_is_named(tmp_path):
    file = write_blocks(tmp_path / "w.gguf", np.zeros((2, 64), np.int32), Kind.I32)
    with pytest.raises(InputError, match="tensor w is stored as I32"):
        file.read("w")


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "w.gguf"
    assert write_blocks(path, np.ones((2, 3), np.float32), Kind.F32).shape("w") == (
        2,
        3,
    )
    assert write_blocks(path, np.ones((4, 3), np.float32), Kind.F32).shape("w") == (
        4,
        3,
    )


def test_unpermute_inverts_llama_cpps_interleaving():
    rows = np.arange(2 * 6 * 3).reshape(12, 3)
    # head h, half s, pair p  ->  head h, pair p, half s
    order = [h * 6 + s * 3 + p for h in range(2) for p in range(3) for s in range(2)]
    np.testing.assert_array_equal(unpermute(rows[order], 2), rows)


def header(tensors: int, fields: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + rest


def field(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return field(b"x.y", 9, struct.pack("<IQ", kind, count) + values)


def tensor(name: bytes, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    place = struct.pack("<IQ", kind, offset)
    return struct.pack("<Q", len(name)) + name + sizes + place


KINDS = {"uint8": 0, "float64": 12, "bool": 7, "text": 8, "array": 9}
CUT = {
    "tensors": header(2**63, 0),
    "fields": header(0, 2**63),
    "a name": header(0, 1, struct.pack("<Q", 2**50) + b"x"),
    "axes": header(1, 0, struct.pack("<Q", 1) + b"w" + struct.pack("<I", 2**31)),
    "numbers": header(1, 0, tensor(b"w", [2**32, 2**32])),
    "numbers past 64 bits": header(1, 0, tensor(b"w", [2**63, 2])),
    "an offset": header(1, 0, tensor(b"w", [4], offset=2**60) + bytes(64)),
    "nested arrays": header(
        0, 1, field(b"x", 9, struct.pack("<IQ", 9, 1) * 2000 + struct.pack("<IQ", 0, 0))
    ),
    "a kind": header(1, 0, tensor(b"w", [4], kind=9999) + bytes(64)),
    "one name for two": header(2, 0, tensor(b"w", [4]) + tensor(b"w", [4]) + bytes(64)),
    "a name that is no text": header(1, 0, tensor(b"\xff", [4]) + bytes(64)),
} | {f"an array of {k}": header(0, 1, array(n, 2**40)) for k, n in KINDS.items()}


@pytest.mark.parametrize("kind", CUT)
def test_what_a_file_claims_is_not_believed(tmp_path, kind):
    """Counts and offsets past the end take no time and no memory."""
    path = tmp_path / "w.gguf"
    path.write_bytes(CUT[kind])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="not a complete GGUF file") as error:
            open_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)


def test_lists_are_bounded(tmp_path, monkeypatch):
    """Each number of a list takes a hundred bytes of memory."""
    path = tmp_path / "w.gguf"
    path.write_bytes(header(0, 1, array(0, 1000, bytes(1000))))
    assert open_gguf(path).metadata["x.y"] == [0] * 1000
    monkeypatch.setattr(gguf_file, "MOST_PARTS", 500)
    path.write_bytes(header(0, 1, array(0, 1001, bytes(1001))))
    with pytest.raises(InputError, match="header has more than 500 parts"):
        open_gguf(path)


def test_an_offset_beside_the_tensors(tmp_path):
    path = tmp_path / "w.gguf"
    for offset in (0, 2**64 - 32):  # on the first tensor, and before all of them
        two = tensor(b"v", [16]) + tensor(b"w", [16], offset=offset)
        path.write_bytes(header(2, 0, two) + bytes(256 + offset % 32))
        with pytest.raises(InputError, match=r"tensor . lies upon the one before it"):
            open_gguf(path)


@pytest.fixture
def parts(tmp_path):
    """Three tensors in three files, as the library splits them; the files' names."""
    rng = np.random.default_rng(0)
    tensors = {n: rng.normal(size=(4, 8)).astype(np.float32) for n in "abc"}
    out = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    out.add_uint32("llama.block_count", 7)
    for name, tensor in tensors.items():
        out.add_tensor(name, tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return tensors, sorted(tmp_path.glob("*.gguf"))


def test_a_model_in_parts_is_read_whole(parts):
    tensors, files = parts
    assert [f.name for f in files] == part_names("m-00001-of-00003.gguf")
    model = open_gguf(files[0])
    assert model.metadata["llama.block_count"] == 7
    assert model.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(model.read(name), tensor)


def test_a_part_that_is_missing_or_not_the_first_is_named(parts, tmp_path):
    _, (first, second, third) = parts
    with pytest.raises(InputError, match=f"{second.name}: a later part .*{first.name}"):
        open_gguf(second)
    whole = second.read_bytes()
    second.write_bytes(third.read_bytes())
    with pytest.raises(
        InputError, match=f"{second.name}: no part 2 of 3 of {first.name}"
    ):
        open_gguf(first)
    second.write_bytes(whole)
    third.rename(tmp_path / "m-00003-of-00004.gguf")
    with pytest.raises(InputError, match=f"{third.name}: no such file: .* 3 parts"):
        open_gguf(first)
    with pytest.raises(InputError, match=r"one of 3 parts .* published with"):
        open_gguf(first.rename(tmp_path / "model.gguf"))


def test_a_name_of_a_part_whose_file_does_not_say_so(tmp_path):
    """Without its keys, a head in another part would be taken for tied."""
    path = tmp_path / "m-00001-of-00002.gguf"
    with pytest.raises(InputError, match="its name is that of one of 2 parts"):
        write_blocks(path, np.ones((2, 3), np.float32), Kind.F32)


def test_parts_are_hashed_together(parts):
    _, (first, _, third) = parts
    before = hash_model(first)
    third.write_bytes(third.read_bytes()[:-1] + b"\x3e")
    assert hash_model(first) != before
