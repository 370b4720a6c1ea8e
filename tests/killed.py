"""A stage of gradient norms, run in a process that is killed and started again.

A server forks the processes after the imports, which take most of their time.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import jax
import numpy as np

from goracs_jax.llm.gradients import example_scores
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.runs.stages import Stage, run_stage

SLOWLY = 0.01  # seconds a batch takes at least, so that kills can hit one


def scores(mapper=map_batches) -> dict[str, np.ndarray]:
    """Of 160 random examples in 40 batches."""
    rng = np.random.default_rng(0)
    config = DecoderConfig.tiny()
    lengths = rng.integers(3, 17, 160)
    ids = [rng.integers(0, config.vocab_size, n).tolist() for n in lengths]
    model = Decoder(config, key=jax.random.key(0))
    found = example_scores(model, ragged(ids, ids), tokens_per_batch=64, mapper=mapper)
    return found._asdict()


def run(folder: str, batches_begun: Connection) -> None:
    """The stage; says when a batch begins."""
    # Compiled once for all processes.
    jax.config.update("jax_compilation_cache_dir", f"{folder}/programs")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    def compute(mapper):
        def slow_mapper(fn, batches):
            def slow(ids, labels):
                batches_begun.send(None)
                time.sleep(SLOWLY)
                return fn(ids, labels)

            return mapper(slow, batches)

        return scores(slow_mapper)

    run_stage(Path(folder), Stage("scores", {}, compute), part_seconds=0.0)


def run_until(folder: Path, batches: int | None, seconds: float) -> bool:
    """Runs on; kills so many seconds after so many batches began, if not too late.

    Returns whether it was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed"])
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(str(folder), theirs))
    process.start()
    theirs.close()
    try:
        while batches is None or batches > 0:
            ours.recv()
            batches = None if batches is None else batches - 1
        time.sleep(seconds)
        process.kill()
    except EOFError:
        pass  # it has come to its end
    process.join()
    killed = process.exitcode != 0
    process.close()
    ours.close()
    return killed
