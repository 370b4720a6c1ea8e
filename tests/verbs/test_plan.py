"""`goracs plan`: plan.json for devices that are not there, and each mistake's line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from commands import assert_refused

from goracs_jax.ahead.topology import here, parse
from goracs_jax.cli import main
from goracs_jax.errors import InputError
from goracs_jax.jobs.plan import PROGRAMS, _compile, with_compiler
from goracs_jax.jobs.plan_config import PlanConfig
from goracs_jax.jobs.plan_stages import (
    ITERATIONS,
    SOLVE_SECONDS,
    TOUCHED,
    Examples,
    _batches,
    hours_of,
    stages_of,
)
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.memory import Rows
from goracs_jax.llm.sizes import Placement
from goracs_jax.llm.tokens import ragged
from goracs_jax.llm.work import Work, pass_work
from goracs_jax.models import DecoderConfig, LoraConfig
from goracs_jax.selection.work import selection_work
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.batches import Shapes, step_batches
from goracs_jax.training.order import Order

COMMAND = (
    "plan --topology {topology} --train-rows 2000 --valid-rows 300 --row-tokens 50 "
    "--budget 64 --model llm --out out --no-compile"
)


@pytest.fixture(autouse=True)
def model(tmp_path, monkeypatch):
    """A folder with config.json alone."""
    monkeypatch.chdir(tmp_path)
    tiny.write_llm(tmp_path / "whole")
    (tmp_path / "llm").mkdir()
    config = (tmp_path / "whole" / "config.json").read_text()
    (tmp_path / "llm" / "config.json").write_text(config)


def plan(topology="v5e:4x4", more=""):
    assert main((COMMAND.format(topology=topology) + more).split()) == 0
    return json.loads(Path("out/plan.json").read_text())


@pytest.mark.parametrize("topology", ["v5e:16x16", "tpu7x:2x2x1", "h100:8", "here"])
def test_every_stage_has_its_figures(topology, capsys):
    found = plan(topology)
    assert list(found["stages"]) == list(PROGRAMS)
    for stage in found["stages"].values():
        assert stage["gib_per_device"] > 0
        assert stage["flops"] > 0
        for low, high in (stage["hours"], stage["dollars"]):
            assert 0 < low < high
        assert stage["compiled"] is False
        assert stage["fits"] is True
    assert "gradient-norms" in capsys.readouterr().out


def test_twice_the_rows_take_twice_the_work():
    """Whole batches: the rows are a multiple of what all devices take at a time."""
    one = plan()["stages"]
    two = plan(more=" --train-rows 4000000 --valid-rows 600")["stages"]
    three = plan(more=" --train-rows 8000000 --valid-rows 600")["stages"]
    norms = [found["gradient-norms"]["flops"] for found in (one, two, three)]
    assert norms[0] < norms[1] < norms[2]
    # The last batch is padded to whole rows on every device.
    assert norms[2] / norms[1] == pytest.approx(2, rel=0.2)


def test_more_devices_take_less_time_and_as_much_work():
    few, many = (
        plan(t, " --train-rows 10000000")["stages"] for t in ("h100:1", "h100:8")
    )
    name = "selection goracs"
    assert many[name]["hours"][0] == pytest.approx(few[name]["hours"][0] / 8, rel=0.01)
    assert many[name]["flops"] == few[name]["flops"]


def test_compiled_at_hand():
    """The compiler of this machine says what its programs take."""
    found = plan("here", " --compile")
    for name, stage in found["stages"].items():
        assert stage["compiled"], (name, found["notes"])
    again = plan("here")
    for name in ("gradient-norms", "finetune"):
        by_formula, by_compiler = (p["stages"][name] for p in (again, found))
        assert by_formula["gib_per_device"] > 0
        assert by_formula["gib_per_device"] != by_compiler["gib_per_device"]
        assert not by_formula["compiled"]


def test_the_compiler_says_whether_a_stage_fits():
    """At 90 % of 100 bytes: the programs of a stage count by the largest of them."""
    config = PlanConfig(
        model=DecoderConfig.tiny(),
        path=Path("llm"),
        topology=parse("v5e:4x4"),
        train_rows=1000,
        valid_rows=100,
        length=64,
        scored=64,
        budget=10,
    )
    stages = stages_of(config)
    record = lambda program, size: {
        "program": program, "arguments": size, "temporaries": 0, "outputs": 0
    }  # fmt: skip
    found, notes = with_compiler(
        stages, [record("embedding", 91), record("last_v_lora_b", 90)], 100
    )
    assert (found["training embeddings"].fits, notes) == (False, [])
    assert found["gradient-norms"].fits
    assert found["gradient-norms"].gib_per_device == 90 / 2**30
    assert found["finetune"] == stages["finetune"]
    # Of a stage of three programs, one alone says nothing; nor does one that failed.
    some = [record("training", 1), record("update", 1)]
    assert with_compiler(stages, some, 100)[0]["finetune"] == stages["finetune"]
    failed = [*some, {"program": "validation", "failed": "no room"}]
    found, notes = with_compiler(stages, failed, 100)
    assert found["finetune"] == stages["finetune"]
    assert notes == ["validation: no room"]
    found, _ = with_compiler(stages, [*some, record("validation", 2)], 100)
    assert found["finetune"].compiled


def test_the_batches_of_a_run_are_compiled():
    """Not the largest batches that fit."""
    config = PlanConfig(
        model=DecoderConfig.tiny(),
        path=Path("llm"),
        topology=here(),
        train_rows=1000,
        valid_rows=100,
        length=64,
        scored=64,
        budget=10,
    )
    compiled = {record["program"]: record for record in _compile(config)}
    stages = stages_of(config)
    rows = lambda name: compiled[name]["rows"]["examples"] * config.length
    assert rows("last_v_lora_b") == stages["gradient-norms"].tokens_per_device
    assert rows("embedding") == stages["training embeddings"].tokens_per_device
    trained = min(rows("training"), rows("validation"))
    assert trained == stages["finetune"].tokens_per_device


def test_what_is_compiled_of_a_selection_before_the_compiler_dies(monkeypatch):
    """Nobody knows how many of its programs are missing, so it counts for nothing."""

    def some(_):
        sizes = {"arguments": 1, "temporaries": 1, "outputs": 1}
        yield {"program": "last_v_lora_b", **sizes}
        yield {"program": "selection greedy", **sizes}
        raise InputError("the compiler ended with code -9.")

    monkeypatch.setattr("goracs_jax.jobs.plan._compile", some)
    found = plan("here", " --compile")
    compiled = {name for name, stage in found["stages"].items() if stage["compiled"]}
    assert compiled == {"gradient-norms"}
    assert any("code -9" in note for note in found["notes"])


def test_hours_and_dollars_by_hand():
    """A million texts of 512 tokens through 7 B weights on 256 chips of v5e."""
    work = Work(flops=7.3e18, moved=819e9 * 256, exchanged=400e9 * 256)
    low, high = hours_of(parse("v5e:16x16"), work, "bfloat16")
    cores = 7.3e18 / (256 * 197e12)
    assert low == pytest.approx(cores / 3600, rel=1e-12)
    # A second of memory, and two of links, which bring in half of what they carry.
    assert high == pytest.approx((cores / 0.3 + 1 + 2) / 3600, rel=1e-12)
    small = Work(flops=1.0, moved=819e9 * 256, exchanged=0.0)
    assert hours_of(parse("v5e:16x16"), small, "bfloat16")[0] == 1 / 3600
    stage = plan("v5e:16x16")["stages"]["gradient-norms"]
    for hours, dollars, price in zip(
        stage["hours"], stage["dollars"], (1.20, 1.56), strict=True
    ):
        assert dollars == pytest.approx(hours * 256 * price, rel=1e-12)


def test_transports_of_a_large_search_are_of_the_devices(capsys):
    """Above 2^22 entries the host solves two, whatever the search does."""
    found = {}
    for budget in (2048, 2049):
        more = f" --train-rows 9000 --valid-rows 2048 --budget {budget}"
        stage = plan("h100:8", more)["stages"]["selection goracs"]
        found[budget] = stage["hours"][1], stage["bytes_moved"]
    times = {n: selection_work(9000, 2048, n)[1].transports for n in found}
    each = SOLVE_SECONDS * 2048 * 2048 / 3600
    assert found[2048][0] > times[2048] * each > 4 * each > found[2049][0]
    # Each device moves what Sinkhorn reads and writes, and all else as before.
    moved = 8 * times[2049] * ITERATIONS * TOUCHED * 2048 * 2049
    assert found[2049][1] - found[2048][1] == pytest.approx(moved, rel=1e-2)


def test_scores_in_a_kernel_are_not_moved():
    config = DecoderConfig.tiny(head_dim=64)
    rows = Rows(8, 512, 512)
    scores, kernel = (
        pass_work(
            config, LoraConfig(), "embedding", rows, Placement(attention=kind)
        ).moved
        for kind in ("scores", "splash")
    )
    # Three times four bytes for each pair of tokens, head and layer.
    pairs = 8 * 512 * 512 * config.num_heads * config.num_layers
    assert scores - kernel == 3 * 4 * pairs


def test_a_plan_says_what_to_do(capsys):
    """A 70B shape on one machine: figures in full, and the ways out."""
    config = json.loads(Path("llm/config.json").read_text()) | {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
    }  # fmt: skip
    Path("llm/config.json").write_text(json.dumps(config))
    more = " --train-rows 1000000 --valid-rows 22000 --budget 1024"
    notes = plan("h100:8", more)["notes"]
    told = capsys.readouterr().out
    (total,) = (line for line in told.splitlines() if line.startswith("all"))
    *_, hours, dollars = re.split(r"[\s│]+", total.strip())
    assert re.fullmatch(r"[\d.,]+-[\d.,]+", hours)
    assert re.fullmatch(r"[\d,]+-[\d,]+", dollars)
    assert "…" not in told
    notes = plan("v5e:1x1", more)["notes"]
    way = "more than 90% of 14.9: give --remat layers, or take more devices"
    assert any(note.startswith("finetune") and way in note for note in notes)
    notes = plan("v5e:2x4", more + " --model-devices 4")["notes"]
    way = "give --remat layers, or raise --model-devices, or take more devices"
    assert any(note.startswith("finetune") and way in note for note in notes)
    notes = plan("h100:64", more)["notes"]
    assert any("between machines of 8 GPUs" in note for note in notes)
    notes = plan("v5e:16x16")["notes"]
    assert any("a step of 64 examples leaves 192 of 256" in note for note in notes)


@pytest.mark.parametrize("examples", [1, 20, 128, 129, 1000])
@pytest.mark.parametrize("data", [1, 8])
def test_scoring_takes_the_batches_of_a_run(examples, data):
    texts = ragged([[1] * 64] * examples)
    run = make_batches(texts, tokens_per_batch=1024, devices=data)
    planned = _batches(Examples(examples), 16 * data, data)
    rows = [size for count, size in planned for _ in range(count)]
    assert rows == [len(batch.rows) for batch in run]


def test_few_scored_tokens_take_less():
    """Of 62 tokens the head is left out, and the last layer but keys and values."""
    config = PlanConfig(
        model=DecoderConfig.tiny(),
        path=Path("llm"),
        topology=parse("h100:8"),
        train_rows=1024,
        valid_rows=100,
        length=64,
        scored=64,
        budget=10,
    )
    every, few = stages_of(config), stages_of(replace(config, scored=2))
    assert every["training embeddings"] == few["training embeddings"]
    c = config.model
    queries, mlp, dim = c.num_heads * c.head_dim, c.intermediate_size, c.hidden_size
    forward = dim * (2 * queries + 3 * mlp) + 2 * 64 * queries
    backward = dim * (queries + 3 * mlp) + 64 * queries
    token = 2 * (forward + backward + 2 * c.vocab_size * dim)
    saved = every["gradient-norms"].flops - few["gradient-norms"].flops
    assert saved == pytest.approx(1024 * 62 * token, rel=1e-9)
    assert (
        few["gradient-norms"].gib_per_device <= every["gradient-norms"].gib_per_device
    )


@pytest.mark.parametrize(("budget", "rows", "tokens"), [(300, 100, 1024), (9, 40, 64)])
def test_finetuning_takes_the_batches_of_a_run(budget, rows, tokens):
    config = PlanConfig(
        model=DecoderConfig.tiny(),
        path=Path("llm"),
        topology=parse("h100:8"),
        train_rows=1000,
        valid_rows=rows,
        length=64,
        scored=64,
        budget=budget,
        epochs=3,
        tokens_per_batch=tokens,
    )
    flops = 0.0
    for name, count, times in (("training", budget, 3), ("validation", rows, 3)):
        texts = ragged([[1] * 64] * count, [[1] * 64] * count)
        settings = FinetuneConfig(epochs=3, learning_rate=1e-4, tokens_per_batch=tokens)
        shapes = Shapes.of(texts, settings, 8)
        steps = range(settings.steps_per_epoch(count)) if name == "training" else [0]
        split = [
            batch
            for step in steps
            for batch in (
                step_batches(texts, Order.of(texts, 0), shapes, 128, step)
                if name == "training"
                else shapes.split(texts)
            )
        ]
        for batch in split:
            whole = Rows(len(batch.ids), 64, 64)
            flops += (
                times
                * pass_work(
                    config.model, LoraConfig(), name, whole, config.placement
                ).flops
            )
    assert stages_of(config)["finetune"].flops == pytest.approx(flops, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--topology v9:2x2", r"--topology must be KIND:SHAPE or here.*got 'v9:2x2'"),
        ("--topology v5e:4", r"v5e:SHAPE needs NxN chips as the shape, got '4'"),
        ("--topology v5e:99999x99999", r"a network of v5e has at most 256 chips"),
        ("--train-rows 10000000000000", r"--train-rows must be at most 1000000000000"),
        ("--topology h100:12", r"more than 8 GPUs are whole machines of 8"),
        ("--train-rows -5", r"--train-rows must be at least 1, got -5"),
        ("--budget 0", r"--budget must be at least 1"),
        ("--budget 5000", r"--budget must be in \[1, 2000\]"),
        ("--row-tokens 9999", r"--row-tokens 9999 is more than the model's context"),
        ("--scored-tokens 51", r"--scored-tokens must be in \[1, 50\], .* got 51"),
        ("--scored-tokens 0", r"--scored-tokens must be at least 1, got 0"),
        ("--model-devices 3", r"--model-devices must divide the 16 devices"),
        ("--model none", r"none: no such file or folder"),
    ],
)
def test_mistakes(change, message, capsys):
    command = COMMAND.format(topology="v5e:4x4")
    assert_refused(f"{command} {change}", None, capsys, message)


def test_a_config_without_a_field_is_refused_by_name(tmp_path, capsys):
    raw = json.loads((tmp_path / "llm/config.json").read_text())
    del raw["hidden_size"]
    (tmp_path / "llm/config.json").write_text(json.dumps(raw))
    command = COMMAND.format(topology="v5e:4x4")
    assert_refused(command, None, capsys, r"config\.json.*hidden_size")


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main((COMMAND.format(topology="v5e:4x4") + " --dry-run").split()) == 0
    told = capsys.readouterr().out
    assert "16 devices of v5e" in told
    assert "gradient-norms" in told
    assert not (tmp_path / "out").exists()
