"""benchmarks/accelerator.py does every part in tiny sizes, and benchmarks/ship.py loses
no byte on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TIMED = {
    "selection": {"cost", "nearest distances", "greedy", "sweeps of an epoch"}
    | {"exchange pass", "exact transport on the host"},
    "gradient norms": {
        f"{model}, {which}"
        for model in ("SmolLM2-135M", "Llama of 7B shape")
        for which in ("last_v_lora_b", "all_lora")
    },
    "LoRA training": {"goracs_jax"},
    "adapters": {"one adapter", "3 adapters at once"},
    "evaluation": {"click prediction", "beam search"},
}


def run(out, *words, **environment):
    script = BENCHMARKS / "accelerator.py"
    command = [sys.executable, script, "--tiny", "--out", out, *words]
    subprocess.run(command, check=True, env=os.environ | environment)
    (path,) = out.glob("accelerator_*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_part_has_its_figures(tmp_path):
    (tmp_path / "copy").mkdir()
    found = run(tmp_path, OUT=str(tmp_path / "copy"))
    parts = found["parts"]
    assert not [name for name, part in parts.items() if "not_done" in part]
    for name, steps in TIMED.items():
        for step in steps:
            assert parts[name][step]["seconds"] > 0, (name, step)
    assert (
        parts["gradient norms"]["SmolLM2-135M, bfloat16 against float32"]["spearman"]
        > 0.9
    )
    theirs = parts["LoRA training"]["torch + PEFT"]
    assert "seconds" in theirs or "not installed" in theirs["not_done"]
    (copy,) = (tmp_path / "copy").iterdir()
    assert json.loads(copy.read_text()) == found


def test_it_stops_when_the_minutes_are_over(tmp_path):
    found = run(tmp_path, "--minutes", "0.001", "--parts", "evaluation", "selection")
    assert found["parts"] == {
        name: {"not_done": "the minutes are over"}
        for name in ("evaluation", "selection")
    }


@pytest.fixture
def ship(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import ship

    yield ship
    sys.modules.pop("ship")


@pytest.fixture
def packed(ship, tmp_path):
    """Files of 5, 0 and 25 bytes in folders of at most 10."""
    files = {"a": b"12345", "b": b"", "c": bytes(range(25))}
    (tmp_path / "made").mkdir()
    for name, data in files.items():
        (tmp_path / "made" / name).write_bytes(data)
    pieces = tmp_path / "pieces"
    ship.pack([tmp_path / "made" / name for name in files], pieces, 10)
    return files, pieces


def test_what_else_is_in_the_folder_of_pieces_stays(ship, packed, tmp_path):
    _, pieces = packed
    theirs = pieces / "site" / ship.INDEX
    theirs.parent.mkdir()
    theirs.write_text("{}")
    (pieces / "note").write_text("mine")
    ship.pack([tmp_path / "made" / "a"], pieces, 10)
    assert sorted(one.name for one in pieces.iterdir()) == ["1", "note", "site"]
    assert theirs.read_text() == "{}"


def test_pieces_are_joined_as_they_arrive(ship, packed, tmp_path):
    files, pieces = packed
    assert sorted(one.name for one in pieces.iterdir()) == ["1", "2", "3"]
    for folder in pieces.iterdir():
        sizes = [p.stat().st_size for p in folder.iterdir() if p.name != ship.INDEX]
        assert sum(sizes) <= 10
    away = tmp_path / "away"
    away.mkdir()
    for folder, missing in (("3", ["1", "2"]), ("1", ["2"]), ("2", [])):
        (pieces / folder).rename(away / folder)
        assert ship.join(away, tmp_path / "into") == missing
    for name, data in files.items():
        assert (tmp_path / "into" / name).read_bytes() == data
    # What is joined needs no parts any more.
    (away / "2" / "c.1").unlink()
    assert ship.join(away, tmp_path / "into") == []


def test_a_damaged_piece_is_noticed(ship, packed, tmp_path):
    _, pieces = packed
    (part,) = pieces.glob("2/c.*")
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(ValueError, match="c is not what was cut"):
        ship.join(pieces, tmp_path / "into")
    assert not (tmp_path / "into" / "c").exists()
