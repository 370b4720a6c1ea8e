"""Random configurations of PEFT's LoRA: read as PEFT reads them, or refused by name."""

import json
from copy import deepcopy
from typing import Any

import numpy as np
import peft
import pytest
from adapters import load, logits_of, moved, same_logits, same_norms
from peft.tuners.lora import LoraLayer

from goracs_jax.errors import InputError
from goracs_jax.models import Decoder, read_lora_config
from goracs_jax.models.hf_config import read_decoder_config
from goracs_jax.models.lora_config import LoraConfig
from goracs_jax.models.targets import LINEAR_NAMES, full_name

pytestmark = pytest.mark.filterwarnings("ignore")

#: Configurations that are drawn. Programs take seconds to compile, so one is compared
#: in numbers where it has a field of `FIELDS` that none before it had.
DRAWN = 80
FIELDS = {
    "use_dora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "layers_to_transform",
    "modules_to_save",
    "trainable_token_indices",
}
LAYERS = 3

ENDS = [*LINEAR_NAMES, "self_attn.q_proj", "0.self_attn.o_proj", "layers.1.mlp.up_proj"]
FULL = [full_name(name, layer) for name in LINEAR_NAMES for layer in range(LAYERS)]
EXPRESSIONS = [
    r".*\.(q|v)_proj",
    r"model\.layers\.[02]\..*(o|down)_proj",
    r"(?!.*layers\.1\.).*mlp\.\w+_proj",
    r".*\.1\.self_attn\.k_proj|.*up_proj",
    "all-linear",
    "ALL-Linear",
]
PATTERNS = [
    "q_proj",
    "up_proj|down_proj",
    "layers.0.self_attn.q_proj",
    r".*\.1\..*",
    r"^model\.layers\.2.*",
    "self_attn.[kv]_proj",
    "model.layers.1.mlp.gate_proj",
    "no_such_proj",
    "proj",
]
LAYER_LISTS = ["layers", ["layers"], ["h", "layers"], "model.layers", r"lay\w+", "h"]
EXCLUDED = [["down_proj"], ["0.mlp.up_proj", "k_proj"], [FULL[0]], r".*\.0\..*", []]
#: Parts that are trained whole; the last one is refused.
SAVED = [["lm_head"], ["embed_tokens"], ["lm_head", "model.embed_tokens"], ["norm"]]
TOKENS = [
    [3, 17, 90],
    [90, 3],
    {"embed_tokens": [5, 4]},
    {"lm_head": [1, 2]},
    {"embed_tokens": [3, 17], "lm_head": [3, 17]},
    {"embed_tokens": [3, 17], "lm_head": [17, 80]},
]


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the fields of an adapter_config.json, each often left out."""
    one = lambda values: values[rng.integers(len(values))]
    some = lambda values, most: [
        values[i] for i in rng.permutation(len(values))[: rng.integers(1, most + 1)]
    ]
    ranks = lambda: {p: int(rng.integers(1, 9)) for p in some(PATTERNS, 3)}
    alphas = lambda: {p: one([1, 3, 12, 0.5, -2.0]) for p in some(PATTERNS, 3)}
    targets = [some(ENDS, 4), some(FULL, 5), some(ENDS + FULL, 6), one(EXPRESSIONS)]
    targets = targets[rng.choice(4, p=[0.4, 0.15, 0.15, 0.3])]
    if rng.random() < 0.04 and isinstance(targets, list):
        targets = [*targets, one(["lm_head", "embed_tokens"])]  # which is refused
    raw = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "target_modules": targets,
        "r": int(rng.integers(1, 7)),
        "lora_alpha": one([1, 6, 16, 2.5]),
        "lora_dropout": one([0.0, 0.1]),
    }
    chances = {
        "use_rslora": (0.3, lambda: True),
        "use_dora": (0.35, lambda: True),
        "lora_bias": (0.25, lambda: True),
        "rank_pattern": (0.4, ranks),
        "alpha_pattern": (0.4, alphas),
        "exclude_modules": (0.3, lambda: one(EXCLUDED)),
        "layers_to_transform": (0.3, lambda: one([0, [2], [0, 2], [1, 1], 1])),
        "modules_to_save": (0.25, lambda: one(SAVED)),
        "trainable_token_indices": (0.3, lambda: one(TOKENS)),
        "init_lora_weights": (0.4, lambda: one([True, False, "gaussian"])),
        "ensure_weight_tying": (0.03, lambda: True),
    }
    raw |= {
        k: value() for k, (chance, value) in chances.items() if rng.random() < chance
    }
    # PEFT takes no layers beside an expression; a few are left to see that we do not.
    if isinstance(targets, str) and rng.random() < 0.8:
        raw.pop("layers_to_transform", None)
    if raw.get("layers_to_transform") and rng.random() < 0.5:
        raw["layers_pattern"] = one(LAYER_LISTS)
    return raw


def of_peft(base, folder) -> peft.PeftModel | None:
    """The model that PEFT makes of a configuration, None where it takes none."""
    try:
        config = peft.LoraConfig.from_pretrained(folder)
        return peft.get_peft_model(deepcopy(base), config).eval()
    except ValueError:
        return None


def sites_of_peft(model: peft.PeftModel) -> dict[str, tuple[int, float]]:
    """Rank and scale of each module with an adapter, by its name in the base."""
    return {
        name.removeprefix("base_model.model."): (m.r["default"], m.scaling["default"])
        for name, m in model.named_modules()
        if isinstance(m, LoraLayer)
    }


def sites_of_ours(lora: LoraConfig) -> dict[str, tuple[int, float]]:
    found = {
        full_name(name, layer): (r, scale)
        for name in LINEAR_NAMES
        for layer, (r, scale) in enumerate(
            zip(lora.ranks(name, LAYERS), lora.scales(name, LAYERS), strict=True)
        )
    }
    return {name: site for name, site in found.items() if site[0]}


def refused(raw: dict[str, Any], sites: dict[str, Any], tied: bool) -> str:
    """What the message must name of a configuration that the docs call refused."""
    tables = raw.get("modules_to_save") or []
    tokens = raw.get("trainable_token_indices") or {}
    tokens = tokens if isinstance(tokens, dict) else {"embed_tokens": tokens}
    whole = {name.rpartition(".")[2] for name in tables}
    if raw.get("ensure_weight_tying"):
        return "ensure_weight_tying"
    if not set(sites) <= set(FULL):
        return "target_modules"
    if "norm" in whole:
        return "modules_to_save"
    if whole & set(tokens):
        return "tables"
    if tied and "embed_tokens" in tokens and "lm_head" in whole:
        return "train one of them"
    return ""


def same(theirs: peft.PeftModel, base, base_folder, folder) -> Decoder:
    """Save PEFT's model and compare ours with what PEFT reads of it."""
    path = folder / "adapter_config.json"
    written = path.read_text()
    moved(theirs, folder)
    # PEFT sorts patterns as it saves, and where two match it takes the first one: it
    # could not read its own tensors.
    path.write_text(written)
    again = peft.PeftModel.from_pretrained(deepcopy(base), folder, is_trainable=True)
    ours, ids = load(base_folder, folder), np.arange(40).reshape(2, 20) * 7 % 96
    same_logits(ours, logits_of(again.eval(), ids), ids)
    same_norms(ours, again, (16, 16), rtol=1e-4)
    return ours


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_random_configurations(save_decoder, tmp_path, tied):
    # The base has biases in one of the cases.
    base, base_folder = save_decoder(
        tie_word_embeddings=tied, attention_bias=not tied, mlp_bias=not tied
    )
    config = read_decoder_config(
        json.loads((base_folder / "config.json").read_text()), "config.json"
    )
    rng = np.random.default_rng(2 + tied)
    outcomes = {"not of PEFT": 0, "refused": 0, "read": 0}
    compared = set()
    for trial in range(DRAWN):
        raw = drawn(rng)
        folder = tmp_path / str(trial)
        folder.mkdir()
        # In the order drawn, which counts for patterns; PEFT sorts what it saves.
        (folder / "adapter_config.json").write_text(json.dumps(raw))
        theirs = of_peft(base, folder)
        if theirs is None:
            with pytest.raises(InputError) as error:
                read_lora_config(folder).resolved(config)
            outcomes["not of PEFT"] += 1
            continue
        expected = sites_of_peft(theirs)
        named = refused(raw, expected, tied)
        if named:
            with pytest.raises(InputError, match=named) as error:
                read_lora_config(folder).resolved(config)
            assert "\n" not in str(error.value)
            outcomes["refused"] += 1
            continue
        lora = read_lora_config(folder).resolved(config)
        found = sites_of_ours(lora)
        assert found.keys() == expected.keys(), raw
        for name, site in expected.items():
            assert found[name] == pytest.approx(site, rel=1e-6), (raw, name)
        outcomes["read"] += 1
        if FIELDS & set(raw) - compared:
            try:
                same(theirs, base, base_folder, folder)
            except AssertionError as error:
                raise AssertionError(f"{raw}: {error}") from None
            compared |= set(raw)
    assert outcomes["read"] >= DRAWN // 3, outcomes
    assert compared >= FIELDS
