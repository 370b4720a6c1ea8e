"""`goracs merge`: an adapter and its model as one Hugging Face folder."""

import jax
import numpy as np
from flax import nnx

from goracs_jax.files import locked, prepare_folder, write_json
from goracs_jax.models import (
    load_adapter,
    load_decoder,
    read_lora_config,
    save_merged,
)
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.opened import hash_model, keep_apart
from goracs_jax.runs.say import say, waiting
from goracs_jax.settings import Merge


def merge(settings: Merge) -> None:
    """Run `goracs merge`."""
    out, dtype = settings.out, np.dtype(settings.dtype)
    keep_apart(out, settings.model, settings.adapter)
    inputs = {
        name: hash_model(getattr(settings, name)) for name in ("model", "adapter")
    }
    lora = read_lora_config(settings.adapter)
    # The adapter's first tensors are drawn and then replaced: any key does.
    key = jax.random.key(settings.seed)
    with waiting("reading the model"):
        model = load_decoder(settings.model, lora=lora, key=key, dtype=dtype)
        model = load_adapter(model, settings.adapter)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    say(f"adapters on {', '.join(lora.targets)}; {size / 2**20:.0f} MiB into {out}")
    if settings.dry_run:
        return
    prepare_folder(out, size)
    with locked(out), waiting("writing"):
        (out / "manifest.json").unlink(missing_ok=True)
        save_merged(model, settings.model, out)
        write_json(out / "manifest.json", made_by(settings) | {"inputs": inputs})
    say(f"{out}: config.json, safetensors, tokenizer, manifest.json")
