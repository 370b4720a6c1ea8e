"""Methods, budgets, lambdas and seeds side by side: what came out, and what it cost."""
