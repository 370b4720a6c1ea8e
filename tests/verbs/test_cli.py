import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run

from goracs_jax.cli import main, with_config
from goracs_jax.errors import InputError


def test_config_file(arrays):
    (arrays / "run.yaml").write_text(
        "train-embeddings: x.npy\nvalid_embeddings: y.npy\nbudget: 3\nlambda: 0\n"
    )
    assert run("select --config run.yaml --out out", budget=None) == 0
    assert len(np.load("out/indices.npy")) == 3
    assert run("select --config=run.yaml --out out", budget=4) == 0
    assert len(np.load("out/indices.npy")) == 4


def test_flags_of_a_config_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("dry_run: true\nlambda_: 0.5\nadapter: null\n")
    expected = ["select", "--dry-run", "--lambda", "0.5", "--config", str(path)]
    assert with_config(["select", "--config", str(path)]) == expected
    path.write_text("- a\n")
    with pytest.raises(InputError, match="must be lines of `name: value`"):
        with_config(["select", "--config", str(path)])
    path.write_text("budgett: 3\n")
    with pytest.raises(InputError, match="'budgett' is no flag of select"):
        with_config(["select", "--config", str(path)])


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["select", "--help"])
    printed = capsys.readouterr().out
    for flag in ("--budget", "--lambda", "--train-embeddings", "--config", "--dry-run"):
        assert flag in printed


def test_another_process_compiles_nothing(files):
    """What the first compiled is read back; nothing new is stored."""
    command = [sys.executable, "-m", "goracs_jax", "embed", "--data", "valid.jsonl"]
    environment = os.environ | {
        "GORACS_CACHE": str(files / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    programs = []
    for out in ("one.npy", "two.npy"):
        subprocess.run(
            [*command, "--model", "llm", "--out", out], env=environment, check=True
        )
        kept = (files / "cache" / "programs").glob("*-cache")
        programs.append({path.name for path in kept})
    assert any("decoder_means" in name for name in programs[0])
    assert programs[0] == programs[1]
    assert Path("one.npy").read_bytes() == Path("two.npy").read_bytes()
