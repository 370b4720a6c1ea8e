"""Compile every program of the main job for devices that are not there.

    make ahead
    python benchmarks/ahead.py [--only REGEX]

It needs the compilers of TPUs and GPUs, which `make ahead` installs, but neither a TPU
nor a GPU. A program is one entry of results/ahead.json, written as soon as it is
compiled. What a compiler said of the same program is kept, so a run that was stopped
goes on, and programs that are no more are dropped. REGEX is looked for in "MODEL
TOPOLOGY PROGRAM".
"""

import argparse
import json
import os
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # the compilers run in processes of their own
# Or a program with a kernel would seem another one where a line of ours has moved.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

from common import RESULTS, write

from goracs_jax.ahead.compile_job import Job, compile_elsewhere

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
}
MODELS = {
    "SmolLM2-135M": {
        **LLAMA,
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
    },
    "Llama-7B": {
        **LLAMA,
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
}
# Quick compilers first; of each generation one topology has the large model.
PODS = ("h100:8", "v5e:16x16", "v6e:8x8", "v5p:4x4x4", "tpu7x:2x2x1")
RUNS = [
    ("SmolLM2-135M", "h100:1"),
    *(("SmolLM2-135M", pod) for pod in PODS),
    ("SmolLM2-135M", "v5e:1x1"),
    *(("Llama-7B", pod) for pod in PODS),
]
#: Games: 88,000 training and 22,000 validation examples of 512 padded tokens.
LENGTH, TRAIN, VALID, BUDGET = 512, 88_000, 22_000, 1024
AT_ONCE = 2  # topologies


def main() -> None:
    """Compile what is missing, two topologies at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help='pattern of "MODEL TOPOLOGY PROGRAM"'
    )
    only, lock = re.compile(parser.parse_args().only), threading.Lock()
    path = RESULTS / "ahead.json"
    entries = json.loads(path.read_text())["entries"] if path.exists() else {}
    folder = Path(tempfile.mkdtemp(prefix="goracs-ahead-"))
    for name, config in MODELS.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))

    def run(model: str, topology: str) -> None:
        mine = f"{model} {topology} "
        known = {
            key.removeprefix(mine): entry["fingerprint"]
            for key, entry in entries.items()
            if key.startswith(mine) and "temporaries" in entry
        }
        job = Job(
            label=mine,
            topology=topology,
            model=str(folder / model),
            length=LENGTH,
            scored=LENGTH,
            train_rows=TRAIN,
            valid_rows=VALID,
            budget=BUDGET,
            only=only.pattern,
            known=known,
        )
        started = time.perf_counter()
        with lock:
            gone = {k for k in entries if k.startswith(mine) and only.search(k)}
        for record in compile_elsewhere(job):
            program = record.pop("program")
            gone.discard(mine + program)
            kept = known.get(program, "") == record.get("fingerprint")
            with lock:
                old = entries[mine + program] if kept else {"load": os.getloadavg()[0]}
                entries[mine + program] = old | record
                save(entries)
            wall = time.perf_counter() - started
            told = record.get("seconds") or record.get("failed") or "kept"
            print(f"{wall:6.0f} s  {mine}{program}: {told}", flush=True)
            for finding in record.get("findings", ()):
                print(f"          {finding}", flush=True)
        with lock:
            for key in gone:
                del entries[key]
            save(entries)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(run, *names) for names in RUNS]:
            done.result()


def save(entries: dict[str, Any]) -> None:
    """Write all entries in order."""
    found = dict(sorted(entries.items()))
    write("ahead", {"models": MODELS, "entries": found})


if __name__ == "__main__":
    main()
