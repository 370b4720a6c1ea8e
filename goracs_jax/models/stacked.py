"""Experts that a checkpoint stores one by one, and a model as one stack.

A checkpoint has a matrix [out, in] for every expert, a model one array [experts, in,
out] for all of a layer. In between stands a tensor [out, in, experts], of which that
array is the transpose, as every kernel is of what is stored.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.models.config import MixtureConfig
from goracs_jax.models.tensors import Slices, Tensors

#: The name of a weight of one expert, by layer, number and part.
ONE = re.compile(r"(.*\.experts)\.(\d+)\.([a-z0-9_]+)\.weight")


def stack(tensors: Tensors, c: MixtureConfig) -> Tensors:
    """Return the tensors of a checkpoint with one for all experts of a layer.

    Args:
        tensors: The checkpoint.
        c: The sizes of the mixture.

    Raises:
        InputError: The matrix of an expert is missing, or has another shape than those
            of the others.
    """
    shapes, groups = dict(tensors.shapes), dict[str, list[str]]()
    for name in tensors.shapes:
        found = ONE.fullmatch(name)
        if found and found[3] in c.parts and int(found[2]) < c.experts:
            stem, _, part = found.groups()
            names = [f"{stem}.{e}.{part}.weight" for e in range(c.experts)]
            groups.setdefault(f"{stem}.{part}.weight", names)
    for new, names in groups.items():
        for name in names:
            shape, first = shapes.get(name), shapes.get(names[0])
            if shape is None or shape != first:
                problem = "is missing" if shape is None else f"has the shape {shape}"
                others = "" if None in (shape, first) else f" and {names[0]} {first}"
                raise InputError(
                    f"{tensors.where}: tensor {name} {problem}{others}: use weights "
                    "and config of the same model."
                )
        shapes[new] = (*shapes[names[0]], c.experts)
        for name in names:
            del shapes[name]

    def read(name: str, part: Slices = ()) -> np.ndarray:
        if name not in groups:
            return tensors.read(name, part)
        of_all = part[2] if part else slice(None)
        found = [tensors.read(one, part[:2]) for one in groups[name][of_all]]
        return np.stack(found).transpose(1, 2, 0)

    return Tensors(tensors.where, shapes, read)


def unstack(
    tensors: Mapping[str, Callable[[], np.ndarray]], c: MixtureConfig
) -> dict[str, Callable[[], np.ndarray]]:
    """Return the tensors of a checkpoint with one for each expert; inverse of `stack`.

    >>> one = {"m.experts.up_proj.weight": lambda: np.ones((2, 3, 4))}
    >>> made = unstack(one, MixtureConfig(experts=4, active=1))
    >>> len(made), made["m.experts.3.up_proj.weight"]().shape
    (4, (2, 3))
    """
    made = {}
    for name, make in tensors.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        if not stem.endswith(".experts"):
            made[name] = make
            continue
        whole = lru_cache(1)(make)
        for expert in range(c.experts):
            one = lambda whole=whole, e=expert: np.ascontiguousarray(whole()[..., e])
            made[f"{stem}.{expert}.{part}.weight"] = one
    return made
