import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import killed
import numpy as np
import pytest

from goracs_jax.files import digest
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.tokens import ragged
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


def test_a_raised_revision_computes_anew(tmp_path):
    run_stage(tmp_path, stage([]))
    raised = stage([])._replace(revision=2)
    assert not raised.is_done(tmp_path)
    calls = []
    run_stage(tmp_path, stage(calls)._replace(revision=2))
    assert len(calls) == len(BATCHES)
    assert stage([]).is_done(tmp_path)  # beside the other


def test_no_version_names_a_stage():
    assert stage([]).identity == {"revision": 1, "setting": 1}


def former_home(folder):
    """Where version 0.5.0 kept the stage: it named it by its own number."""
    identity = {"goracs_jax": "0.5.0", "setting": 1}
    return folder / "stages" / f"sums-{digest(identity)[:16]}"


def test_what_version_0_5_0_left_is_adopted(tmp_path):
    first = run_stage(tmp_path, stage([]))
    home = stage([]).home(tmp_path)
    home.rename(former_home(tmp_path))
    assert stage([]).is_done(tmp_path)
    assert not home.exists()  # a look renames nothing
    calls = []
    again = run_stage(tmp_path, stage(calls))
    assert not calls
    assert again.seconds == first.seconds
    np.testing.assert_array_equal(again.arrays["sums"], first.arrays["sums"])
    assert [path.name for path in home.parent.iterdir()] == [home.name]


def test_parts_of_version_0_5_0_are_gone_on_with(tmp_path):
    stop_after(tmp_path, 5)
    stage([]).home(tmp_path).rename(former_home(tmp_path))
    calls = []
    result = run_stage(tmp_path, stage(calls))
    assert len(calls) == len(BATCHES) - 5
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


def test_what_a_former_version_left_is_not_of_a_raised_revision(tmp_path):
    run_stage(tmp_path, stage([]))
    stage([]).home(tmp_path).rename(former_home(tmp_path))
    assert not stage([])._replace(revision=2).is_done(tmp_path)
    # Nor is what builds on a raised one.
    one, two = stage([]), stage([])._replace(revision=2)
    assert one.basis == one.inputs != two.basis


def test_a_finished_stage_is_not_given_up_for_a_former_one(tmp_path):
    run_stage(tmp_path, stage([]))
    home = stage([]).home(tmp_path)
    shutil.copytree(home, former_home(tmp_path))
    (former_home(tmp_path) / "done.json").write_text("{}")
    calls = []
    run_stage(tmp_path, stage(calls))
    assert not calls


def stop_after(folder, count, batches=BATCHES, part_seconds=0.0):
    """Run the stage until so many batches are done."""
    left = [None] * count

    def fn(ids, labels):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return sums(ids, labels), 2 * sums(ids, labels)

    stopped = stage([])._replace(
        compute=lambda mapper: {"sums": mapper(fn, batches)[0]}
    )
    with pytest.raises(KeyboardInterrupt):
        run_stage(folder, stopped, part_seconds=part_seconds)


@pytest.mark.parametrize("fails_at", [0, 1, 5, len(BATCHES) - 1])
def test_goes_on_after_the_last_part(tmp_path, fails_at):
    stop_after(tmp_path, fails_at)
    rest = []
    result = run_stage(tmp_path, stage(rest))
    assert len(rest) == len(BATCHES) - fails_at
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


def test_parts_are_written_no_more_often_than_asked(tmp_path):
    stop_after(tmp_path, 5, part_seconds=float("inf"))
    rest = []
    run_stage(tmp_path, stage(rest))
    assert len(rest) == len(BATCHES)


def test_a_mark_of_other_batches_does_not_outlive_its_tables(tmp_path):
    """Stopped with one plan of batches, then with another before its first mark."""
    stop_after(tmp_path, len(BATCHES) - 1)
    other = make_batches(TOKENS, tokens_per_batch=128)
    stop_after(tmp_path, 1, other, part_seconds=float("inf"))
    result = run_stage(tmp_path, stage([]))
    np.testing.assert_array_equal(result.arrays["sums"], map_batches(sums, BATCHES))


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {tests!r} + '/runs']
from pathlib import Path
from goracs_jax.runs import stages
import test_stages
count = 0
def compute(mapper):
    def fn(ids, labels):
        global count
        count += 1
        if count == {kill_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return test_stages.sums(ids, labels), 2 * test_stages.sums(ids, labels)
    return {{"sums": mapper(fn, test_stages.BATCHES)[0]}}
stage = test_stages.stage([])._replace(compute=compute)
stages.run_stage(Path({folder!r}), stage, part_seconds=0.0)
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
