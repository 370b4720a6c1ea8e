"""What PEFT can save besides the adapter: copies of the base's tensors."""

import jax
import numpy as np
import peft
import pytest
from adapters import adapted, load, logits_of, same_logits
from flax import nnx
from safetensors.torch import load_file, save_file

from goracs_jax.errors import InputError

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


def test_a_rounded_copy_changes_what_peft_computes(save_decoder, tmp_path):
    """So it is refused, and without it both compute with all digits of the base."""
    base, folder = save_decoder()
    theirs, ids = adapted(base, tmp_path), np.arange(20)[None]
    whole = logits_of(theirs, ids)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.embed_tokens.weight"
    table = theirs.state_dict()[name]
    save_file(
        tensors | {name: table.bfloat16()}, tmp_path / "adapter_model.safetensors"
    )
    with pytest.raises(InputError, match=r"rounded to bfloat16: remove it"):
        load(folder, tmp_path)
    copied = peft.PeftModel.from_pretrained(theirs.unload(), tmp_path)
    # A number of bfloat16 has 8 bits: it is within 2^-9 of the one that it rounds.
    change = np.abs(logits_of(copied, ids) - whole).max() / np.abs(whole).max()
    assert 1e-4 < change < 2**-5
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    same_logits(load(folder, tmp_path), whole, ids)
