"""Compare methods, budgets, lambdas and seeds by the models that they train."""
