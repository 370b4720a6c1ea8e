"""A method that is registered in ten lines is one of `select` and `compare`, too."""

import json

import jax
import numpy as np
import pytest
from commands import ARRAYS, TEXTS, run

from goracs_jax import goracs, unit_rows
from goracs_jax.comparison.design import design
from goracs_jax.jobs.select import searches
from goracs_jax.jobs.select_config import SelectConfig
from goracs_jax.jobs.select_inputs import SelectInputs
from goracs_jax.selection.method import METHODS, Goracs, SimulatedAnnealing


def test_it_stands_in_the_help(rewarded, capsys):
    for verb in ("select", "compare"):
        assert run(f"{verb} --help", None) == 0
        assert "rewarded" in capsys.readouterr().out


def test_it_selects_and_its_lambda_weighs(rewarded, arrays):
    assert run(f"{ARRAYS} --grad-norms g.npy --method rewarded") == 0
    best = np.argsort(np.load("g.npy"))[-5:]
    assert set(np.load("out/indices.npy")) == set(best)
    manifest = json.loads((arrays / "out" / "manifest.json").read_text())
    assert manifest["config"]["lambda_"] == 0.1
    assert [row["method"] for row in manifest["table"]] == ["rewarded", "random"]


def test_from_texts_it_takes_gradients_unless_lambda_is_0(rewarded, files):
    assert run(f"{TEXTS} --method rewarded --dry-run") == 0
    assert run(f"{TEXTS} --method rewarded --lambda 0") == 0
    assert np.load("out/indices.npy").tolist() == [0, 1, 2, 3, 4]
    assert gradients(files) == []
    assert run(f"{TEXTS} --method rewarded") == 0
    assert len(gradients(files)) == 1


def test_published_methods_choose_in_their_own_space(arrays):
    """Unless another is asked for: less has cosines, nearest Euclidean distances."""
    chosen = {}
    for flags in ("less", "less --metric euclidean", "nearest", "alignment"):
        assert run(f"{ARRAYS} --method {flags}") == 0
        chosen[flags] = np.load("out/indices.npy").tolist()
    x, y = np.load("x.npy"), np.load("y.npy")
    key = jax.random.key(0)
    less = goracs(
        unit_rows(x), unit_rows(y), budget=5, lambda_=0.0, key=key, method="less"
    )
    assert chosen["less"] == less.indices.tolist() != chosen["nearest"]
    assert chosen["less --metric euclidean"] == chosen["nearest"]
    best = np.argsort(-(x @ y.mean(axis=0, dtype=np.float64)))[:5]
    assert chosen["alignment"] == sorted(best)


def gradients(files):
    return list((files / "out" / "stages").glob("gradient-norms-*"))


def test_it_has_all_lambdas_in_a_comparison(rewarded):
    trials = design(
        ["rewarded", "rewarded:by-label", "k-center"], [4], [0.3, 0.0], [0],
        full_seeds=1, n_train=9,
    )  # fmt: skip
    assert [(trial.method, trial.lambda_, trial.needs) for trial in trials] == [
        ("rewarded", 0.0, ("embeddings",)),
        ("rewarded", 0.3, ("embeddings", "gradients")),
        ("rewarded:by-label", 0.0, ("embeddings",)),
        ("rewarded:by-label", 0.3, ("embeddings", "gradients")),
        ("k-center", None, ("embeddings",)),
    ]


@pytest.mark.parametrize("method", ["k-center", "random", "nearest"])
def test_no_gradient_pass_for_what_does_not_look_at_gradients(files, method):
    assert run(f"{TEXTS} --method {method}") == 0
    assert gradients(files) == []
    manifest = json.loads((files / "out" / "manifest.json").read_text())
    assert manifest["config"]["lambda_"] == 0.0
    with np.load("out/scores.npz") as scores:
        assert "grad_norm" not in scores


def test_a_lambda_that_is_given_is_honoured(files):
    assert run(f"{TEXTS} --method k-center --lambda 0.1") == 0
    assert len(gradients(files)) == 1


def test_a_method_without_gradients_needs_no_llm(files, capsys):
    command = TEXTS.replace("--model llm", "--encoder none")
    for method, what in (("k-center", "none does not exist"), ("goracs", "--model is")):
        assert run(f"{command} --method {method}") == 2
        assert what in capsys.readouterr().err


def test_settings_of_a_method_name_its_selections():
    """A method of the same name with other settings finds nothing of the first."""
    quick, slow = (
        Goracs(name="mine", annealing=SimulatedAnnealing(epochs=n)) for n in (5, 6)
    )
    inputs = SelectInputs({}, {}, {"x": "-", "y": "-"}, 9, 9, None, None)
    identities = []
    for method in (quick, slow, METHODS["goracs"]):
        config = SelectConfig(method=method, budgets=(4,), lambdas=(0.1,))
        (search,) = searches(inputs, config)
        identities.append(search.stages[method.name].inputs)
    assert "epochs=5" in identities[0]["settings"]["annealing"]
    assert identities[0] != identities[1]
    assert set(identities[2]) == {
        "x", "y", "budget", "lambda", "method", "solver", "seed",
    }  # fmt: skip
