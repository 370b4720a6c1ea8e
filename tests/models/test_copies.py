"""Second names of an adapter's tensors, and copies of its base beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    LoraConfig,
    load_adapter,
    read_lora_config,
)

TINY = DecoderConfig.tiny()
LORA = LoraConfig(r=3, alpha=6.0, dropout=0.0)
IDS = jnp.arange(10).reshape(2, 5)
run = nnx.jit(lambda model, ids: model(ids))


def adapter_tensors():
    return tiny.adapter_tensors(TINY.num_layers)


def test_names_that_other_tools_write(write_adapter):
    untied = DecoderConfig.tiny(tie_embeddings=False)
    model = Decoder(untied, LORA, key=jax.random.key(0))
    expected = run(load_adapter(model, write_adapter(adapter_tensors())), IDS)
    tensors = {
        name.replace(".weight", ".default.weight"): x
        for name, x in adapter_tensors().items()
    }
    # Copies of the base's tables change nothing.
    tensors["base_model.model.lm_head.weight"] = np.asarray(model.head[...])
    tensors["base_model.model.model.embed_tokens.weight"] = np.asarray(model.embed[...])
    found = run(load_adapter(model, write_adapter(tensors)), IDS)
    np.testing.assert_array_equal(found, expected)

    tensors["base_model.model.lm_head.weight"] = np.asarray(model.head[...]) + 1
    with pytest.raises(InputError, match=r"lm_head.weight differs .*modules_to_save"):
        load_adapter(model, write_adapter(tensors))
    twice = adapter_tensors()
    name = next(iter(twice))
    twice[name.replace(".weight", ".default.weight")] = twice[name]
    found = run(load_adapter(model, write_adapter(twice)), IDS)
    np.testing.assert_array_equal(found, expected)
    twice[name] = twice[name] + 1
    with pytest.raises(InputError, match=r"are the same tensor, but .* differ"):
        load_adapter(model, write_adapter(twice))


HEAD, EMBED = "base_model.model.lm_head", "base_model.model.model.embed_tokens"
WRAPPED = "token_adapter.base_layer.weight"
ORIGINAL = "original_module.weight"
ROWS = "token_adapter.trainable_tokens_delta"


def with_base_tensors(tensors, model):
    """Tensors with all those of the base that PEFT's state dictionary has."""
    layer = model.layers.attention.q_proj.kernel[...]
    name = "base_model.model.model.layers.{}.self_attn.q_proj.base_layer.weight"
    linear = {name.format(i): np.ascontiguousarray(layer[i].T) for i in range(2)}
    norm = {"base_model.model.model.norm.weight": np.asarray(model.norm.weight[...])}
    return tensors | linear | norm


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ["whole head", "both whole", "rows"])
def test_copies_of_the_base_beside_what_is_trained(write_adapter, kind, tied):
    """What PEFT writes with save_embedding_layers, and in its state dictionary."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    whole = {f"{HEAD}.weight": draw(96, 32), f"{EMBED}.weight": draw(96, 32)}
    rows = {f"{EMBED}.{ROWS}": draw(2, 32)}
    head_alone = {f"{HEAD}.weight": whole[f"{HEAD}.weight"]}
    changes, new = {
        "whole head": ({"modules_to_save": ["lm_head"]}, head_alone),
        "both whole": ({"modules_to_save": ["lm_head", "embed_tokens"]}, whole),
        "rows": ({"trainable_token_indices": [5, 17]}, rows),
    }[kind]
    trained = adapter_tensors() | new
    config = DecoderConfig.tiny(tie_embeddings=tied)
    lora = read_lora_config(write_adapter(trained, **changes))
    model = Decoder(config, lora, key=jax.random.key(0))
    expected = load_adapter(model, write_adapter(trained, **changes))

    embed, head = np.asarray(model.embed[...]), np.asarray(model.stored_table("head"))
    copies, second = {
        "whole head": (
            {f"{HEAD}.{ORIGINAL}": head, f"{EMBED}.weight": embed},
            {f"{HEAD}.modules_to_save.weight": whole[f"{HEAD}.weight"]},
        ),
        "both whole": (
            {f"{HEAD}.{ORIGINAL}": head, f"{EMBED}.{ORIGINAL}": embed},
            {f"{HEAD}.modules_to_save.default.weight": whole[f"{HEAD}.weight"]},
        ),
        "rows": (
            {f"{EMBED}.{WRAPPED}": embed}
            | {f"{HEAD}.{WRAPPED}" if tied else f"{HEAD}.weight": head},
            {f"{HEAD}.{ROWS}": rows[f"{EMBED}.{ROWS}"]} if tied else {},
        ),
    }[kind]
    copies = with_base_tensors(copies, model)
    every = trained | copies | second
    found = load_adapter(model, write_adapter(every, **changes))
    leaves = [jax.tree.leaves(nnx.state(x)) for x in (expected, found)]
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)

    problems = dict.fromkeys(copies, "{} differs .*was the base")
    problems |= dict.fromkeys(second, "{} .*the same tensor, but their")
    for name, problem in problems.items():
        with pytest.raises(InputError, match=problem.format(name)):
            load_adapter(
                model, write_adapter(every | {name: every[name] + 1}, **changes)
            )


def test_copies_of_a_resized_vocabulary(write_adapter):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    copies = {f"{HEAD}.weight": np.zeros((104, 32), np.float32)}
    with pytest.raises(InputError, match="has 104 rows, the model has 96: resize"):
        load_adapter(model, write_adapter(adapter_tensors() | copies))
    name = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    copies = {name: np.zeros((3, 32), np.float32)}
    with pytest.raises(InputError, match=r"the shape \(3, 32\), .* \(32, 32\): give"):
        load_adapter(model, write_adapter(adapter_tensors() | copies))


def test_rows_of_an_untied_head_are_not_those_of_the_embedding(write_adapter):
    rows = {f"{x}.{ROWS}": np.ones((1, 32), np.float32) for x in (EMBED, HEAD)}
    changes = {"trainable_token_indices": [5]}
    folder = write_adapter(adapter_tensors() | rows, **changes)
    untied = DecoderConfig.tiny(tie_embeddings=False)
    model = Decoder(untied, read_lora_config(folder), key=jax.random.key(0))
    with pytest.raises(InputError, match=r"1 unexpected \(.*lm_head.token_adapter"):
        load_adapter(model, folder)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_a_rounded_copy_is_not_called_another_tensor(write_adapter, kind):
    """PEFT would compute with the numbers of the file, which are not the model's."""
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    name = f"{EMBED}.weight"
    copy = {name: np.asarray(model.embed[...].astype(kind))}
    message = rf"embed_tokens.weight is the tensor .* rounded to {kind.__name__}: remo"
    with pytest.raises(InputError, match=message):
        load_adapter(model, write_adapter(adapter_tensors() | copy))
    # Both cures help, and a trained tensor is no rounded copy.
    load_adapter(model, write_adapter(adapter_tensors()))
    if kind == jnp.bfloat16:
        narrow = Decoder(TINY, LORA, key=jax.random.key(0), dtype=kind)
        load_adapter(narrow, write_adapter(adapter_tensors() | copy))
    other = {name: copy[name] * 2}
    with pytest.raises(InputError, match=r"differs .*modules_to_save does not name"):
        load_adapter(model, write_adapter(adapter_tensors() | other))
