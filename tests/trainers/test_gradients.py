"""Gradients of any loss: the oracle is a plain loop of jax.grad over examples."""

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from trainers.losses import CASES, DATA, EXAMPLES, IN, loop, nnx_case, rows

import goracs_jax as gx
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.gradients.projection import CHUNK, signs
from goracs_jax.runs.stages import run_stage
from goracs_jax.trainers import embeddings, gradients, kept

# Products of at most seven numbers in another order: some units in the last place.
F32 = {"rtol": 1e-6, "atol": 1e-7}


def assert_close_rows(found, expected):
    """Entries are signed sums: one may cancel, and is rounded as the largest is."""
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("kind", CASES)
def test_norms_and_losses_are_those_of_a_loop(kind):
    loss, params, frozen = CASES[kind]()
    gradients, losses = loop(loss, params, frozen, rows(DATA))
    found = gx.example_gradients(loss, params, frozen, DATA)
    assert found.norms.dtype == found.losses.dtype == np.float32
    np.testing.assert_allclose(found.norms, np.linalg.norm(gradients, axis=1), **F32)
    np.testing.assert_allclose(found.losses, losses, **F32)
    assert found.aux is None
    assert found.projected is None


def test_layers_that_are_computed_again_and_dropout():
    """Both change Variables of the model while it runs; dropout draws are the same."""
    case = nnx_case(remat=True, dropout=0.5)
    gradients, losses = loop(*case, rows(DATA))
    found = gx.example_gradients(*case, DATA)
    np.testing.assert_allclose(found.norms, np.linalg.norm(gradients, axis=1), **F32)
    np.testing.assert_allclose(found.losses, losses, **F32)
    plain = gx.example_gradients(*nnx_case(), DATA)
    assert not np.allclose(found.losses, plain.losses)  # the dropout is there


def test_gradients_in_bfloat16_are_added_in_float32():
    """8 bits a gradient, and 24 bits the sum of their squares."""
    x = np.linspace(1, 2, 3 * 1000, dtype=np.float32).reshape(3, 1000)
    loss = lambda w, _, x: jnp.sum(w.astype(jnp.float32) * x)
    found = gx.example_gradients(loss, jnp.ones(1000, jnp.bfloat16), (), x)
    gradients = x.astype(jnp.bfloat16).astype(np.float64)
    np.testing.assert_allclose(found.norms, np.linalg.norm(gradients, axis=1), **F32)


def test_aux_and_projections_come_with_the_norms():
    loss, params, frozen = CASES["equinox"]()
    with_aux = lambda p, f, e: (
        loss(p, f, e),
        {"x": e["x"] * 2, "half": e["x"][0].astype(jnp.bfloat16)},
    )
    dim, key = 11, jax.random.key(4)
    found = gx.example_gradients(
        with_aux, params, frozen, DATA, has_aux=True, project_dim=dim, key=key
    )
    np.testing.assert_array_equal(found.aux["x"], 2 * DATA["x"])
    assert found.aux["half"].dtype == np.float32
    gradients, _ = loop(loss, params, frozen, rows(DATA))
    assert gradients.shape[1] < CHUNK
    expected = gradients @ np.asarray(signs(key, 0, dim))[: gradients.shape[1]]
    assert_close_rows(found.projected, expected / dim**0.5)


def test_a_key_of_words_is_a_key():
    loss = lambda w, _, x: jnp.sum(w * x)
    given = (loss, jnp.ones(2), (), np.eye(2, dtype=np.float32))
    find = lambda key: gx.example_gradients(*given, project_dim=3, key=key).projected
    words = jax.random.PRNGKey(5)
    expected = np.asarray(signs(words, 0, 3))[:2] / 3**0.5  # the gradient is x
    for key in (words, jax.random.key(5)):
        np.testing.assert_allclose(find(key), expected, **F32)


def test_examples_of_several_shapes_are_padded_by_nobody():
    """A list of texts, the mean of whose states is the loss."""
    rng = np.random.default_rng(1)
    texts = [rng.normal(size=(n, IN)) for n in (4, 2, 4, 4, 9, 2)]
    texts = [{"x": text.astype(np.float32)} for text in texts]
    traced = []

    def loss(w, scale, example):
        traced.append(example["x"].shape)
        return scale * jnp.mean(jnp.tanh(example["x"] @ w))

    w, scale = jnp.ones(IN), jnp.float32(3)
    found = gx.example_gradients(loss, w, scale, texts, batch_size=2)
    assert set(traced) == {(n, IN) for n in (2, 4, 9)}
    gradients, losses = loop(loss, w, scale, texts)
    np.testing.assert_allclose(found.norms, np.linalg.norm(gradients, axis=1), **F32)
    np.testing.assert_allclose(found.losses, losses, **F32)


def test_batches_and_where_examples_lie_change_nothing(tmp_path):
    case = CASES["linen"]()
    expected = gx.example_gradients(*case, DATA)
    np.save(tmp_path / "x.npy", DATA["x"])
    mapped = DATA | {"x": np.load(tmp_path / "x.npy", mmap_mode="r")}
    on_device = jax.tree.map(jnp.asarray, DATA)
    for examples in (mapped, on_device, rows(DATA), gx.Subset(rows(DATA), range(21))):
        for batch_size in (1, 4, 100):
            found = gx.example_gradients(*case, examples, batch_size=batch_size)
            np.testing.assert_allclose(found.norms, expected.norms, **F32)


def test_frozen_arrays_are_no_constants_of_the_program():
    """Nor are those that a function of embeddings closes over."""
    big = jnp.arange(4096.0)
    constants = lambda text: [
        line for line in text.splitlines() if "dense<" in line and "4096" in line
    ]
    loss = lambda w, frozen, x: jnp.sum(w * x * frozen)
    given = (loss, False, None, None, None, jnp.ones(4096), big)
    text = gradients._rows.lower(*given, jnp.ones((2, 4096))).as_text()
    assert not constants(text)
    run = embeddings._Vmapped(lambda x: x * big, None)
    assert not constants(run.lower(jnp.ones((2, 4096))).as_text())
    # The check can fail: jax.jit makes constants of what a function closes over.
    assert constants(jax.jit(lambda x: x * big).lower(jnp.ones((2, 4096))).as_text())


def test_a_second_call_compiles_nothing(caplog):
    loss, params, frozen = CASES["nnx"]()
    gx.example_gradients(loss, params, frozen, DATA)
    again = jax.tree.map(lambda w: w + 1, params)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        gx.example_gradients(loss, again, frozen, DATA)
    assert not [r for r in caplog.records if "_rows" in r.getMessage()]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):  # it can fail
        gx.example_gradients(loss, again, frozen, DATA, batch_size=2)
    assert [r for r in caplog.records if "_rows" in r.getMessage()]


class Source:
    """Examples that are read one at a time; the reader may be killed."""

    def __init__(self, last=10**9):
        self.read, self.last = 0, last

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        self.read += 1
        if self.read > self.last:
            raise KeyboardInterrupt
        return {name: column[index] for name, column in DATA.items()}


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "run_stage", partial(run_stage, part_seconds=0.0))
    loss, params, frozen = CASES["equinox"]()
    with_aux = lambda *args: (loss(*args), {"twice": 2 * loss(*args)})
    score = partial(
        *(gx.example_gradients, with_aux, params, frozen),
        has_aux=True, batch_size=3, project_dim=4, key=jax.random.key(0),
    )  # fmt: skip
    expected = score(DATA)
    named = partial(score, identity={"pool": 1}, out=tmp_path)
    # Shapes, and one batch to compile; then four of seven batches.
    before = EXAMPLES + 3
    with pytest.raises(KeyboardInterrupt):
        named(Source(before + 4 * 3))
    (home,) = (tmp_path / "stages").iterdir()
    assert json.loads((home / "parts" / "mark.json").read_text())["batches"] in (3, 4)
    rest = Source()
    found = named(rest)
    assert rest.read < before + 5 * 3
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        assert ours.tobytes() == theirs.tobytes()
    # What is done is read back; another identity is not.
    done = Source()
    again = named(done)
    assert done.read < before
    np.testing.assert_array_equal(again.norms, expected.norms)
    score(DATA, identity={"pool": 2}, out=tmp_path)
    assert len(list((tmp_path / "stages").iterdir())) == 2


def test_eight_devices_give_what_one_gives(tmp_path):
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "on_eight.py", tmp_path / "found.npz"],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
            "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": os.pathsep.join(
                str(Path(__file__).parents[i]) for i in (1, 2)
            ),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(tmp_path / "found.npz"))
    for mesh in ("auto", "explicit", "sharded"):
        for name in ("norms", "losses"):
            np.testing.assert_allclose(
                found[f"{mesh} {name}"], found[f"one {name}"], **F32
            )
        for name in ("projected", "embeddings"):
            assert_close_rows(found[f"{mesh} {name}"], found[f"one {name}"])
    # Every device works on its own examples: none is sent to another.
    assert "all-gather" not in str(found["text"])
    assert "all-to-all" not in str(found["text"])
    assert "f32[3,5]" in str(found["text"])  # 3 of 24 rows on each


@pytest.mark.parametrize(
    ("loss", "params", "examples", "options", "message"),
    [
        (lambda w, _, x: w * x, "w", "x", {}, r"one float .* float32 of shape \(2,\)"),
        (lambda w, _, x: (jnp.sum(w), x), "w", "x", {}, "a tuple of 2 arrays.*has_aux"),
        (lambda w, _, x: jnp.sum(x), "w", "n", {}, r"got int32 of shape \(\)"),
        (lambda w, _, x: jnp.sum(w), "w", "x", {"has_aux": True}, r"\(loss, aux\), "),
        (None, (), "x", {}, "params has no arrays"),
        (None, {"w": jnp.arange(2)}, "x", {}, r"params\['w'\] is int32"),
        (None, {"w": jnp.tanh}, "x", {}, r"params\['w'\] is "),
        (None, "w", {"a": np.ones((3, 2)), "b": np.ones(4)}, {}, r"\['a'\] has 3 .* 4"),
        (None, "w", {"a": np.float32(1)}, {}, "has None"),
        (None, "w", [], {}, "there are no examples"),
        (None, "w", np.ones((0, 2)), {}, "there are no examples"),
        (None, "w", [{"t": "a text"}], {}, r"example 1\['t'\] is not an array.* str"),
        (None, "w", "x", {"batch_size": 0}, "batch_size must be .* at least 1, got 0"),
        (None, "w", "x", {"batch_size": 2.5}, "batch_size must be .*, got 2.5"),
        (None, "w", "x", {"batch_size": "4"}, "batch_size must be .*, got '4'"),
        (None, "w", "x", {"batch_size": True}, "batch_size must be .*, got True"),
        (None, "w", "x", {"project_dim": 3}, "needs one random key, .*got None"),
        (None, "w", "x", {"project_dim": 3, "key": 0}, "one random key, .*got 0"),
        (None, "w", "x", {"project_dim": 3, "key": jax.random.split(jax.random.key(0))},
         r"got key<fry> of shape \(2,\)"),
        (None, "w", "x", {"project_dim": 3, "key": jnp.zeros((3, 2), jnp.uint32)},
         r"got uint32 of shape \(3, 2\)"),
        (None, "w", "x", {"project_dim": 3, "key": jnp.zeros(2, jnp.int32)},
         r"got int32 of shape \(2,\)"),
        (None, "w", "x", {"project_dim": 3.0, "key": jax.random.key(0)}, "got 3.0"),
        (None, "w", "x", {"project_dim": 0, "key": jax.random.key(0)}, "at least 1"),
        (None, "w", "x", {"identity": {1, 2}}, "identity must be text"),
        (None, "w", "x", {"mesh": 8}, "a mesh of devices, .*got int"),
        (lambda w, _, x: (jnp.sum(w), {"a": "text"}), "w", "x", {"has_aux": True},
         r"returns has str at \[1\]\['a'\]"),
        (lambda w, _, x: (jnp.sum(w), jax.random.key(0)), "w", "x", {"has_aux": True},
         r"returns has key<fry> at \[1\], no array of numbers"),
        (lambda w, _, x: None, "w", "x", {}, "one float .* got None"),
        (None, "w", [np.ones(2), None], {}, "example 2 has no arrays"),
        (None, "w", MappingProxyType({0: 1}), {}, "rows by number, got mappingproxy"),
        (None, "w", "x", {"mesh": jax.make_mesh((1,), ("rows",))}, "called 'data'"),
    ],
)  # fmt: skip
def test_refuses(loss, params, examples, options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    loss = loss or (lambda w, _, x: jnp.sum(w * x))
    params = jnp.ones(2) if isinstance(params, str) else params
    named = {"x": np.ones((3, 2), np.float32), "n": np.ones((3, 2), np.int32)}
    examples = named[examples] if isinstance(examples, str) else examples
    with pytest.raises(InputError, match=message) as error:
        gx.example_gradients(loss, params, (), examples, out=tmp_path, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_refuses_what_is_no_array_in_frozen():
    loss = lambda w, _, x: jnp.sum(w * x)
    with pytest.raises(InputError, match=r"frozen\[0\] is .*close over it"):
        gx.example_gradients(loss, jnp.ones(2), (jnp.tanh,), np.ones((3, 2)))


LENGTHS = [np.full(n, 10 * i + n, np.float32) for i, n in enumerate((1, 3, 1, 3))]
NAMED = [{"x": np.ones(2), "y": np.ones(2)}, {"x": np.ones(2)}]


@pytest.mark.parametrize(
    ("of_x", "examples", "message"),
    [
        (lambda x: x, LENGTHS, r"aux of example 2 is float32 of shape \(3,\), that of "
         r"example 1 float32 of shape \(1,\)"),
        (lambda x: x.sum().astype(int if len(x) > 1 else float), LENGTHS,
         "aux of example 2 is int32 of .* 1 float32"),
        (lambda x: {"long" if len(x) > 1 else "short": x.sum()}, LENGTHS,
         r"example 2 is \['long'\] .* 1 \['short'\]"),
        (lambda x: x["x"] * x["y"], NAMED, "example 2 .* and fails: KeyError: 'y'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("identity", [None, "a"])
def test_refuses_aux_of_two_forms(of_x, examples, message, identity, tmp_path):
    """Even where NumPy would repeat or cut the rows of one form into the other."""
    loss = lambda w, _, x: (w * 1.0, of_x(x))
    with pytest.raises(InputError, match=message) as error:
        gx.example_gradients(
            *(loss, jnp.float32(1), (), examples),
            has_aux=True, identity=identity, out=tmp_path,
        )  # fmt: skip
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_refuses_a_loss_that_is_no_scalar_for_a_later_shape():
    loss = lambda w, _, x: w * (x[0] if len(x) == 1 else x)
    with pytest.raises(InputError, match=r"example 2 .* one float .* of shape \(3,\)"):
        gx.example_gradients(loss, jnp.float32(1), (), LENGTHS)


def test_aux_of_one_form_comes_from_examples_of_two_shapes(tmp_path):
    loss = lambda w, _, x: (w * x.sum(), {"max": x.max(), "len": len(x)})
    for identity in (None, "a"):
        found = gx.example_gradients(
            *(loss, jnp.float32(1), (), LENGTHS),
            has_aux=True, identity=identity, out=tmp_path,
        )  # fmt: skip
        assert found.aux["max"].tolist() == [1, 13, 21, 33]
        assert found.aux["len"].tolist() == [1, 3, 1, 3]


BIG = np.array([[1, 3], [2**31 - 1, 0], [5, 2**40]])


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"ids": BIG}, r"example 3\['ids'\] has an integer beyond int32"),
        ([{"ids": row} for row in BIG], r"example 3\['ids'\] has an integer beyond"),
        ([1, -(2**31), -(2**31) - 1], "example 3 has an integer beyond int32"),
        (np.array([1, 2**32], np.uint64), "example 2 has an integer beyond uint32"),
    ],
)
def test_refuses_integers_that_jax_would_wrap(examples, message):
    loss = lambda w, _, x: w * jnp.sum(jax.tree.leaves(x)[0])
    with pytest.raises(InputError, match=message):
        gx.example_gradients(loss, jnp.float32(1), (), examples)


def test_the_largest_integers_are_read_as_they_are():
    largest = {"ids": np.array([2**31 - 1, -(2**31), 7])}
    found = gx.example_embeddings(lambda x: x["ids"][None] / 2.0**31, largest)
    np.testing.assert_allclose(found[:, 0], [1, -1, 7 / 2**31], rtol=1e-6)


def test_names_the_example_whose_loss_is_not_finite():
    x = np.ones((5, 2), np.float32)
    x[3] = 0
    # log(0) is -inf, but no part of the gradient by w.
    loss = lambda w, _, x: jnp.sum(w * x) + jnp.log(x[0])
    with pytest.raises(NumericalError, match=r"the loss of example 4 is -inf \(1 of 5"):
        gx.example_gradients(loss, jnp.ones(2), (), x)


def test_names_the_example_whose_gradient_is_not_finite():
    x = np.ones((5, 2), np.float32)
    x[3] = np.inf
    with pytest.raises(NumericalError, match=r"norm of example 4 is inf \(1 of 5"):
        gx.example_gradients(lambda w, _, x: jnp.sum(w * x), jnp.ones(2), (), x)
