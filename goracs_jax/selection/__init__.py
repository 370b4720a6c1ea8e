"""Choose n of N rows: the objective, the methods, and a bound on all of them.

Import from the modules: `select` has the front door for arrays, `sweep` the one for
several budgets and lambdas, `method` the registry, and `problem` the types that a
method takes and returns. Importing this package, or `method`, imports no JAX.
"""
