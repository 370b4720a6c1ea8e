"""Choose n of N rows: the objective, the methods, and a bound on all of them.

Import from the modules: `select` has the door for arrays, `sweep` that for several
budgets and lambdas, `method` the registry, `problem` what a method is given and what it
returns. Importing this package, or `method`, imports no JAX.
"""
