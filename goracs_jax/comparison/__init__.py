"""Compare methods, budgets, lambdas and seeds: what came out, and what it cost."""
