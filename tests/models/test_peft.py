import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file

from goracs_jax.errors import InputError
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    LoraConfig,
    load_adapter,
    read_lora_config,
    save_adapter,
)
from goracs_jax.models.targets import Rules

TINY = DecoderConfig.tiny()
LORA = LoraConfig(r=3, alpha=6.0, dropout=0.0)
IDS = jnp.arange(10).reshape(2, 5)
run = nnx.jit(lambda model, ids: model(ids))


def adapter_tensors(scale=1.0):
    return tiny.adapter_tensors(TINY.num_layers, scale)


def test_an_adapter_is_a_change_of_the_weights(write_adapter):
    folder = write_adapter(adapter_tensors())
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
        ({"bias": "all"}, "bias 'all'"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"target_modules": ["c_attn"]}, "got c_attn"),
        ({"target_modules": ["q_proj", "lm_head"]}, "names lm_head.*modules_to_save"),
        ({"target_modules": None}, "target_modules must name layers, .* got None"),
        ({"target_modules": "(q_proj"}, "target_modules must be a regular expression"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"modules_to_save": ["norm"]}, "modules_to_save 'norm' .*model.norm"),
        # Fields that no list names, and those of methods of their own.
        ({"use_something_new": True}, "use_something_new True is not known"),
        ({"new_size": 3}, "new_size 3 is not known"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config"),
        ({"velora_config": {"x": 1}}, "velora_config"),
        ({"monteclora_config": {"num_samples": 2}}, "monteclora_config"),
        ({"use_qalora": True}, "use_qalora True"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        # Expressions that are none, alone or where they are used.
        ({"layers_to_transform": 0, "layers_pattern": "("}, "layers_pattern must be a"),
        (
            {"layers_to_transform": [0], "layers_pattern": ["layers", "(la"]},
            r"layers_pattern must be a regular expression .* got '\(la'",
        ),
        ({"rank_pattern": {"(?i)Q_PROJ": 2}}, "rank_pattern must be a regular"),
        ({"alpha_pattern": {"q{99999999999}": 2}}, "alpha_pattern must be a regular"),
        ({"exclude_modules": "[q"}, "exclude_modules must be a regular"),
        ({"modules_to_save": ["(lm_head"]}, "modules_to_save must be a regular"),
        # Fields that PEFT does not take side by side.
        ({"lora_bias": True, "use_dora": True}, "lora_bias True .*use_dora"),
        ({"lora_bias": True, "init_lora_weights": "eva"}, "lora_bias .*init_lora"),
        (
            {"target_modules": ".*q_proj", "layers_to_transform": 0},
            "layers_to_transform 0 .*beside target_modules",
        ),
        ({"layers_pattern": "layers"}, "layers_pattern .*layers_to_transform None"),
        # Initialisations that change the base.
        ({"init_lora_weights": "pissa"}, "'pissa' .*path_initial_model_for_weight"),
        ({"init_lora_weights": "pissa_niter_4"}, "PiSSA changes the base"),
        ({"init_lora_weights": "OLoRA"}, "OLoRA changes the base"),
        ({"init_lora_weights": "corda"}, "CorDA changes the base"),
        ({"init_lora_weights": "lora_ga"}, "LoRA-GA changes the base"),
        ({"init_lora_weights": "loftq"}, "'loftq' .*merge_and_unload"),
        ({"init_lora_weights": "mica"}, "MiCA trains A alone"),
        ({"init_lora_weights": "another"}, "'another' .*may change the base"),
        # Values of a wrong kind.
        ({"r": None}, "r must be an integer, got None"),
        ({"r": True}, "'r' must be an integer, got True"),
        ({"lora_alpha": True}, "'lora_alpha' must be a finite number, got True"),
        ({"lora_alpha": float("inf")}, "Infinity is no number of JSON"),
        ({"lora_dropout": False}, "'lora_dropout' must be a finite number"),
        ({"lora_dropout": -0.1}, "LoRA dropout must be in .*got -0.1: correct it"),
        ({"rank_pattern": {"q_proj": True}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "NaN is no number of JSON"),
        ({"layers_to_transform": [False]}, "layers_to_transform"),
        ({"use_dora": 1}, "'use_dora' must be true or false, got 1"),
        ({"trainable_token_indices": [-1]}, "trainable_token_indices"),
        ({"trainable_token_indices": {"score": [1]}}, "trainable_token_indices"),
        # PEFT cannot run the first two, and trains the last one by no rule.
        ({"trainable_token_indices": {"embed_tokens": []}}, r"embed_tokens .*got \[\]"),
        ({"trainable_token_indices": {"lm_head": [], "embed_tokens": [5]}}, "lm_head"),
        ({"trainable_token_indices": [5, 5, 17]}, r"must be different .*\[5, 5, 17\]"),
    ],
)
def test_refuses_by_name(write_adapter, changes, named):
    with pytest.raises(InputError, match=named) as error:
        read_lora_config(write_adapter(adapter_tensors(), **changes))
    assert "adapter_config.json" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rank_pattern": {"q_proj": 0}}, "rank r must be at least 1, got 0: correct"),
        (
            {"layers_to_transform": [-1]},
            "q_proj, v_proj in layers -1 match no linear layer of 2 layers, numbered",
        ),
        ({"trainable_token_indices": [4000]}, "trains token 4000, .* has 96: use"),
        (
            {"trainable_token_indices": [4], "modules_to_save": ["lm_head"]},
            "one table in this model: train one of them",
        ),
    ],
)
def test_the_file_is_named_when_a_model_does_not_fit(write_adapter, changes, named):
    """These are seen when a model is built, long after the file was read."""
    lora = read_lora_config(write_adapter(adapter_tensors(), **changes))
    with pytest.raises(InputError, match=named) as error:
        Decoder(TINY, lora, key=jax.random.key(0))
    assert str(error.value).startswith(lora.where)
    assert lora.where.endswith("adapter_config.json")


def test_accounts_for_every_tensor(write_adapter):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    tensors = adapter_tensors()
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    tensors["base_model.model.model.score.weight"] = tensors.pop(name)
    with pytest.raises(InputError, match=r"1 missing .*; 1 unexpected .*score"):
        load_adapter(model, write_adapter(tensors))


def test_neutral_fields_change_nothing(write_adapter):
    neutral = {
        "init_lora_weights": "eva",
        "eva_config": {"rho": 2.0},
        "fan_in_fan_out": True,  # PEFT ignores it on a Linear
        "unknown": None,
        "another": {},
        "third": False,
        "peft_version": "0.21.2",
        "use_dora": None,
    }
    assert read_lora_config(write_adapter(adapter_tensors(), **neutral)) == LORA


def test_a_table_that_is_trained_whole_has_no_adapter(write_adapter):
    changes = {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}
    lora = read_lora_config(write_adapter(adapter_tensors(), **changes))
    lora = lora.resolved(TINY)
    assert (lora.targets, lora.tables) == (("q_proj",), ("head",))


@pytest.mark.parametrize(
    ("targets", "saved"),
    [
        (["q_proj", "lm_head", "embed_tokens"], ["lm_head", "embed_tokens"]),
        (".*(q_proj|lm_head)", ["lm_head"]),
        (["q_proj", "lm_head"], ["lm_.*d"]),
    ],
)
def test_what_is_trained_whole_has_no_adapter(write_adapter, targets, saved):
    """`Rules.match` has the rule of PEFT, whatever else reads modules_to_save."""
    targets = targets if isinstance(targets, str) else tuple(targets)
    rules = Rules(targets=targets, saved=tuple(saved))
    assert not rules.match("lm_head")
    assert rules.match("model.layers.0.self_attn.q_proj")
    assert not Rules(targets=("q_proj",), saved=("layers.0",)).match(
        "model.layers.0.self_attn.q_proj"
    )


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (1, np.int8, "numbers of type int8, not floats .*as float32"),
        (1e300, np.float64, "float32 cannot hold: take an earlier"),
    ],
)
def test_numbers_that_are_no_floats_of_float32(write_adapter, number, kind, said):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    tensors = adapter_tensors()
    name = next(iter(tensors))
    tensors[name] = np.full(tensors[name].shape, number).astype(kind)
    with pytest.raises(InputError, match=said) as error:
        load_adapter(model, write_adapter(tensors))
    assert "they were quantised" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("mine", ["mine", "my-adapter"])
def test_says_that_names_contain_that_of_an_adapter(write_adapter, mine):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    tensors = {
        name.replace(".weight", f".{mine}.weight"): x
        for name, x in adapter_tensors().items()
    }
    with pytest.raises(InputError, match=f"contain that of the adapter, '{mine}'"):
        load_adapter(model, write_adapter(tensors))


def test_says_that_there_is_nothing_or_another_prefix(write_adapter):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    with pytest.raises(InputError, match="has no tensors"):
        load_adapter(model, write_adapter({}))
    other = {
        name.replace("model.model.", "model."): x
        for name, x in adapter_tensors().items()
    }
    with pytest.raises(InputError, match=r"no name .* starts with .*the first is base"):
        load_adapter(model, write_adapter(other))


def test_refuses_an_untrained_adapter(write_adapter):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    with pytest.raises(InputError, match="every lora_B is zero"):
        load_adapter(model, write_adapter(adapter_tensors(scale=0.0)))


def test_warns_of_an_untrained_adapter_where_it_may_be_trained(write_adapter, caplog):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    folder = write_adapter(adapter_tensors(scale=0.0))
    loaded = load_adapter(model, folder, untrained="warn")
    assert "every lora_B is zero" in caplog.text
    a = loaded.layers.attention.q_proj.lora_a[...]
    assert float(jnp.max(jnp.abs(a))) > 0.9  # the file's, not the fresh +- 1 / sqrt(32)


def test_round_trip(write_adapter, tmp_path):
    tensors = adapter_tensors()
    model = load_adapter(
        Decoder(TINY, LORA, key=jax.random.key(0)), write_adapter(tensors)
    )
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


def test_refuses_another_rank_than_the_models(write_adapter):
    model = Decoder(TINY, key=jax.random.key(0))
    with pytest.raises(InputError, match="the model was built with"):
        load_adapter(model, write_adapter(adapter_tensors()))


def test_refuses_pickle_and_absence(write_adapter, tmp_path):
    model = Decoder(TINY, LORA, key=jax.random.key(0))
    folder = write_adapter(adapter_tensors())
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"no adapter_model\.saf.*the adapter with PEFT"
    ):
        load_adapter(model, folder)
    (folder / "adapter_model.bin").write_bytes(b"pickled")
    with pytest.raises(InputError, match=r"adapter_model\.bin.*save_pretrained"):
        load_adapter(model, folder)
    with pytest.raises(InputError, match=r"adapter_config\.json: no such file"):
        read_lora_config(tmp_path / "nowhere")
