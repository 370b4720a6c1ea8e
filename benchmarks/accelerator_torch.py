"""A LoRA step in PyTorch with PEFT, for accelerator.py, in a process of its own.

    python benchmarks/accelerator_torch.py EXAMPLES TIME STEPS cpu|gpu|tpu

The base is bfloat16 and the adapters are float32, as in ours. The last line printed is
JSON.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
import torch
from accelerator_given import FULL, TINY, Given
from torch_steps import Torch, torch_model


def main() -> None:
    """Time some steps after a first one."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    for name in ("examples", "time", "steps"):
        parser.add_argument(name, type=int)
    parser.add_argument("platform")
    parser.add_argument("--pieces", type=Path)
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    if flags.platform == "tpu" or (
        flags.platform == "gpu" and not torch.cuda.is_available()
    ):
        because = f"torch sees no device of the platform {flags.platform}"
        print(json.dumps({"not_done": because}))
        return
    # JAX reads the weights alone: the device is PyTorch's.
    jax.config.update("jax_platforms", "cpu")
    sizes = (TINY if flags.tiny else FULL)._replace(time=flags.time)
    given = Given(sizes=sizes, seconds_left=lambda: 0.0, pieces=flags.pieces)
    model, _ = given.small(np.float32)
    theirs = torch_model(model).to("cuda" if flags.platform == "gpu" else "cpu")
    for name, weight in theirs.named_parameters():
        if "lora_" not in name:
            weight.data = weight.data.to(torch.bfloat16)
    tokens = given.tokens(model.config, 2 * flags.examples)
    run = Torch(theirs, tokens, flags.examples, flags.examples)
    run.step(0)
    seconds = []
    for number in range(1, 1 + flags.steps):
        started = time.perf_counter()
        run.step(number)
        seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds))
    figures = {
        "seconds": median,
        "tokens_per_second": flags.examples * flags.time / median,
        "torch": torch.__version__,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
