"""One run of many cells against a run for each: seconds, and the same selections.

    python benchmarks/sweep.py [--data instance.npz] [--budgets 64 256]

The instance is a .npz with train [N, dim], valid [M, dim] and grad_norm [N]; without
one, synthetic clusters. Writes results/sweep.json (or --name): seconds of `sweep` and
of `goracs` for every cell, in turns, of the clock and of the processor (which other
work on the machine disturbs less); the first turn, from empty caches, compiles. What
makes embeddings and gradient norms, shared as well, is not in it.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from common import write
from selection import synthetic

from goracs_jax import Selection, goracs, sweep

Found = dict[tuple[int, float], Selection]


def timed(run: Callable[[], Found]) -> tuple[Found, dict[str, float]]:
    """What a run finds, and its seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    found = run()
    return found, {
        "clock": time.perf_counter() - clock,
        "processor": time.process_time() - processor,
    }


def main() -> None:
    """Run both ways in turns."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--name", default="sweep")
    parser.add_argument("--train", type=int, default=4000, help="rows of the stand-in")
    parser.add_argument("--valid", type=int, default=1000, help="rows of the stand-in")
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    parser.add_argument("--method", default="goracs")
    parser.add_argument("--turns", type=int, default=3)
    flags = parser.parse_args()
    data = np.load(flags.data) if flags.data else synthetic(flags.train, flags.valid)
    arrays = [np.asarray(data[k], np.float32) for k in ("train", "valid", "grad_norm")]
    names = {"key": jax.random.key(0), "method": flags.method}

    def together() -> Found:
        return sweep(*arrays, budgets=flags.budgets, lambdas=flags.lambdas, **names)

    def apart() -> Found:
        return {
            (budget, lambda_): goracs(*arrays, budget=budget, lambda_=lambda_, **names)
            for budget, lambda_ in itertools.product(flags.budgets, flags.lambdas)
        }

    one, two, turns = {}, {}, []
    for turn in range(flags.turns):
        if turn == 0:
            jax.clear_caches()
        one, one_seconds = timed(together)
        if turn == 0:
            jax.clear_caches()
        two, two_seconds = timed(apart)
        turns.append({"sweep": one_seconds, "separate": two_seconds})
        print(turns[-1])
    figures = {
        "data": flags.data.name if flags.data else "synthetic clusters",
        "train": len(arrays[0]),
        "valid": len(arrays[1]),
        "dim": arrays[0].shape[1],
        "method": flags.method,
        "turns": turns,
        "same_selections": all(
            np.array_equal(one[cell].indices, two[cell].indices) for cell in two
        ),
        "cells": [
            {
                "budget": budget,
                "lambda": lambda_,
                "poo": found.objective,
                "lower_bound": found.lower_bound,
            }
            for (budget, lambda_), found in sorted(one.items())
        ],
    }
    print(write(flags.name, figures))


if __name__ == "__main__":
    main()
