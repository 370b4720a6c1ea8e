"""`goracs select --transform --metric`: the space that distances are taken in."""

import json

import numpy as np
import pytest
from commands import ARRAYS, BUDGET, TEXTS, assert_refused, run

import goracs_jax as gx


@pytest.mark.parametrize("transform", ["whiten", "drop:1", "subspace:2"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_space_is_that_of_rows_changed_beforehand(arrays, transform, metric):
    x, y = np.load("x.npy"), np.load("y.npy")
    name, _, k = transform.partition(":")
    made = {"whiten": gx.Whiten, "drop": gx.Drop, "subspace": gx.Subspace}[name]
    fitted = (made(int(k)) if k else made()).fit(y)
    x, y = fitted.transform(x), fitted.transform(y)
    if metric == "cosine":
        x, y = gx.unit_rows(x), gx.unit_rows(y)
    assert run(f"{ARRAYS} --transform {transform} --metric {metric}") == 0
    np.save("x.npy", x)
    np.save("y.npy", y)
    assert run(ARRAYS.replace("--out out", "--out by_hand")) == 0
    for name in ("indices.npy", "scores.npz"):
        one, two = ((arrays / f / name).read_bytes() for f in ("out", "by_hand"))
        assert one == two


def test_another_space_is_another_selection(arrays):
    """In the same folder: what was kept of one is not taken for another."""
    found = []
    for flags in ("", " --transform drop:2", " --metric cosine", ""):
        assert run(ARRAYS + flags) == 0
        found.append(np.load(arrays / "out" / "scores.npz"))
        config = json.loads((arrays / "out/manifest.json").read_text())["config"]
        assert config["transform"] == ("drop:2" if "drop" in flags else "none")
    nearest = [scores["nearest_distance"] for scores in found]
    np.testing.assert_array_equal(nearest[0], nearest[3])
    assert not np.allclose(nearest[0], nearest[1])
    assert not np.allclose(nearest[0], nearest[2])


def test_texts_have_a_space_too(files):
    assert run(TEXTS + " --lambda 0 --transform whiten --metric cosine") == 0
    assert len(np.load(files / "out/indices.npy")) == BUDGET


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--transform pca", "a transform is none, center, .* got 'pca'"),
        ("--transform drop:0", "got 'drop:0'"),
        ("--transform subspace:10", "needs 10 directions, and 10 validation examples"),
        ("--metric manhattan", "--metric"),
    ],
)
@pytest.mark.parametrize("command", [ARRAYS, TEXTS])
def test_mistakes_are_found_before_any_work(
    files, arrays, flags, message, command, capsys
):
    assert_refused(f"{command} {flags}", BUDGET, capsys, message)
    assert not (files / "out").exists()


def test_an_encoder_that_no_space_reads(files, capsys):
    command = f"{TEXTS} --space gradient --encoder none"
    message = "--encoder is for the space text, and --space gradient does not read it"
    assert_refused(command, BUDGET, capsys, message)


def test_rows_without_a_direction_have_no_cosine(arrays, capsys):
    x = np.load("x.npy")
    x[3] = 0
    np.save("x.npy", x)
    message = r"row 3 \(from 0\) of the training embeddings is zero"
    assert_refused(f"{ARRAYS} --metric cosine", BUDGET, capsys, message)
