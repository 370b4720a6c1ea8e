"""How often does a method find the best of all subsets? Small instances, enumerated.

    python benchmarks/brute_force.py [--instances 200]

The script writes results/brute_force.json. For each size and lambda it holds the share
of random instances on which a method reaches the optimum, and the mean and the largest
difference between the method's POO and the optimum.
"""

import argparse
import itertools
import math

import jax
import numpy as np
from common import write

from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.selection.method import find_method
from goracs_jax.selection.problem import Problem
from goracs_jax.transport import exact

SIZES = [(8, 6, 2), (10, 8, 3), (12, 10, 4), (12, 5, 6)]  # N, M, n
LAMBDAS = [0.0, 0.1, 0.5]
METHODS = ["goracs", "greedy", "random"]
TOLERANCE = 1e-9  # difference in POO that two float64 transports may have


def main() -> None:
    """Enumerate all subsets, run every method, count the optima."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--instances", type=int, default=200)
    instances = parser.parse_args().instances
    rows = []
    for (n_train, n_valid, budget), lambda_ in itertools.product(SIZES, LAMBDAS):
        excess = {method: [] for method in METHODS}
        for seed in range(instances):
            rng = np.random.default_rng(seed)
            x = rng.normal(size=(n_train, 3)).astype(np.float32)
            y = rng.normal(size=(n_valid, 3)).astype(np.float32)
            cost = make_cost(x, y, rng.gamma(4.0, size=n_train), lambda_)
            matrix = exact_cost(cost, np.arange(n_train))
            subsets = itertools.combinations(range(n_train), budget)
            best = min(exact(matrix[list(subset)]).value for subset in subsets)
            for method in METHODS:
                key = jax.random.key(seed)
                found = find_method(method).choose(Problem(cost), budget, key=key)
                excess[method].append(found.objective - best)
        for method, values in excess.items():
            over = np.array(values)
            rows.append(
                {
                    "train": n_train,
                    "valid": n_valid,
                    "budget": budget,
                    "subsets": math.comb(n_train, budget),
                    "lambda": lambda_,
                    "method": method,
                    "optimal": float((over < TOLERANCE).mean()),
                    "mean_excess": float(over.mean()),
                    "largest_excess": float(over.max()),
                }
            )
            print(rows[-1])
    print(write("brute_force", {"instances": instances, "rows": rows}))


if __name__ == "__main__":
    main()
