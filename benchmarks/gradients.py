"""Speed of the gradient pass, compared with its floors and with PyTorch.

    python benchmarks/gradients.py ours       bare forward, last_v_lora_b and all_lora
    python benchmarks/gradients.py torch      transformers, and the released algorithm
    python benchmarks/gradients.py compile    seconds to compile 30 and 60 layers

The model is SmolLM2-135M and the examples are MovieLens prompts of the demo; all their
tokens are scored, or those of the answer alone. Each part writes
results/gradients_PART.json, and a picture is drawn from the parts that exist. The floor
of a pass is the FLOPs of its matrix products over those of the bare forward pass. The
released algorithm (gradients_torch.py) takes padded batches of 8 in random order and
runs backward once per example through the retained graph, down to the last layer alone.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS, write
from flax import nnx
from passes import by_turns, each, in_turns, logits
from prompts import prompts

import goracs_jax as gx
from goracs_jax.data.demo import fetch
from goracs_jax.llm.batches import Batch, make_batches
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.llm.gradients import Which, gradient_norms
from goracs_jax.llm.loss import mean_cross_entropy
from goracs_jax.llm.tokens import Tokens, ragged
from goracs_jax.models import Decoder, DecoderConfig

EXAMPLES, ROUNDS = 64, 3
ANSWER = ", answer scored"


def flops(config: DecoderConfig, batches: Sequence[Batch], most: int) -> dict:
    """Count the FLOPs of every pass, padding included.

    At most `most` tokens of an example are scored where the answer alone is.
    """
    lengths = np.concatenate([np.full(*batch.ids.shape) for batch in batches])
    every = Counts(lengths, lengths)
    few = every._replace(scored=np.minimum(lengths, most))
    found = {"forward": forward_flops(config, every)}
    for suffix, counts in (("", every), (ANSWER, few)):
        for which in get_args(Which):
            found[which + suffix] = gradient_flops(config, counts, which)
    return found


@jax.jit
def _losses(graph, state, ids, labels):
    model = nnx.merge(graph, state)
    following = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=-100)
    one = lambda x, y: mean_cross_entropy(x, model.output_head, y)
    return jax.vmap(one)(model.hidden(ids), following).loss


def passes(
    model: Decoder, tokens: Tokens, answers: Tokens, batches: Sequence[Batch]
) -> dict[str, Callable[[], Any]]:
    """Return the bare forward passes (to losses, to logits) and the gradient passes.

    The gradients are those of the loss of all tokens and those of the answer's loss,
    which needs no logits of the prompt.
    """
    parts = nnx.split(model)
    every = partial(gradient_norms, model, tokens)
    few = partial(gradient_norms, model, answers)
    return {
        "forward": lambda: [_losses(*parts, b.ids, b.labels) for b in batches],
        "logits": lambda: each(lambda b: logits(*parts, b.ids), batches),
        "last_v_lora_b": every,
        "all_lora": partial(every, which="all_lora"),
        f"last_v_lora_b{ANSWER}": few,
        f"all_lora{ANSWER}": partial(few, which="all_lora"),
    }


def ours() -> dict[str, Any]:
    """Time the forward passes and the gradient passes over the same batches."""
    tokens, answers = prompts(EXAMPLES), prompts(EXAMPLES, "answer")
    load = partial(gx.load_decoder, fetch().model, key=jax.random.key(0))
    model, batches = load(), [batch.padded() for batch in make_batches(tokens)]
    runs = passes(model, tokens, answers, batches)
    rounded = passes(load(dtype=jnp.bfloat16), tokens, answers, batches)
    runs |= {f"{name}, bfloat16": run for name, run in rounded.items()}
    first = in_turns(runs, 1)
    turns = by_turns(runs, ROUNDS)
    seconds = {name: [took.wall for took in times] for name, times in turns.items()}
    cpu = {name: [took.cpu for took in times] for name, times in turns.items()}
    counted = flops(model.config, batches, int(answers.scored.max()))
    padded = sum(batch.ids.size for batch in batches)
    median = medians(seconds)
    return {
        "examples": EXAMPLES,
        "tokens": int(tokens.lengths.sum()),
        "padding_waste": 1 - float(tokens.lengths.sum()) / padded,
        "shapes": sorted({batch.ids.shape for batch in batches}),
        "load": os.getloadavg(),
        "seconds": seconds,
        "processor_seconds": cpu,
        "first_seconds": {name: times[0] for name, times in first.items()},
        "tokens_per_second": {n: tokens.lengths.sum() / t for n, t in median.items()},
        "gflops_per_second": {n: counted[n] / median[n] / 1e9 for n in counted},
        "ratio": ratios(seconds, counted),
        "processor_ratio": ratios(cpu, counted),
        "floor": {n: counted[n] / counted["forward"] for n in counted},
    }


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of every run's seconds."""
    return {name: float(np.median(times)) for name, times in seconds.items()}


def ratios(seconds: dict[str, list[float]], names: Iterable[str]) -> dict[str, float]:
    """Return the medians over that of the faster of the two bare forward passes."""
    median = medians(seconds)
    bare = min(median["forward"], median["logits"])
    return {name: median[name] / bare for name in names if name != "forward"}


def compile_seconds() -> dict[str, Any]:
    """Return the seconds of the first call minus those of the second, by depth."""
    tokens = ragged([[1] * 32], [[1] * 32])
    figures = {}
    for which in get_args(Which):
        for layers in (30, 60):
            config = DecoderConfig.tiny(num_layers=layers)
            model = Decoder(config, key=jax.random.key(0))
            run = lambda model=model, which=which: gradient_norms(
                model, tokens, which=which
            )
            first, second = in_turns({f"{which} {layers}": run}, 2).popitem()[1]
            figures[f"{which}, {layers} layers"] = first - second
    return {"seconds": figures}


def draw() -> None:
    """Draw the ratios to the bare forward pass, and the seconds of PyTorch."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="tight")
    for axis, part in zip(axes, ("ours", "torch"), strict=True):
        path = RESULTS / f"gradients_{part}.json"
        if not path.exists():
            axis.set_axis_off()
            continue
        record = json.loads(path.read_text())
        if part == "ours":
            names = list(record["ratio"])
            axis.barh(names, [record["ratio"][n] for n in names], label="measured")
            for i, name in enumerate(names):
                floor = record["floor"][name]
                label = None if i else "FLOP floor"
                axis.vlines(floor, i - 0.4, i + 0.4, "k", "dotted", label=label)
            axis.set_xlabel("time / bare forward pass")
            axis.legend(loc="lower right")
        else:
            names = list(record["seconds"])
            axis.barh(names, [min(record["seconds"][n]) for n in names])
            axis.set_xlabel(f"seconds, {record['examples']} prompts")
    figure.savefig(RESULTS / "gradients.png", dpi=110)


def torch() -> dict[str, Any]:
    """Time the same passes in PyTorch, which only this part imports."""
    from gradients_torch import against_torch

    return against_torch()


PARTS = {"ours": ours, "torch": torch, "compile": compile_seconds}


def main() -> None:
    """Run the parts that the command names."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("parts", nargs="+", choices=PARTS)
    for name in parser.parse_args().parts:
        figures = PARTS[name]()
        path = write(f"gradients_{name}", figures)
        print(json.dumps({k: v for k, v in figures.items() if k != "seconds"}), path)
    draw()


if __name__ == "__main__":
    main()
