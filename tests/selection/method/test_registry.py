"""A method is registered in ten lines, and is then as good as a built-in one."""

import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from instances import instance

from goracs_jax import goracs, sweep
from goracs_jax.errors import InputError
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.method import (
    METHODS,
    FunctionMethod,
    Goracs,
    SimulatedAnnealing,
    find_method,
    home_of,
    known_methods,
    needs_of,
    register,
)
from goracs_jax.selection.method.registry import _plug_in

CASE, KEY = instance(30, 12, seed=1), jax.random.key(0)


def first(problem, budget, *, key):
    return selection_of(problem, np.arange(budget), time.perf_counter())


FIRST = FunctionMethod(
    name="first", choose=first, about="The first rows.", needs=(), weighed=True
)


@pytest.fixture
def registered():
    yield register(FIRST)
    del METHODS["first"]


@pytest.mark.parametrize("method", ["first", FIRST])
def test_a_registered_method_runs_by_its_name_and_as_a_record(registered, method):
    found = goracs(*CASE[:3], budget=5, key=KEY, method=method)
    assert found.indices.tolist() == [0, 1, 2, 3, 4]
    cells = sweep(*CASE[:3], budgets=[3, 5], lambdas=[0.0, 0.1], key=KEY, method=method)
    assert cells[5, 0.1].objective == found.objective
    assert cells[5, 0.0].objective > found.objective  # lambda weighs in its POO
    classes = {"train_labels": np.arange(30) % 2, "valid_labels": np.arange(12) % 2}
    by_class = goracs(*CASE[:3], budget=4, key=KEY, method=method, **classes)
    assert by_class.indices.tolist() == [0, 1, 2, 3]


def test_a_method_need_not_be_registered():
    found = goracs(*CASE[:3], budget=5, key=KEY, method=FIRST)
    assert found.indices.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"method must be one of goracs, .* 'first'"):
        goracs(*CASE[:3], budget=5, key=KEY, method="first")


def test_settings_are_a_method():
    quick = Goracs(
        name="quick", annealing=SimulatedAnnealing(epochs=2, sweeps=1, starts=1)
    )
    case = instance(300, 80, seed=7)
    runs = {}
    for method in ("greedy", quick, "goracs"):
        found = goracs(*case[:3], budget=20, key=KEY, method=method)
        runs[find_method(method).name] = found.objective
    assert runs["goracs"] < runs["quick"] < runs["greedy"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("goracs", r"'goracs' is taken"),
        ("full", r"'full' is taken"),
        ("First", r"'First' must be of lower-case letters"),
        ("a,b", r"'a,b' must be of"),
        ("first:by-label", r"must be of lower-case letters"),
        ("", r"'' must be of"),
    ],
)
def test_names_that_nothing_can_carry(name, message):
    known = dict(METHODS)
    with pytest.raises(InputError, match=message):
        register(FunctionMethod(name=name, choose=first, about="The first rows."))
    assert known == METHODS


def test_a_function_is_no_method():
    with pytest.raises(InputError, match=r"a name or a Method, got <function first"):
        find_method(first)


def test_a_function_in_the_registry_is_no_method(monkeypatch):
    monkeypatch.setitem(METHODS, "first", first)
    with pytest.raises(InputError, match=r"a name or a Method, got <function first"):
        goracs(*CASE[:3], budget=5, key=KEY, method="first")


def test_what_every_method_needs():
    assert {name: needs_of(method, 0.1) for name, method in METHODS.items()} == {
        "goracs": ("embeddings", "grad_norms"),
        "greedy": ("embeddings", "grad_norms"),
        "itra": ("embeddings", "grad_norms"),
        "random": (),
        "stratified": ("embeddings",),
        "k-center": ("embeddings",),
        "k-means": ("embeddings",),
        "herding": ("embeddings",),
        "nearest": ("embeddings",),
        "grad-norm": ("grad_norms",),
        "error": ("prediction_errors",),
        "less": ("embeddings",),
        "rds": ("embeddings",),
        "doubly-greedy": ("embeddings",),
        "tsds": ("embeddings",),
        "unbalanced-ot": ("embeddings",),
        "tarot": ("embeddings",),
        "gist": ("embeddings",),
        "loss-drop": ("rewards",),
        "alignment": ("rewards",),
    }
    for method in METHODS.values():
        assert needs_of(method, 0.0) == needs_of(method, None) == method.needs
        assert method.about.endswith(".")


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].weighed])
def test_lambda_weighs_in_the_methods_that_say_so(method):
    """For the others, tests/selection/baselines shows that it moves no row."""
    heavy, light = (
        goracs(*CASE[:3], budget=5, lambda_=lambda_, key=KEY, method=method)
        for lambda_ in (9.0, 0.0)
    )
    assert (heavy.indices != light.indices).any()


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """An installed package with three entry points, of which two are broken."""
    (tmp_path / "theirs.py").write_text(
        "from goracs_jax.selection.method import FunctionMethod\n"
        "plugged = FunctionMethod(name='plugged', choose=print, about='Theirs.')\n"
        "taken = FunctionMethod(name='random', choose=print, about='Not theirs.')\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[goracs_jax.methods]\nplugged = theirs:plugged\ntaken = theirs:taken\n"
        "missing = theirs:missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _plug_in.cache_clear()
    yield
    METHODS.pop("plugged", None)
    _plug_in.cache_clear()


def test_homes():
    class Plugged:
        """A method of a package that knows of no homes."""

        name, about, needs, weighed, choose = "x", "X.", (), False, first

    assert home_of(Plugged()) == home_of(METHODS["goracs"]) == ("text", "grad-norm")
    assert home_of(METHODS["tarot"]) == ("gradient/whiten/cosine", "grad-norm")
    assert home_of(METHODS["loss-drop"]) == ("text", "loss-drop")
    assert home_of(Goracs(space="gradient", reward="none")) == ("gradient", "none")


def test_methods_of_other_packages_are_found(plug_in):
    with (
        pytest.warns(UserWarning, match=r"'taken' of entry point .* 'random' is taken"),
        pytest.warns(UserWarning, match=r"'missing' of entry point 'theirs:missing'"),
    ):
        assert find_method("plugged").about == "Theirs."
    assert list(known_methods())[-1] == "plugged"
    assert METHODS["random"].about != "Not theirs."


def test_the_registry_imports_no_jax():
    script = (
        "import sys; from goracs_jax.selection.method import known_methods\n"
        "known_methods()\n"
        "heavy = {'jax', 'flax', 'ot', 'ott', 'scipy', 'numpy', 'jaxtyping'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
