"""Tokens per second of LoRA fine-tuning, compared with PyTorch and PEFT.

    python benchmarks/finetune.py

Both fine-tune SmolLM2-135M in float32 on the same MovieLens prompts in the same
batches, with LoRA of rank 8 and dropout 0.05 on q_proj and v_proj, and AdamW. The loss
is that of all tokens, or that of the answer alone. PyTorch goes through a batch in
micro-batches of 8, in the random order of a data loader, each padded to its longest
example. Rounds of both alternate, so that only one of them computes at a time; the
first round of each is warm-up. The script writes results/finetune.json and .png.
"""

import time
from typing import get_args

import jax
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import RESULTS, peak_mib, write
from lora_steps import Ours
from prompts import prompts
from torch_steps import Torch, torch_model

from goracs_jax.data.demo import fetch
from goracs_jax.llm.tokenization import Scored
from goracs_jax.models import load_decoder
from goracs_jax.training import FinetuneConfig

EXAMPLES, BATCH, MICRO, ROUNDS = 48, 24, 8, 3
OURS, THEIRS = "goracs_jax", "torch + PEFT"
CONFIG = FinetuneConfig(epochs=20, learning_rate=1e-4, batch_size=BATCH)


def main() -> None:
    """Measure both, write the figures, draw them."""
    model = load_decoder(fetch().model, key=jax.random.key(0))
    sides: dict[str, Ours | Torch] = {}
    for labels in get_args(Scored):
        tokens = prompts(EXAMPLES, labels, context=2048)
        sides[f"{OURS}, {labels}"] = Ours(model, tokens, CONFIG)
        sides[f"{THEIRS}, {labels}"] = Torch(torch_model(model), tokens, BATCH, MICRO)
    found: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    for number in range(ROUNDS):
        for name, side in sides.items():
            started = time.perf_counter()
            count = side.step(number)
            found[name].append(count / (time.perf_counter() - started))
        peaks.append(peak_mib())
    measured = {name: rates[1:] for name, rates in found.items()}
    median = {name: float(np.median(rates)) for name, rates in measured.items()}
    ours = [side for side in sides.values() if isinstance(side, Ours)]
    ratio = {
        labels: median[f"{OURS}, {labels}"] / median[f"{THEIRS}, {labels}"]
        for labels in get_args(Scored)
    }
    figures = {
        "tokens_per_second": measured,
        "median": median,
        "ratio": ratio,
        "examples": EXAMPLES,
        "batch": BATCH,
        "torch_micro_batch": MICRO,
        "torch_threads": torch.get_num_threads(),
        "torch_version": torch.__version__,
        "mean_tokens": float(ours[0].run.train.lengths.mean()),
        "padded_lengths": ours[0].run.shapes.lengths,
        "compile_seconds": [side.compile_seconds for side in ours],
        "peak_memory_mib_after_round": peaks,
    }
    print(write("finetune", figures))
    print({k: figures[k] for k in ("median", "ratio", "compile_seconds")})
    picture, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
    for place, (name, rates) in enumerate(measured.items()):
        axis.bar(place, median[name], width=0.6, color=f"C{place}", alpha=0.6)
        axis.plot([place] * len(rates), rates, "o", color=f"C{place}")
    names = [name.replace(", ", "\nloss of ") for name in measured]
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("tokens per second")
    times = " and ".join(f"{value:.2f} x" for value in ratio.values())
    axis.set_title(f"LoRA step, SmolLM2-135M: {times}")
    picture.savefig(RESULTS / "finetune.png", dpi=110)


if __name__ == "__main__":
    main()
