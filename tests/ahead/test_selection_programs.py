"""The programs of selections, as they are lowered for devices that are not there."""

import logging
import re
import sys
from functools import cache

import jax
import jax.numpy as jnp
import pytest
from instances import instance

from goracs_jax import goracs
from goracs_jax.ahead.selection_programs import abstract_cost, selection_programs
from goracs_jax.mesh import row_mesh
from goracs_jax.selection.baselines import coverage, scores
from goracs_jax.selection.itra import improvement_scores
from goracs_jax.selection.method import Goracs, SimulatedAnnealing
from goracs_jax.transport import pair_values

SIZES = N_TRAIN, N_VALID, DIM = 403, 24, 16
BUDGET = 6
PLATFORMS = ("cpu", "cuda", "tpu")
DOT = re.compile(r"stablehlo\.dot_general .*")
SCATTER = re.compile(r'"stablehlo\.scatter".*?\n *\}\)', re.S)


def traced():
    """Functions that trace the programs of `goracs`, and those of other methods."""
    cost = abstract_cost(*SIZES, row_mesh(jax.devices()[:1]))
    shaped = jax.ShapeDtypeStruct
    key = jax.eval_shape(lambda: jax.random.key(0))
    some, rows = shaped((BUDGET, DIM), "f4"), shaped((BUDGET,), "i4")
    train, duals = shaped((N_TRAIN, DIM), "f4"), shaped((BUDGET,), "f4")
    subset, g = shaped((BUDGET, N_VALID), "f4"), shaped((N_VALID,), "f4")
    scored = jax.jit(improvement_scores)
    return selection_programs(*SIZES, BUDGET, cost.tiling.mesh) | {
        "k-center": lambda: coverage._farthest_first.trace(train, key, BUDGET),
        "k-means++": lambda: coverage._plus_plus.trace(train, key, BUDGET),
        "k-means": lambda: coverage._lloyd.trace(cost, some, 2),
        "k-means rows": lambda: coverage._medoids.trace(train, some),
        "herding": lambda: scores._herd.trace(cost, BUDGET, 100),
        "itra": lambda: scored.trace(cost, rows, duals),
        "pairs": lambda: pair_values.trace(subset, subset, rows, g, 0.1),
    }


PROGRAMS = traced()


@cache
def texts(name):
    """The program for every platform, before any compiler has seen it."""
    program = PROGRAMS[name]()
    lowered = (program.lower(lowering_platforms=(p,)) for p in PLATFORMS)
    return tuple(one.as_text() for one in lowered)


def imprecise(text):
    """Matrix products in float32 that a TPU or GPU may round."""
    dots = (dot for dot in DOT.findall(text) if "xf32>" in dot)
    return [dot for dot in dots if "precision = [HIGHEST, HIGHEST]" not in dot]


def unordered(text):
    """Scatters that add or multiply floats: a GPU does so in no fixed order."""
    found = SCATTER.findall(text)
    assert len(found) == text.count('"stablehlo.scatter"')
    kinds = r"stablehlo\.(add|multiply) .*: tensor<b?f\d+>"
    return [scatter for scatter in found if re.search(kinds, scatter)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_have_their_precision(name):
    for text in texts(name):
        assert not imprecise(text)


@pytest.mark.parametrize("name", PROGRAMS)
def test_sums_are_ordered(name):
    for text in texts(name):
        assert not unordered(text)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_stay_on_the_device_in_float32(name):
    for text in texts(name):
        assert "f64" not in text
        assert "callback" not in text


def test_the_checks_see_what_they_look_for():
    x, rows = jnp.ones((3, 3)), jnp.array([0, 0])
    lowered = lambda f: jax.jit(f).lower(x).as_text()
    assert imprecise(lowered(lambda x: x @ x))
    assert unordered(lowered(lambda x: x.at[rows].add(1.0)))
    assert not unordered(lowered(lambda x: x.at[rows].set(1.0)))


LOGGED = re.compile(r"Compiling jit\((\w+)\) with global shapes and types (.*?)\. Arg")
SHAPED = re.compile(r"ShapedArray\(([\w<>]+)\[([\d,]*)\]")
#: What a selection by `goracs` runs as a job, or with another solver.
BESIDE = {"nearest_distances", "_iterate"}


def ours():
    """The names of all compiled functions of the package that are imported by now."""
    modules = [m for name, m in sys.modules.items() if name.startswith("goracs_jax.")]
    functions = (x for module in modules for x in vars(module).values())
    return {x.__name__ for x in functions if hasattr(x, "trace") and callable(x)}


def arrays(text):
    """The types and shapes of arguments."""
    return [
        (dtype, tuple(int(n) for n in shape.split(",") if n))
        for dtype, shape in SHAPED.findall(text)
    ]


def holds(listed, ran):
    """Whether a program for `listed` has room for `ran`, which lacks what is unused."""
    for dtype, shape in ran:
        while listed:
            (other, room), *listed = listed
            fits = len(room) == len(shape) and all(map(int.__le__, shape, room))
            if other == dtype and fits:
                break
        else:
            return False
    return True


def test_the_list_has_the_programs_of_a_run(caplog):
    n_train, n_valid, budget = 300, 24, 40
    case = instance(n_train, n_valid, seed=0, dim=DIM)
    brief = SimulatedAnnealing(gap=-1.0, epochs=2, fewest_epochs=2, starts=1)
    given = {"budget": budget, "lambda_": 0.3, "key": jax.random.key(0)}
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        goracs(case.x, case.y, case.g, method=Goracs(annealing=brief), **given)
    ran = [
        (match[1], arrays(match[2]))
        for record in caplog.records
        if (match := LOGGED.match(record.getMessage()))
    ]
    devices = row_mesh(jax.devices()[:1])
    programs = selection_programs(n_train, n_valid, DIM, budget, devices)
    traced = [program() for program in programs.values()]
    listed = {one.fun_name: arrays(str(one.jaxpr.in_avals)) for one in traced}
    ran = [(name, shapes) for name, shapes in ran if name in ours()]
    assert {name for name, _ in ran} == set(listed) - BESIDE
    for name, shapes in ran:
        assert holds(listed[name], shapes), (name, shapes)
