"""FLOPs of the matrix products of a traced program, with the rounds of its loops."""

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr


def count_flops(program: ClosedJaxpr, *, once: bool = False, unknown: int = 1) -> float:
    """Count the FLOPs of a program's matrix products, over all devices.

    What no result depends on is left out, as a compiler does.

    Args:
        program: The program; `jax.jit(f).trace(...)` has it as `jaxpr`.
        once: Count the body of a loop once, as compilers do.
        unknown: Rounds of a loop that ends by a condition.

    >>> import jax, jax.numpy as jnp
    >>> loop = lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y @ x, x)
    >>> program = jax.make_jaxpr(loop)(jnp.zeros((4, 4)))
    >>> count_flops(program), count_flops(program, once=True)
    (640.0, 128.0)
    """
    jaxpr, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
    return _count(jaxpr, once, unknown)


def _count(jaxpr: Jaxpr, once: bool, unknown: int) -> float:
    found = (_of_equation(equation, once, unknown) for equation in jaxpr.eqns)
    return sum(found, 0.0)


def _of_equation(equation: Any, once: bool, unknown: int) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        depth = math.prod(shape[axis] for axis in contracted)
        return 2.0 * depth * math.prod(equation.outvars[0].aval.shape)
    inner = [
        inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        for value in params.values()
        for inner in (value if isinstance(value, tuple | list) else (value,))
        if isinstance(inner, ClosedJaxpr | Jaxpr)
    ]
    found = [_count(jaxpr, once, unknown) for jaxpr in inner]
    if name == "cond":  # one of its branches runs
        return max(found)
    rounds = {"scan": params.get("length", 1), "while": unknown}.get(name, 1)
    return sum(found, 0.0) * (1 if once else rounds)
