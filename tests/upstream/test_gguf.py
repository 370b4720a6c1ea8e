"""gguf (the Python package of llama.cpp), seen in 0.19.0."""

import struct

import gguf
import numpy as np
import pytest


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.gguf"
    out = gguf.GGUFWriter(path, "llama")
    out.add_uint32("llama.block_count", 3)
    out.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def test_a_damaged_file_has_no_error_of_its_own(path):
    """gguf 0.19.0: a file that is cut short raises whatever its bytes lead to.

    So `open_gguf` (goracs_jax/models/gguf_file.py) catches several types of exception
    and makes one message of them.
    """
    whole, kinds = path.read_bytes(), set()
    for size in range(0, len(whole), 4):
        path.write_bytes(whole[:size])
        try:
            gguf.GGUFReader(path)
        except Exception as error:  # noqa: BLE001
            kinds.add(type(error))
    assert kinds == {ValueError, IndexError}, (
        "damaged GGUF files raise otherwise: look at the except in open_gguf"
    )


def test_shapes_list_the_fastest_axis_first(path):
    """gguf 0.19.0: the shape of a tensor is that of NumPy backwards.

    So `GGUFFile.shape` (goracs_jax/models/gguf_file.py) reverses it.
    """
    (tensor,) = gguf.GGUFReader(path).tensors
    assert tensor.shape.tolist() == [3, 2], "GGUFFile.shape need not reverse shapes"


def test_some_types_cannot_be_dequantised():
    """gguf 0.19.0: `dequantize` raises NotImplementedError for some types.

    So `GGUFFile.read` (goracs_jax/models/gguf_file.py) turns it into a message with
    the types that can be read.
    """
    with pytest.raises(NotImplementedError, match="Q8_K is not yet implemented"):
        gguf.quants.dequantize(
            np.zeros((1, 292), np.uint8), gguf.GGMLQuantizationType.Q8_K
        )


def test_lists_may_claim_more_than_there_is(tmp_path):
    """gguf 0.19.0: numbers of a list that are past the end of the file are empty.

    A list that says to have 2^40 numbers fills the memory with them. So the reader of
    `open_gguf` (goracs_jax/models/gguf_file.py) looks at the size of each part.
    """
    path = tmp_path / "list.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    item = struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 0, 1000)
    path.write_bytes(head + item + b"\7\7")
    field = gguf.GGUFReader(path).fields["x"]
    assert len(field.data) == 1000, "_Reader in gguf_file.py need not look at sizes"
    assert field.contents() == [7, 7]
