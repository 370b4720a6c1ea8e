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
import peft
import torch
from common import RESULTS, peak_mib, write
from prompts import prompts
from transformers import AutoModelForCausalLM

from goracs_jax.data.demo import fetch
from goracs_jax.llm.tokens import NOT_SCORED, Scored, Tokens, take
from goracs_jax.models import LoraConfig, load_decoder
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.batches import epoch_order
from goracs_jax.training.run import Run

EXAMPLES, BATCH, MICRO, ROUNDS = 48, 24, 8, 3
OURS, THEIRS = "goracs_jax", "torch + PEFT"
LORA = LoraConfig()
CONFIG = FinetuneConfig(epochs=20, learning_rate=1e-4, batch_size=BATCH)


class Torch:
    """Steps as Hugging Face's Trainer takes them, with accumulated gradients."""

    def __init__(self, path, tokens: Tokens):
        base = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        config = peft.LoraConfig(
            r=LORA.r,
            lora_alpha=int(LORA.alpha),
            lora_dropout=LORA.dropout,
            target_modules=list(LORA.targets),
            task_type="CAUSAL_LM",
        )
        self.model = peft.get_peft_model(base, config).train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
        self.trained, self.tokens = trained, tokens

    def step(self, number: int) -> int:
        """Take one step and return its tokens, without padding."""
        rows = step_rows(number)
        whole = take(self.tokens, rows)
        firsts = whole.labels[whole.offsets[:-1]]  # the first of each is not predicted
        count = whole.scored.sum() - (firsts >= 0).sum()
        for micro in rows.reshape(-1, MICRO):
            some = [take(self.tokens, [int(row)]) for row in micro]
            time = max(len(one.ids) for one in some)
            pad = lambda x, value, time=time: torch.tensor(
                np.pad(x, (0, time - len(x)), constant_values=value)
            ).long()
            loss = self.model(
                input_ids=torch.stack([pad(one.ids, 0) for one in some]),
                attention_mask=torch.stack(
                    [pad(np.ones(len(one.ids), np.int32), 0) for one in some]
                ),
                labels=torch.stack([pad(one.labels, NOT_SCORED) for one in some]),
                num_items_in_batch=int(count),
            ).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return int(whole.lengths.sum())


class Ours:
    """Steps as `goracs finetune` takes them."""

    def __init__(self, path, tokens: Tokens):
        model = load_decoder(path, lora=LORA, key=jax.random.key(0))
        started = time.perf_counter()
        self.run = Run.prepare(model, tokens, tokens, CONFIG, seed=0)
        self.compile_seconds = time.perf_counter() - started
        self.state = self.run.fresh

    def step(self, number: int) -> int:
        """Take one step and return its tokens, without padding."""
        self.state, record = self.run.step(self.state)
        return record["tokens"]


def step_rows(number: int) -> np.ndarray:
    """Return the examples of a step, which are the same for both."""
    epoch, place = divmod(number, EXAMPLES // BATCH)
    return epoch_order(EXAMPLES, 0, epoch)[place * BATCH : (place + 1) * BATCH]


def main() -> None:
    """Measure both, write the figures, draw them."""
    files = fetch()
    sides: dict[str, Ours | Torch] = {}
    for labels in get_args(Scored):
        tokens = prompts(EXAMPLES, labels, context=2048)
        sides[f"{OURS}, {labels}"] = Ours(files.model, tokens)
        sides[f"{THEIRS}, {labels}"] = Torch(files.model, tokens)
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
