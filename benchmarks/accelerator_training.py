"""Parts of accelerator.py that train adapters: one as PEFT does, and many at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_given import Given, weight_bytes
from accelerator_models import with_rate
from lora_steps import Ours

from goracs_jax.llm.batches import Batch
from goracs_jax.llm.flops import Counts, gradient_flops
from goracs_jax.models import Decoder
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.step import Sums, accumulate, split, zero_sums

Figures = Iterator[tuple[str, dict[str, Any]]]
GOAL = 1.2  # times the tokens a second of torch + PEFT
TORCH = Path(__file__).with_name("accelerator_torch.py")


def training(given: Given) -> Figures:
    """Time a step of LoRA training, and the same in PyTorch where it is installed."""
    sizes, (model, source) = given.sizes, given.small()
    tokens = given.tokens(model.config, 2 * sizes.lora_batch)
    config = FinetuneConfig(
        epochs=20,
        learning_rate=1e-4,
        batch_size=sizes.lora_batch,
        tokens_per_batch=sizes.lora_batch * sizes.time,
    )
    run = Ours(model, tokens, config)
    total = sizes.lora_batch * sizes.time
    found = given.beside_floor(
        lambda: run.step(run.state.step),
        flops=gradient_flops(model.config, Counts.of(tokens), "all_lora") / 2,
        read=2 * weight_bytes(model),  # forward and backward
        dtype="bfloat16",
    )
    found = with_rate(found, total) | {"compile_seconds": run.compile_seconds}
    yield "goracs_jax", found | {"examples": sizes.lora_batch, "weights": source}

    theirs = in_torch(given, source != "random")
    yield "torch + PEFT", theirs
    if "tokens_per_second" in found and "tokens_per_second" in theirs:
        ratio = found["tokens_per_second"] / theirs["tokens_per_second"]
        yield "ratio", {"ratio": ratio, "goal_ratio": GOAL}


def in_torch(given: Given, weights: bool) -> dict[str, Any]:
    """Run accelerator_torch.py in a process of its own: its CUDA is not JAX's."""
    absent = [name for name in ("torch", "peft", "transformers") if not find_spec(name)]
    if absent:
        return {"not_done": f"{', '.join(absent)}: not installed"}
    sizes = given.sizes
    words = [sizes.lora_batch, sizes.time, sizes.repeats]
    command = [sys.executable, str(TORCH), *map(str, words), jax.default_backend()]
    command += ["--pieces", str(given.pieces)] if weights else []
    command += ["--tiny"] if sizes.small.num_layers < 3 else []
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=max(1.0, given.seconds_left() - 5),  # it may not outlive us
        )
    except subprocess.CalledProcessError as error:
        return {"not_done": error.stderr.strip().splitlines()[-1][:200]}
    except subprocess.TimeoutExpired:
        return {"not_done": "no time is left for it"}
    return json.loads(done.stdout.splitlines()[-1])


def adapters(given: Given) -> Figures:
    """Time the gradient of the training loss for many adapters at once, and for one."""
    sizes, (model, source) = given.sizes, given.small()
    many, rows = sizes.adapters, sizes.adapter_batch
    tokens = given.tokens(model.config, many * rows)
    ids = tokens.ids.reshape(many, rows, sizes.time)
    batches = Batch(np.tile(np.arange(rows, dtype=np.int32), (many, 1)), ids, ids)
    one = given.beside_floor(
        partial(gradients_of, model, jax.tree.map(lambda x: x[:1], batches)),
        **work(model, tokens.lengths[:rows]),
    )
    one = with_rate(one, rows * sizes.time)
    yield "one adapter", one | {"weights": source, "examples": rows}
    found = given.beside_floor(
        partial(gradients_of, model, batches), **work(model, tokens.lengths)
    )
    found = with_rate(found, tokens.ids.size)
    yield f"{many} adapters at once", found | {"examples": many * rows}
    if "seconds" in one and "seconds" in found:
        ratio = many * one["seconds"] / found["seconds"]
        yield "ratio", {"ratio": ratio, "of": f"{many} times one adapter"}


def work(model: Decoder, lengths: np.ndarray) -> dict[str, Any]:
    """Return what a gradient needs at least: frozen weights are read twice by all."""
    flops = gradient_flops(model.config, Counts(lengths, lengths), "all_lora")
    return {"flops": flops, "read": 2 * weight_bytes(model), "dtype": "bfloat16"}


def gradients_of(model: Decoder, batches: Batch) -> Sums:
    """Return the summed loss and gradient of each adapter on a batch of its own."""
    parts, many = split(model), len(batches.ids)
    repeat = lambda x: jnp.broadcast_to(x, (many, *x.shape))
    lora = jax.tree.map(repeat, parts.lora)
    keys = jax.random.split(jax.random.key(0), many)
    most = batches.ids.shape[-1]
    return _gradients_of(most, parts._replace(lora=None), lora, batches, keys)


@partial(jax.jit, static_argnums=0)
def _gradients_of(most, frozen, lora, batches, keys):
    def one(lora, batch, key):
        parts = frozen._replace(lora=lora)
        return accumulate(parts, zero_sums(parts), batch, key, most=most)

    return jax.vmap(one)(lora, batches, keys)
