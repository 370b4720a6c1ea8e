"""The loop: what is kept, when it stops, and that it goes on where it was."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.training import FinetuneConfig, finetune
from goracs_jax.training import run as running
from goracs_jax.training.run import Run

CONFIG = FinetuneConfig(
    epochs=3, learning_rate=1e-2, batch_size=4, warmup_steps=2, tokens_per_batch=100
)
STEPS = 9  # three of an epoch: 4 + 4 + 2 examples


def adapters(model):
    return [
        np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.LoRAParam))
    ]


def curve(log):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in log]


def same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(adapters(one), adapters(other), strict=True)
    )


@pytest.fixture(scope="module")
def whole(model, train, valid):
    return finetune(model, train, valid, CONFIG, seed=7)


def test_learns_and_changes_adapters_alone(whole, model):
    found = [r["valid_loss"] for r in whole.log if "valid_loss" in r]
    assert len(found) == 3
    assert found[-1] < found[0]
    assert whole.best_loss == min(found) == found[whole.best_epoch - 1]
    assert not same(whole.model, model)
    frozen = lambda m: jax.tree.leaves(nnx.split(m, nnx.LoRAParam, ...)[2])
    for before, after in zip(frozen(model), frozen(whole.model), strict=True):
        np.testing.assert_array_equal(before, after)


class Small:
    """A jitted function on a device that holds few tokens, as JAX's errors say it."""

    def __init__(self, fn, most, when):
        self.fn, self.most, self.when = fn, most, when

    def check(self, arguments, when):
        (batch,) = (x for x in arguments if hasattr(x, "ids"))
        if batch.ids.size > self.most and when == self.when:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    def __call__(self, *arguments, **settings):
        self.check(arguments, "run")
        return self.fn(*arguments, **settings)

    def lower(self, *arguments, **settings):
        self.check(arguments, "compile")
        return self.fn.lower(*arguments, **settings)


@pytest.mark.parametrize(
    ("name", "when"), [("accumulate", "compile"), ("loss_sum", "run")]
)
def test_micro_batches_that_do_not_fit_are_halved(
    whole, model, train, valid, monkeypatch, caplog, name, when
):
    fn = getattr(running, name)
    monkeypatch.setattr(running, name, Small(fn, 40, when))
    found = finetune(model, train, valid, CONFIG, seed=7)
    # The same sums in another order: float32, through nine steps of Adam.
    for a, b in zip(adapters(found.model), adapters(whole.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    steps = lambda log: [(r["step"], r["epoch"]) for r in log]
    assert steps(found.log) == steps(whole.log)
    (line,) = [r.getMessage() for r in caplog.records if "halved" in r.getMessage()]
    assert "--micro-batch-tokens" in line


def test_an_example_that_does_not_fit(model, train, valid, monkeypatch):
    monkeypatch.setattr(running, "accumulate", Small(running.accumulate, 20, "compile"))
    with pytest.raises(NumericalError, match=r"1 x 32 tokens do not fit"):
        Run.prepare(model, train, valid, CONFIG, 7)


def test_records(whole, train):
    steps = [r for r in whole.log if "loss" in r]
    assert [r["step"] for r in steps] == list(range(1, STEPS + 1))
    assert [r["epoch"] for r in steps] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert sum(r["tokens"] for r in steps[:3]) == train.lengths.sum()
    # Up for two steps from 0, then to 0 in seven: 1 less a share that float32 rounds.
    rates = [0, 0.5, *np.linspace(1, 0, 8)[:7]]
    np.testing.assert_allclose(
        [r["learning_rate"] for r in steps], 1e-2 * np.array(rates), atol=1e-2 * 2**-23
    )


def test_the_best_is_kept_and_patience_ends_it(model, train, valid):
    config = replace(CONFIG, epochs=40, learning_rate=0.5, patience=2, warmup_steps=0)
    done = finetune(model, train, valid, config, seed=7)
    found = [r["valid_loss"] for r in done.log if "valid_loss" in r]
    best = int(np.argmin(found))
    assert (done.best_epoch, done.best_loss) == (best + 1, found[best])
    assert len(found) == best + 1 + 2 < 40
    shorter = finetune(model, train, valid, replace(config, patience=1), seed=7)
    assert shorter.best_loss >= done.best_loss


def test_valid_every(model, train, valid):
    done = finetune(model, train, valid, replace(CONFIG, valid_every=2), seed=7)
    assert [r["epoch"] for r in done.log if "valid_loss" in r] == [2, 3]


class Kill(Exception):
    pass


def run_killed(model, train, valid, folder, last, every):
    """Runs until the record of a step, with a checkpoint after every so many."""

    def watch(record):
        if record["step"] == last:
            raise Kill

    return finetune(
        model,
        train,
        valid,
        CONFIG,
        seed=7,
        folder=folder,
        watch=watch,
        checkpoint_seconds=0.0 if every else np.inf,
    )


@pytest.mark.parametrize("last", [1, 2, 4, 6, 9])
def test_killed_and_resumed_is_the_same_to_the_bit(
    whole, model, train, valid, tmp_path, last
):
    with pytest.raises(Kill):
        run_killed(model, train, valid, tmp_path, last, every=True)
    done = run_killed(model, train, valid, tmp_path, None, every=True)
    assert same(done.model, whole.model)
    assert curve(done.log) == curve(whole.log)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert curve(map(json.loads, lines)) == curve(whole.log)


def test_lines_after_the_checkpoint_are_made_again(
    whole, model, train, valid, tmp_path
):
    with pytest.raises(Kill):  # no checkpoint at all: five lines are on disk
        run_killed(model, train, valid, tmp_path, 5, every=False)
    metrics = tmp_path / "metrics.jsonl"
    assert len(metrics.read_text().splitlines()) == 6
    metrics.write_text(metrics.read_text()[:-7])  # and the last is torn
    done = run_killed(model, train, valid, tmp_path, None, every=True)
    assert curve(done.log) == curve(whole.log)


def test_checkpoints_hold_adapters_alone(model, train, valid, tmp_path):
    with pytest.raises(Kill):
        run_killed(model, train, valid, tmp_path, 3, every=True)
    (newest,) = [p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert newest.name == "2"
    on_disk = sum(p.stat().st_size for p in newest.rglob("*") if p.is_file())
    lora = sum(a.nbytes for a in adapters(model))
    whole_model = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    # Adapters, the best of them and two moments, and what orbax says about them.
    assert on_disk < 4 * lora + 30_000 < whole_model + 30_000


def test_steps_and_validations_compile_nothing(model, train, valid, caplog):
    config = replace(CONFIG, tokens_per_batch=90)  # shapes of no other test
    compiled = lambda: [m for m in caplog.messages if m.startswith("Compiling")]
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run = Run.prepare(model, train, valid, config, seed=7)
        assert compiled()  # the check can fail
        state = run.fresh
        caplog.clear()
        for _ in range(STEPS):
            state, _ = run.step(state)
            state, _ = run.validate(state)
        assert not compiled()


def test_bfloat16_weights(train, valid):
    lora = LoraConfig(r=4, alpha=8.0)
    model = Decoder(
        DecoderConfig.tiny(), lora, key=jax.random.key(0), dtype=jnp.bfloat16
    )
    done = finetune(model, train, valid, CONFIG, seed=7)
    assert {str(a.dtype) for a in adapters(done.model)} == {"float32"}
    found = [r["valid_loss"] for r in done.log if "valid_loss" in r]
    assert found[-1] < found[0]


def test_refuses_what_would_train_nothing(model, train, valid):
    once = replace(CONFIG, epochs=1, batch_size=16)
    with pytest.raises(InputError, match="the only step has learning rate 0"):
        finetune(model, train, valid, once, seed=7)
    parts = nnx.split(model, nnx.LoRAParam, ...)
    zero = jax.tree.map(jnp.zeros_like, parts[1])
    with pytest.raises(InputError, match="gradient of every adapter is exactly zero"):
        finetune(nnx.merge(parts[0], zero, parts[2]), train, valid, CONFIG, seed=7)


def test_refuses_a_loss_that_is_not_finite(model, train, valid):
    parts = nnx.split(model, nnx.LoRAParam, ...)
    broken = jax.tree.map(lambda w: w * jnp.nan, parts[1])
    with pytest.raises(NumericalError, match=r"step 1: the loss is nan"):
        finetune(nnx.merge(parts[0], broken, parts[2]), train, valid, CONFIG, seed=7)


def test_refuses_ids_outside_the_vocabulary(model, train):
    with pytest.raises(InputError, match="token id 96"):
        finetune(model, train, ragged([[1, 96]], [[1, 96]]), CONFIG, seed=7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("learning_rate", 0.0), ("warmup_steps", -1), ("patience", 0),
        ("valid_every", 0),
    ],
)  # fmt: skip
def test_refuses_settings_by_name(name, value):
    with pytest.raises(InputError, match=f"{name} must"):
        replace(CONFIG, **{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": None}, "got epochs None and steps None"),
        ({"steps": 5}, "and not both, got epochs 3 and steps 5"),
        ({"epochs": None, "steps": 0}, "steps must be at least 1, got 0"),
        ({"epochs": None, "steps": 2}, "steps must be more than warmup_steps.* 2 and"),
    ],
)
def test_refuses_lengths_that_are_none(given, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **given)
