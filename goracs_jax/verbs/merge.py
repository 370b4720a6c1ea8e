"""`goracs merge`: from a model and its adapter to one Hugging Face folder."""

import jax
from flax import nnx

from goracs_jax.files import locked, prepare_folder, together, write_json
from goracs_jax.models import save_merged
from goracs_jax.models.merge import WEIGHTS, check_merged
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.opened import open_llm
from goracs_jax.runs.say import say, waiting
from goracs_jax.settings import Machine, Merge
from goracs_jax.settings.outputs import MANIFEST


def merge(settings: Merge) -> None:
    """Run `goracs merge`."""
    s, out = settings, settings.out
    # The tensors of a fresh adapter are drawn and then replaced: any seed will do.
    one = jax.local_devices()[:1]
    machine = Machine(dtype=s.dtype)
    llm = open_llm(s.model, s.adapter, s.seed, machine, devices=one)
    with waiting("reading the model"):
        model = llm.decoder()
    check_merged(model, s.model)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    targets = ", ".join(model.lora.targets)
    say(f"adapters on {targets}; {size / 2**20:.0f} MiB into {out}")
    if s.dry_run:
        return
    prepare_folder(out, size)
    inputs = {name: llm.identity[name] for name in ("model", "adapter")}
    whole = together(out, WEIGHTS, seal="config.json")
    with locked(out), waiting("writing"), whole as new:
        save_merged(model, s.model, new)
        write_json(new / MANIFEST, made_by(s) | {"inputs": inputs})
    say(f"{out}: config.json, safetensors, tokenizer, manifest.json")
