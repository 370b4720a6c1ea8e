"""FLOPs of the matrix products of a traced program, with the rounds of its loops."""

import math
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr


class _Rule(NamedTuple):
    """What is counted, and how often."""

    once: bool = False
    unknown: int = 1
    kernels: bool = False  # what is in kernels, on one device; or all else, on all


def count_flops(program: ClosedJaxpr, *, once: bool = False, unknown: int = 1) -> float:
    """Count the FLOPs of a program's matrix products, over all devices.

    What no result depends on is left out, as a compiler does, and so are kernels, into
    which it does not look.

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
    return _of_program(program, _Rule(once, unknown))


def count_kernel_flops(program: ClosedJaxpr, *, unknown: int = 1) -> float:
    """Count the FLOPs of the matrix products in Pallas kernels, on one device.

    Blocks that a kernel passes over, as those above the diagonal of causal attention,
    are counted as if they were computed.

    Args:
        program: As for `count_flops`.
        unknown: As for `count_flops`.
    """
    return _of_program(program, _Rule(unknown=unknown, kernels=True))


def _of_program(program: ClosedJaxpr, rule: _Rule) -> float:
    jaxpr, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
    return _count(jaxpr, rule)


def _count(jaxpr: Jaxpr, rule: _Rule) -> float:
    return sum((_of_equation(equation, rule) for equation in jaxpr.eqns), 0.0)


def _of_equation(equation: Any, rule: _Rule) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        depth = math.prod(shape[axis] for axis in contracted)
        products = 2.0 * depth * math.prod(equation.outvars[0].aval.shape)
        return 0.0 if rule.kernels else products
    if name == "pallas_call":
        if not rule.kernels:
            return 0.0
        block = _count(params["jaxpr"], rule._replace(kernels=False))
        return block * math.prod(params["grid_mapping"].grid)
    inner = [
        inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        for value in params.values()
        for inner in (value if isinstance(value, tuple | list) else (value,))
        if isinstance(inner, ClosedJaxpr | Jaxpr)
    ]
    found = [_count(jaxpr, rule) for jaxpr in inner]
    if name == "cond":  # one of its branches runs
        return max(found)
    if name == "shard_map":  # its body is the program of one device
        shares = [params["mesh"].shape[axis] for axis in params["newly_manual_axes"]]
        return sum(found) * (1 if rule.kernels else math.prod(shares))
    rounds = {"scan": params.get("length", 1), "while": rule.unknown}.get(name, 1)
    return sum(found, 0.0) * (1 if rule.once else rounds)
