import json
import os
import signal
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import killed
import numpy as np
import pytest

from goracs_jax.llm.tokens import make_batches, map_batches, ragged
from goracs_jax.runs import stages
from goracs_jax.runs.stages import Stage, run_stage

TOKENS = ragged([[i] * (5 + 7 * i % 30) for i in range(50)])
BATCHES = make_batches(TOKENS, tokens_per_batch=64)


def sums(ids, labels):
    return jnp.where(ids >= 0, ids, 0).sum(1)


def stage(calls, setting=1):
    def compute(mapper):
        def fn(ids, labels):
            calls.append(ids.shape)
            return sums(ids, labels), 2 * sums(ids, labels)

        found, doubled = mapper(fn, BATCHES)
        assert (doubled == 2 * found).all()
        return {"sums": found}

    return Stage("sums", {"setting": setting}, compute)


def test_same_as_the_plain_mapper(tmp_path):
    result = run_stage(tmp_path, stage([]))
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


def test_finished_stage_is_read_back(tmp_path):
    first = run_stage(tmp_path, stage([]))
    calls = []
    again = run_stage(tmp_path, stage(calls))
    assert not calls
    assert again.seconds == first.seconds
    np.testing.assert_array_equal(again.arrays["sums"], first.arrays["sums"])


def test_other_settings_are_computed_apart(tmp_path):
    run_stage(tmp_path, stage([], setting=1))
    calls = []
    run_stage(tmp_path, stage(calls, setting=2))
    assert len(calls) == len(BATCHES)
    calls.clear()
    run_stage(tmp_path, stage(calls, setting=1))
    assert not calls


def test_lost_array_is_computed_again(tmp_path):
    run_stage(tmp_path, stage([]))
    (stage([]).home(tmp_path) / "sums.npy").unlink()
    assert not stage([]).is_done(tmp_path)
    calls = []
    run_stage(tmp_path, stage(calls))
    assert len(calls) == len(BATCHES)


@pytest.mark.parametrize("name", ["done.json", "sums.npy"])
def test_damaged_files_are_computed_again(tmp_path, name):
    run_stage(tmp_path, stage([]))
    (stage([]).home(tmp_path) / name).write_bytes(b"PK\x03\x04")
    calls = []
    result = run_stage(tmp_path, stage(calls))
    assert len(calls) == len(BATCHES)
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


@pytest.mark.parametrize("name", ["mark.json", "0.npy", "1.npy"])
@pytest.mark.parametrize("content", [b"PK\x03\x04", b""])
def test_damaged_parts_are_computed_again(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(stages.shutil, "rmtree", lambda *a, **k: None)  # keep parts
    run_stage(tmp_path, stage([]))
    home = stage([]).home(tmp_path)
    (home / "done.json").unlink()
    (home / "parts" / name).write_bytes(content)
    calls = []
    result = run_stage(tmp_path, stage(calls))
    assert len(calls) == len(BATCHES)
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


def test_another_version_computes_anew(tmp_path, monkeypatch):
    run_stage(tmp_path, stage([]))
    monkeypatch.setattr(stages, "version", lambda name: "999")
    assert not stage([]).is_done(tmp_path)


@pytest.mark.parametrize("fails_at", [0, 1, 5, len(BATCHES) - 1])
def test_goes_on_after_the_last_part(tmp_path, monkeypatch, fails_at):
    monkeypatch.setattr(stages, "PART_SECONDS", 0.0)
    calls = []

    def failing(mapper):
        def fn(ids, labels):
            if len(calls) == fails_at:
                raise KeyboardInterrupt
            calls.append(ids.shape)
            return sums(ids, labels), 2 * sums(ids, labels)

        return {"sums": mapper(fn, BATCHES)[0]}

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, stage([])._replace(compute=failing))
    rest = []
    result = run_stage(tmp_path, stage(rest))
    assert len(rest) == len(BATCHES) - fails_at
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


def test_a_mark_of_other_batches_does_not_outlive_its_tables(tmp_path, monkeypatch):
    """Stopped with one plan of batches, then with another before its first mark."""

    def stopped_after(count, batches):
        def compute(mapper):
            left = [None] * count

            def fn(ids, labels):
                if not left:
                    raise KeyboardInterrupt
                left.pop()
                return sums(ids, labels), 2 * sums(ids, labels)

            return {"sums": mapper(fn, batches)[0]}

        with pytest.raises(KeyboardInterrupt):
            run_stage(tmp_path, stage([])._replace(compute=compute))

    monkeypatch.setattr(stages, "PART_SECONDS", 0.0)
    stopped_after(len(BATCHES) - 1, BATCHES)
    monkeypatch.setattr(stages, "PART_SECONDS", float("inf"))
    stopped_after(1, make_batches(TOKENS, tokens_per_batch=128))
    result = run_stage(tmp_path, stage([]))
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {tests!r} + '/runs']
from pathlib import Path
from goracs_jax.runs import stages
import test_stages
stages.PART_SECONDS = 0.0
count = 0
def compute(mapper):
    def fn(ids, labels):
        global count
        count += 1
        if count == {kill_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return test_stages.sums(ids, labels), 2 * test_stages.sums(ids, labels)
    return {{"sums": mapper(fn, test_stages.BATCHES)[0]}}
stages.run_stage(Path({folder!r}), test_stages.stage([])._replace(compute=compute))
"""


def test_sigkill_leaves_what_was_finished(tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    code = textwrap.dedent(KILLED).format(tests=tests, folder=str(tmp_path), kill_at=4)
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    calls = []
    result = run_stage(tmp_path, stage(calls))
    assert len(calls) == len(BATCHES) - 3
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))
    home = stage([]).home(tmp_path)
    assert sorted(path.name for path in home.iterdir()) == ["done.json", "sums.npy"]
    assert json.loads((home / "done.json").read_text())["inputs"] == {"setting": 1}


def test_killed_at_random_points_ends_with_the_same_bits(tmp_path, monkeypatch):
    """Gradient norms of a tiny model, in a chain of ten kills."""
    tests = os.path.dirname(os.path.dirname(__file__))
    paths = [tests, os.path.dirname(tests)]  # for the server of processes
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    expected = killed.scores()
    rng, marks = np.random.default_rng(0), []
    home = Stage("scores", {}, lambda mapper: {}).home(tmp_path)
    for _ in range(10):
        batches, seconds = int(rng.integers(1, 5)), rng.uniform(0, 2 * killed.SLOWLY)
        assert killed.run_until(tmp_path, batches, seconds)
        mark = home / "parts" / "mark.json"
        marks.append(json.loads(mark.read_text())["batches"] if mark.exists() else 0)
    assert marks == sorted(marks)
    assert len(set(marks)) > 5  # it did go on, from many places
    assert not killed.run_until(tmp_path, None, 0.0)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.load(home / f"{name}.npy"), values)
