import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file, save_file

from goracs_jax.errors import InputError
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    LoraConfig,
    load_adapter,
    read_lora_config,
    save_adapter,
)

TINY = DecoderConfig.tiny()
LORA = LoraConfig(r=3, alpha=6.0, dropout=0.0)
IDS = jnp.arange(10).reshape(2, 5)
run = nnx.jit(lambda model, ids: model(ids))


def adapter_tensors(scale=1.0):
    return tiny.adapter_tensors(TINY.num_layers, scale)


@pytest.fixture
def write(tmp_path):
    def write(tensors, **changes):
        (tmp_path / "adapter_config.json").write_text(
            json.dumps(tiny.ADAPTER | changes)
        )
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return write


def test_an_adapter_is_a_change_of_the_weights(write):
    folder = write(adapter_tensors())
    assert read_lora_config(folder) == LORA
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    before = run(model, IDS)
    adapted = load_adapter(model, folder)
    np.testing.assert_array_equal(run(model, IDS), before)

    # The same by hand: W + (alpha / r) (B A)' in every layer.
    merged = Decoder(TINY, LORA, key=jax.random.key(0))
    for name in ("q_proj", "v_proj"):
        stem = "base_model.model.model.layers.{}.self_attn." + name
        update = [
            2.0
            * (
                adapter_tensors()[stem.format(i) + ".lora_B.weight"]
                @ adapter_tensors()[stem.format(i) + ".lora_A.weight"]
            ).T
            for i in range(2)
        ]
        layer = getattr(merged.layers.attention, name)
        layer.kernel[...] = layer.kernel[...] + np.stack(update)
    assert float(jnp.max(jnp.abs(run(adapted, IDS) - before))) > 1e-3
    # Two orders of summation in float32 of numbers up to about ten.
    np.testing.assert_allclose(
        run(adapted, IDS), run(merged, IDS), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"bias": "all"}, "bias 'all'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"target_modules": ["c_attn"]}, "got c_attn"),
        ({"target_modules": "all-linear"}, "must be a list"),
        ({"lora_bias": True}, "lora_bias True"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"r": None}, "must be numbers, got None"),
    ],
)
def test_refuses_by_name(write, changes, named):
    with pytest.raises(InputError, match=named) as error:
        read_lora_config(write(adapter_tensors(), **changes))
    assert "adapter_config.json" in str(error.value)


def test_accounts_for_every_tensor(write):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    tensors = adapter_tensors()
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    tensors["base_model.model.lm_head.weight"] = tensors.pop(name)
    with pytest.raises(InputError, match=r"1 missing .*; 1 unexpected .*lm_head"):
        load_adapter(model, write(tensors))


def test_refuses_an_untrained_adapter(write):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    with pytest.raises(InputError, match="every lora_B is zero"):
        load_adapter(model, write(adapter_tensors(scale=0.0)))


def test_warns_of_an_untrained_adapter_where_it_may_be_trained(write, caplog):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    folder = write(adapter_tensors(scale=0.0))
    loaded = load_adapter(model, folder, untrained="warn")
    assert "every lora_B is zero" in caplog.text
    a = loaded.layers.attention.q_proj.lora_a[...]
    assert float(jnp.max(jnp.abs(a))) > 0.9  # the file's, not the fresh +- 1 / sqrt(32)


def test_round_trip(write, tmp_path):
    tensors = adapter_tensors()
    model = load_adapter(Decoder(TINY, LORA, key=jax.random.key(0)), write(tensors))
    again = tmp_path / "again"
    save_adapter(model, again, "base")
    assert read_lora_config(again) == LORA
    stored = load_file(again / "adapter_model.safetensors")
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(stored[name], tensor)


def test_says_that_what_it_writes_is_untrained(tmp_path, caplog):
    save_adapter(Decoder(TINY, LORA, key=jax.random.key(0)), tmp_path)
    assert "every lora_B is zero" in caplog.text


def test_refuses_another_rank_than_the_models(write):
    model = Decoder(TINY, key=jax.random.key(0))
    with pytest.raises(InputError, match="the model was built with"):
        load_adapter(model, write(adapter_tensors()))


def test_refuses_pickle_and_absence(write, tmp_path):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    folder = write(adapter_tensors())
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"pickled")
    with pytest.raises(InputError, match=r"only pickle: adapter_model\.bin"):
        load_adapter(model, folder)
    with pytest.raises(InputError, match=r"adapter_config\.json: no such file"):
        read_lora_config(tmp_path / "nowhere")
