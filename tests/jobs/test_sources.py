"""Stages of gradients, states and rewards, on a tiny model on disk."""

import json

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from lora_examples import example_loss, rows

from goracs_jax import training
from goracs_jax.data.examples import write_jsonl
from goracs_jax.errors import InputError
from goracs_jax.jobs import warm_up
from goracs_jax.jobs.score import Projection, norms_stage
from goracs_jax.jobs.sources import loss_drop_stage, states_stage, subspace_stages
from goracs_jax.jobs.warm_up import adapter_from_pool, part_of, target_path
from goracs_jax.llm.embeddings import embed_with_decoder
from goracs_jax.llm.projections import projected_gradients
from goracs_jax.models import LoraConfig
from goracs_jax.runs.opened import open_llm, read_pool
from goracs_jax.runs.reading import tokens_of
from goracs_jax.runs.stages import run_stage
from goracs_jax.spaces import leading_directions, unit_rows

PROJECTION = Projection(29, "float32", 0)
# Sums of some hundred float32 products in another order.
F32 = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny.write_llm(folder / "llm")
    return folder


@pytest.fixture(scope="module")
def train(made):
    return pool(made / "train.jsonl", ["elm", "oak", "fir", "ash"] * 10)


@pytest.fixture(scope="module")
def valid(made):
    return pool(made / "valid.jsonl", ["elm", "fir"] * 3)


def pool(path, words):
    """Examples of equal length, so that few programs are compiled."""
    records = [
        {"instruction": f"After {word}?", "input": str(100 + i), "output": word[::-1]}
        for i, word in enumerate(words)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_pool(path)


@pytest.fixture(scope="module")
def llm(made):
    return open_llm(made / "llm", None, 0, lora=LoraConfig(dropout=0.0))


def warmed(train, llm, folder, share=0.3, seed=0):
    given = {"seed": seed, "base": "llm", "folder": folder}
    return adapter_from_pool(train, llm, "answer", share, **given)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, which all tests share."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def base(train, llm, run):
    return warmed(train, llm, run)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_the_warm_up_is_a_plain_loop_of_adam(train, llm, base):
    """Twelve rows are one batch, so each of the 30 steps sees all of them."""
    decoder, tokens = tokens_of(part_of(train, 0.3, 0), llm, "answer")()
    graph, lora, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
    examples = list(rows(tokens))
    scored = [int((labels[1:] >= 0).sum()) for _, labels in examples]
    loss = lambda lora, *row: example_loss(nnx.merge(graph, lora, frozen), *row)
    of_one = jax.jit(jax.grad(loss))

    def gradient(lora):
        each = [flat(of_one(lora, *row)).astype(np.float64) for row in examples]
        return np.array(scored) @ each / sum(scored)

    mu = nu = np.zeros(len(flat(lora)))
    weights = flat(lora).astype(np.float64)
    restore = jax.flatten_util.ravel_pytree(lora)[1]
    for step in range(30):
        g = gradient(restore(weights.astype(np.float32)))
        g /= max(1.0, np.linalg.norm(g))
        mu, nu = 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g**2
        m, v = mu / (1 - 0.9 ** (step + 1)), nu / (1 - 0.999 ** (step + 1))
        rate = 1e-3 * (step / 3 if step < 3 else (30 - step) / 27)
        weights -= rate * m / (np.sqrt(v) + 1e-8)
    moments = base.moments()
    assert int(moments.count) == 30
    # Where a gradient is near zero Adam's step has the sign of its rounding, which
    # moves a weight by up to 1e-3 and the gradients that follow by about as much.
    close = lambda a, b: np.linalg.norm(a - b) < 0.01 * np.linalg.norm(b)
    assert close(moments.mu, mu)
    assert close(moments.nu, nu)
    after = flat(nnx.state(base.llm.decoder(), nnx.LoRAParam))
    assert close(after - flat(lora), weights - flat(lora))


def test_the_warm_up_is_kept_and_reused(train, llm, made, base, run, monkeypatch):
    expected = flat(nnx.state(base.llm.decoder(), nnx.LoRAParam))
    home = base.stage.home(run)
    assert not (home / "checkpoints").exists()
    monkeypatch.setattr(warm_up, "train_adapter", None)  # it would be called
    again = warmed(train, llm, run)
    found = flat(nnx.state(again.llm.decoder(), nnx.LoRAParam))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again.moments().nu, base.moments().nu)
    # The stage is a PEFT folder like any other.
    opened = open_llm(made / "llm", home, 0).decoder()
    np.testing.assert_array_equal(flat(nnx.state(opened, nnx.LoRAParam)), expected)
    assert json.loads((home / "adapter_config.json").read_text())["r"] == 8


def test_a_warm_up_that_was_stopped_goes_on(train, llm, base, tmp_path, monkeypatch):
    steps = []

    def stops(*given, watch, **more):
        def seen(entry):
            watch(entry)
            steps.append(entry["step"])
            if steps == list(range(1, 11)):
                raise KeyboardInterrupt

        return training.finetune(*given, watch=seen, checkpoint_seconds=0.0, **more)

    monkeypatch.setattr(warm_up, "train_adapter", stops)
    with pytest.raises(KeyboardInterrupt):
        warmed(train, llm, tmp_path).moments()
    found = warmed(train, llm, tmp_path)
    np.testing.assert_array_equal(found.moments().mu, base.moments().mu)
    # The step that was not saved is repeated; the last entry is a validation.
    assert steps == [*range(1, 11), *range(10, 31), 30]
    after = [flat(nnx.state(x.llm.decoder(), nnx.LoRAParam)) for x in (found, base)]
    np.testing.assert_array_equal(*after)


def test_what_depends_on_the_warm_up_is_named_after_it(train, llm, made, tmp_path):
    base = warmed(train, llm, tmp_path)
    others = [
        warmed(train, llm, tmp_path, share=0.5),
        warmed(train, llm, tmp_path, seed=1),
        warmed(train, open_llm(made / "llm", None, 1), tmp_path),
    ]
    names = {
        norms_stage(train, given, "all_lora", "answer", PROJECTION, moments).home(
            tmp_path
        )
        for given, moments in [
            (llm, None),
            (base.llm, None),
            (base.llm, base.moments),
            *((other.llm, None) for other in others),
        ]
    }
    assert len(names) == 6
    same = warmed(train, llm, tmp_path)
    assert same.llm.identity == base.llm.identity
    assert not base.stage.is_done(tmp_path)  # nothing was trained for a name


def test_a_part_is_drawn_by_its_seed(train):
    sizes = [len(part_of(train, share, 0).examples) for share in (1e-9, 0.05, 0.5, 1.0)]
    assert sizes == [1, 2, 20, 40]
    assert part_of(train, 1.0, 0).examples == train.examples
    first, again, other = (part_of(train, 0.5, seed) for seed in (0, 0, 1))
    assert first == again
    assert {first.sha256, other.sha256}.isdisjoint({train.sha256})
    assert first.examples != other.examples
    for share in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="above 0 and at most 1, got"):
            part_of(train, share, 0)


def test_a_stage_projects_steps_of_adam(train, base, run):
    given = (base.llm, "all_lora", "answer", PROJECTION)
    plain = run_stage(run, norms_stage(train, *given)).arrays
    adam = run_stage(run, norms_stage(train, *given, base.moments)).arrays
    expected = projected_gradients(
        *tokens_of(train, base.llm, "answer")(),
        **PROJECTION.settings(),
        which="all_lora",
        moments=base.moments(),
    )
    np.testing.assert_array_equal(adam["projections"], expected.gradients)
    np.testing.assert_array_equal(adam["norms"], plain["norms"])
    x, y = unit_rows(adam["projections"]), unit_rows(plain["projections"])
    assert np.sum(x * y, axis=1).max() < 0.9  # Adam turns the directions


def test_a_subspace_is_that_of_the_wide_rows(train, valid, base, run):
    x, y = (
        run_stage(
            run, norms_stage(pool, base.llm, "all_lora", "answer", PROJECTION)
        ).arrays["projections"]
        for pool in (train, valid)
    )
    for k in (3, None):
        given = (base.llm, "answer", PROJECTION, k, run)
        of_train, of_valid = subspace_stages(train, valid, *given)
        found = run_stage(run, of_train).arrays["projections"]
        assert of_valid.is_done(run)
        basis = leading_directions(y, k)
        assert found.shape == (40, basis.shape[1])
        np.testing.assert_allclose(found, x @ basis, **F32)
        along = run_stage(run, of_valid).arrays["projections"]
        np.testing.assert_allclose(along, y @ basis, **F32)


def test_states_are_weighted_over_prompt_and_answer(train, llm, tmp_path):
    stage = states_stage("states", train, llm, "weighted")
    found = run_stage(tmp_path, stage)
    expected = embed_with_decoder(*tokens_of(train, llm)(), pooling="weighted")
    np.testing.assert_array_equal(found.arrays["embeddings"], expected)


def test_states_of_prompts_do_not_see_the_answer(train, llm, tmp_path):
    found = run_stage(tmp_path, states_stage("prompts", train, llm, "prompt"))
    swapped = [{**e.record, "output": "?"} for e in train.examples]
    path = tmp_path / "swapped.jsonl"
    write_jsonl(path, swapped)
    other = run_stage(tmp_path, states_stage("prompts", read_pool(path), llm, "prompt"))
    # Padded lengths may differ, and so the order of sums.
    x, y = found.arrays["embeddings"], other.arrays["embeddings"]
    np.testing.assert_allclose(x, y, **F32)
    assert len({tuple(row) for row in x.round(4).tolist()}) > 1


def test_what_resembles_the_target_has_the_larger_drop(llm, tmp_path):
    train = pool(tmp_path / "train.jsonl", ["elm", "fir"] * 10)
    target = pool(tmp_path / "target.jsonl", ["elm"] * 8)
    given = {"seed": 0, "base": "llm", "folder": tmp_path}
    path = target_path(target, llm, "answer", **given)
    stage = loss_drop_stage(train, llm, path, "answer")
    rewards = run_stage(tmp_path, stage).arrays["rewards"]
    assert path.stage.is_done(tmp_path)
    assert rewards[::2].min() > rewards[1::2].max()

    start, tokens = tokens_of(train, llm, "answer")()
    loss = nnx.jit(example_loss)
    for row, example in zip(rewards, rows(tokens), strict=True):
        before, after = loss(start, *example), loss(path.llm.decoder(), *example)
        drop = (before - after) / max(before, after)
        np.testing.assert_allclose(row, drop, **F32)
    again = target_path(target, llm, "answer", **given)
    assert loss_drop_stage(train, llm, again, "answer").is_done(tmp_path)
