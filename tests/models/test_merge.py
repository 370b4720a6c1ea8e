import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file, save_file

from goracs_jax.models import (
    load_adapter,
    load_decoder,
    load_tokenizer,
    read_lora_config,
    save_merged,
)

IDS = jnp.arange(24).reshape(2, 12)
run = nnx.jit(lambda model, ids: model(ids))


@pytest.fixture
def adapter(tmp_path):
    return tiny.write_adapter(tmp_path / "adapter", scale=0.1)


def adapted(path, adapter, dtype=jnp.float32):
    lora = read_lora_config(adapter)
    model = load_decoder(path, lora=lora, key=jax.random.key(0), dtype=dtype)
    return load_adapter(model, adapter)


def assert_same_logits(model, folder, plain):
    merged = load_decoder(folder, key=jax.random.key(1))
    ours, theirs = run(merged, IDS), run(model, IDS)
    assert np.abs(theirs - run(plain, IDS)).max() > 0.1
    # Two orders of summation in float32, logits of size ten.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_merged_folder_is_base_and_adapter(tmp_path, adapter, tied):
    base = tiny.write_llm(tmp_path / "llm", tiny.LLAMA | {"tie_word_embeddings": tied})
    model = adapted(base, adapter)
    save_merged(model, base, tmp_path / "merged")
    plain = load_decoder(base, key=jax.random.key(0))
    assert_same_logits(model, tmp_path / "merged", plain)
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    original = load_file(base / "model.safetensors")
    assert stored.keys() == original.keys()
    changed = {n for n in stored if not np.array_equal(stored[n], original[n])}
    assert changed == {
        f"model.layers.{i}.self_attn.{name}.weight"
        for i in range(2)
        for name in ("q_proj", "v_proj")
    }
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copied = (tmp_path / "merged" / name).read_bytes()
        assert copied == (base / name).read_bytes()


def test_shards(tmp_path, adapter):
    base = tiny.write_llm(tmp_path / "llm")
    model = adapted(base, adapter)
    save_merged(model, base, tmp_path / "merged", shard_bytes=50_000)
    assert_same_logits(
        model, tmp_path / "merged", load_decoder(base, key=jax.random.key(0))
    )
    folder = tmp_path / "merged"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(folder.glob("*.safetensors*"))
    names = sorted(set(index["weight_map"].values()))
    assert names == [
        f"model-{i:05d}-of-{len(names):05d}.safetensors"
        for i in range(1, len(names) + 1)
    ]
    assert [f.name for f in files] == [*names, "model.safetensors.index.json"]
    sizes = [sum(t.nbytes for t in load_file(folder / name).values()) for name in names]
    assert len(sizes) > 3
    assert max(sizes) <= 50_000
    assert sum(sizes) == index["metadata"]["total_size"]


def test_gguf_base(write_gguf, adapter, tmp_path):
    folder = tiny.write_llm(tmp_path / "llm")
    path = write_gguf(
        tiny.LLAMA,
        tiny.random_llama(tiny.LLAMA),
        tokenizer=folder / "tokenizer.json",
    )
    other = load_tokenizer(folder)
    model = adapted(path, adapter)
    save_merged(model, path, tmp_path / "merged")
    plain = load_decoder(path, key=jax.random.key(0))
    assert_same_logits(model, tmp_path / "merged", plain)
    again = load_tokenizer(tmp_path / "merged")
    assert again("Response 12").input_ids == other("Response 12").input_ids
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["eos_token_id"] == other.eos_token_id


def test_nothing_is_half_written(tmp_path, adapter, monkeypatch):
    base = tiny.write_llm(tmp_path / "llm")
    model = adapted(base, adapter)
    out = tmp_path / "merged"
    save_merged(model, base, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*arguments):
        raise OSError("no space")

    monkeypatch.setattr("goracs_jax.models.merge._save_weights", full)
    with pytest.raises(OSError, match="no space"):
        save_merged(model, base, out)
    # What was complete before stays.
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(OSError, match="no space"):
        save_merged(model, base, tmp_path / "new")
    assert not [*(tmp_path / "new").iterdir()]


def test_shards_in_place_of_one_file(tmp_path, adapter):
    base = tiny.write_llm(tmp_path / "llm")
    model = adapted(base, adapter)
    save_merged(load_decoder(base, key=jax.random.key(0)), base, tmp_path / "merged")
    save_merged(model, base, tmp_path / "merged", shard_bytes=50_000)
    plain = load_decoder(base, key=jax.random.key(0))
    assert_same_logits(model, tmp_path / "merged", plain)


def test_bfloat16(tmp_path, adapter):
    base = tiny.write_llm(tmp_path / "llm")
    model = adapted(base, adapter, jnp.bfloat16)
    save_merged(model, base, tmp_path / "merged")
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert {str(t.dtype) for t in stored.values()} == {"bfloat16"}
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    name = "model.layers.1.self_attn.v_proj.weight"
    exact = load_file(base / "model.safetensors")[name]
    lora = load_file(adapter / "adapter_model.safetensors")
    stem = "base_model.model." + name.removesuffix(".weight")
    exact = exact + 2 * lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"]
    # Rounded twice to 8 bits: the weight before the sum, and the sum.
    np.testing.assert_allclose(
        stored[name].astype(np.float32), exact, atol=2 * np.abs(exact).max() * 2**-8
    )


def test_all_files_appear_or_none(tmp_path, adapter, monkeypatch):
    """A merge that fails leaves the earlier one; the next leaves nothing of it."""
    base, out = tiny.write_llm(tmp_path / "llm"), tmp_path / "merged"
    model = adapted(base, adapter)
    save_merged(model, base, out, shard_bytes=50_000)
    contents = lambda: {path.name: path.read_bytes() for path in out.iterdir()}
    before, written = contents(), []

    def fail(tensors, path, **more):
        written.append(path)
        if len(written) == 2:
            raise OSError("no space")
        save_file(tensors, path, **more)

    monkeypatch.setattr("goracs_jax.models.merge.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_merged(model, base, out, shard_bytes=60_000)
    assert len(written) == 2
    assert contents() == before
    monkeypatch.undo()
    save_merged(model, base, out)
    assert not [*out.glob("model-*"), *out.glob("*.index.json")]
    assert (out / "model.safetensors").exists()
