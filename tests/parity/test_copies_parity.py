"""What PEFT can save besides the adapter: copies of the base's tensors."""

import jax
import numpy as np
import pytest
from adapters import adapted, load, logits_of, same_logits
from flax import nnx
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {
    "plain": {},
    "dora": {"use_dora": True},
    "head": {"modules_to_save": ["lm_head"]},
    "both": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [3, 17]},
    "tokens of both": {
        "trainable_token_indices": {"embed_tokens": [3, 17], "lm_head": [5, 17, 80]}
    },
    "targeted and whole": {
        "target_modules": r".*(q_proj|lm_head|embed_tokens)",
        "modules_to_save": ["lm_head", "embed_tokens"],
    },
}


def leaves(model):
    return jax.tree.leaves(nnx.state(model))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_read(save_decoder, tmp_path, kind, tied):
    base, folder = save_decoder(tie_word_embeddings=tied)
    theirs = adapted(base, tmp_path / "plain", **KINDS[kind])
    ours, ids = load(folder, tmp_path / "plain"), np.arange(20)[None]
    same_logits(ours, logits_of(theirs, ids), ids)

    theirs.save_pretrained(tmp_path / "copies", save_embedding_layers=True)
    plain = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    copies = load_file(tmp_path / "copies" / "adapter_model.safetensors")
    assert set(copies) >= set(plain)
    assert set(copies) > set(plain) or "modules_to_save" in KINDS[kind]
    # All that torch holds, as other tools save it.
    (tmp_path / "all").mkdir()
    config = (tmp_path / "plain" / "adapter_config.json").read_text()
    (tmp_path / "all" / "adapter_config.json").write_text(config)
    every = {name: x.clone().contiguous() for name, x in theirs.state_dict().items()}
    assert len(every) > len(plain)
    save_file(every, tmp_path / "all" / "adapter_model.safetensors")
    for saved in ("copies", "all"):
        found = load(folder, tmp_path / saved)
        for one, other in zip(leaves(ours), leaves(found), strict=True):
            np.testing.assert_array_equal(one, other)
