"""`goracs compare` refuses what is wrong in one line, before any work."""

import pytest
from commands import assert_refused, edit
from comparing import (
    COMPARE,
)


@pytest.fixture(scope="module")
def shared(compared):
    return compared


MISTAKES = {
    "unknown method": (" --methods random,best", r"--methods must be among .*'best'"),
    "all by label": (" --methods full:by-label", r"--methods must .*'full:by-label'"),
    # Every title is a class of its own, and those of validation are few.
    "classes": (" --methods itra:by-label --budgets 10", r"validation lacks classes"),
    "budget": (" --budgets 4,99", r"budget must be in \[1, 10\], got 99"),
    "no weight": (" --methods random", r"--lambdas are for goracs, greedy, itra"),
    "lambda": (" --lambdas 0,-1", r"lambda must be in \[0, 1000\], got -1"),
    "seeds": (" --seeds 0", r"--seeds must be at least 1, got 0"),
    "too many seeds": (
        f" --seed {2**32 - 1}",
        r"--seeds must be at most 1 with --seed 4294967295, got 2",
    ),
    "alpha": (" --alpha nan", r"LoRA alpha must be finite, got nan"),
    "full seeds": (" --full-seeds 3", r"--full-seeds must be in \[1, 2\]"),
    "file": (" --out test.jsonl", r"--out test\.jsonl lies in the input test\.jsonl"),
    "inside": (" --out llm/out", r"lies in the input llm"),
    "epochs": (" --epochs 0", r"epochs must be at least 1, got 0"),
    "beams": (" --beams 0", r"--beams must be at least 1, got 0"),
    "targets": (" --targets c_attn", r"got c_attn"),
    "no step": (" --epochs 1 --batch-size 64", r"nothing would train"),
    "no items": (" --items none.jsonl", r"none\.jsonl does not exist"),
    "no model": (" --model none", r"none does not exist"),
    "none done": (" --seed 7 --finished", r"no finished trial .* leave --finished out"),
    "effort": (" --effort 20", r"effort must be in .* got 20"),
    "no search": (" --methods greedy --effort 2", r"--effort and --bound are for"),
    "a space": (" --methods goracs@pictures", "a space is text, gradient, subspace"),
    "draw too many": (" --draw-train 11", r"--draw-train must be in \[1, 10\]"),
    "draw none": (" --draw-valid 0", r"--draw-valid must be in \[1, 4\]"),
    "draw of a half": (
        " --split-valid --draw-valid 3",
        r"--draw-valid must be in \[1, 2\], the number of examples to draw from",
    ),
    "budget of a draw": (" --draw-train 3", r"budget must be in \[1, 3\], got 4"),
    "two rates": (" --tune-learning-rate 1e-3,1e-2", r"not both"),
    "tuning seeds": (" --tuning-seeds 0", r"--tuning-seeds must be at least 1, got 0"),
    "tokens and epochs": (" --tokens 500", r"--tokens takes the place of"),
    "task": (" --task ctr", r"test\.jsonl:1: .*Yes or No"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_before_any_work(files, capsys, monkeypatch, name):
    monkeypatch.setattr("goracs_jax.comparison.trial.run", None)
    monkeypatch.setattr("goracs_jax.comparison.shared.run", None)
    flags, message = MISTAKES[name]
    assert_refused(COMPARE + flags, None, capsys, message)


PLAIN = COMPARE.replace("--learning-rate 0.03", "").replace("--epochs 2", "")
RATES = {
    "one": ("1e-3", r"chooses among several rates"),
    "zero": ("1e-3,0", r"--tune-learning-rate must be positive, got 0\.0"),
}


@pytest.mark.parametrize("name", RATES)
def test_rates_that_cannot_be_tuned(files, capsys, name):
    rates, message = RATES[name]
    assert_refused(f"{PLAIN} --tune-learning-rate {rates}", None, capsys, message)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (0, r"--tokens must be at least 1, got 0"),
        # 34 tokens an example, 4 examples a step, and one step of the warm-up.
        (272, r"--tokens must be more than 272, got 272: the longest .* 136 tokens"),
    ],
)
def test_tokens_that_train_nothing(files, capsys, monkeypatch, tokens, message):
    monkeypatch.setattr("goracs_jax.comparison.trial.run", None)
    monkeypatch.setattr("goracs_jax.comparison.shared.run", None)
    assert_refused(f"{PLAIN} --tokens {tokens}", None, capsys, message)


def test_one_user_of_validation_cannot_be_cut(files, capsys):
    edit(files / "valid.jsonl", lambda text: text.splitlines()[0] + "\n")
    message = r"valid\.jsonl has one user only, which cannot be cut in two"
    assert_refused(COMPARE + " --split-valid", None, capsys, message)


def test_one_user_leaves_no_interval(files, capsys):
    edit(files / "test.jsonl", lambda text: text.splitlines()[0] + "\n")
    assert_refused(COMPARE, None, capsys, r"test\.jsonl has one user only")
