import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

import goracs_jax as gx
from goracs_jax.cli import main, with_config
from goracs_jax.data.examples import read_examples
from goracs_jax.errors import InputError
from goracs_jax.files import locked
from goracs_jax.prompts import format_prompt

N, M, BUDGET = 24, 10, 5


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A tiny model and two pools."""
    folder = tmp_path_factory.mktemp("shared")
    tiny.write_llm(folder / "llm")
    tiny.write_pool(folder / "train.jsonl", N, seed=0)
    tiny.write_pool(folder / "valid.jsonl", M, seed=1)
    return folder


@pytest.fixture
def files(shared, tmp_path, monkeypatch):
    """Their copies, as the working folder of one test."""
    for item in shared.iterdir():
        copy = shutil.copytree if item.is_dir() else shutil.copy
        copy(item, tmp_path / item.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 4)), rng.normal(size=(M, 4))
    g = rng.gamma(3.0, size=N)
    for name, array in {"x": x, "y": y, "g": g}.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TEXTS = "select --train train.jsonl --valid valid.jsonl --model llm --out out"
ARRAYS = "select --train-embeddings x.npy --valid-embeddings y.npy --out out"


def run(command: str, budget: int | None = BUDGET) -> int:
    return main(command.split() + ([] if budget is None else ["--budget", str(budget)]))


def contents(folder) -> dict[str, bytes]:
    names = ("indices.npy", "coreset.jsonl", "scores.npz")
    return {name: (folder / name).read_bytes() for name in names}


def test_texts_to_coreset(files, capsys):
    assert run(TEXTS) == 0
    out = files / "out"
    indices = np.load(out / "indices.npy")
    assert indices.dtype == np.int64
    assert (np.diff(indices) > 0).all()
    pool, coreset = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (files / "train.jsonl", out / "coreset.jsonl")
    )
    assert coreset == [pool[i] for i in indices]  # the key "id" included
    with np.load(out / "scores.npz") as scores:
        assert np.flatnonzero(scores["selected"]).tolist() == indices.tolist()
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((out / "manifest.json").read_text())
    x, y, g = (
        np.load(next((out / "stages").glob(f"{stage}-*")) / f"{array}.npy")
        for stage, array in [
            ("training embeddings", "embeddings"),
            ("validation embeddings", "embeddings"),
            ("gradient-norms", "norms"),
        ]
    )
    with np.load(out / "scores.npz") as scores:
        d = np.linalg.norm(x[:, None].astype(float) - y[None], axis=2)
        # float32, with cancellation where points are close.
        np.testing.assert_allclose(scores["nearest_distance"], d.min(1), rtol=1e-3)
        np.testing.assert_array_equal(scores["grad_norm"], g)
    # max(D) is found in float32.
    assert manifest["poo"] == pytest.approx(gx.poo(x, y, g, indices), abs=1e-6)
    assert manifest["lower_bound"] <= manifest["poo"]
    assert manifest["config"]["lambda_"] == 0.1
    assert set(manifest["seconds"]) == {
        "training embeddings", "validation embeddings", "gradient-norms",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "goracs" in printed
    assert "random" in printed


def test_second_run_computes_nothing(files, monkeypatch):
    assert run(TEXTS) == 0
    first = contents(files / "out")
    monkeypatch.setattr("goracs_jax.verbs.inputs.load_decoder", None)
    monkeypatch.setattr("goracs_jax.verbs.select.select_rows", None)
    assert run(TEXTS) == 0
    assert contents(files / "out") == first


def test_changed_inputs_are_noticed(files):
    assert run(TEXTS) == 0
    first = contents(files / "out")
    train = files / "train.jsonl"
    original = train.read_text()
    train.write_text("".join(original.splitlines(keepends=True)[::-1]))
    assert run(TEXTS) == 0
    fresh = contents(files / "out")
    shutil.rmtree(files / "out")
    assert run(TEXTS) == 0
    assert contents(files / "out") == fresh != first
    train.write_text(original)
    assert run(TEXTS) == 0
    assert contents(files / "out") == first


def other_weights(files):
    edit_tensors(
        files / "llm",
        lambda t: t.update({"model.norm.weight": 2 * t["model.norm.weight"]}),
    )


CHANGES = {
    "weights": (other_weights, ""),
    "valid": (lambda f: edit(f / "valid.jsonl", lambda t: t.replace("oak", "yew")), ""),
    "labels": (lambda f: None, "--labels answer"),
    "lambda": (lambda f: None, "--lambda 0.9"),
    "seed": (lambda f: None, "--seed 7"),
    "solver": (lambda f: None, "--solver sinkhorn"),
    "method": (lambda f: None, "--method greedy"),
    "duplicates": (lambda f: None, "--duplicates keep"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_used_folder_gives_what_a_fresh_one_gives(files, name):
    assert run(TEXTS) == 0
    change, flags = CHANGES[name]
    change(files)
    assert run(f"{TEXTS} {flags}") == 0
    used = contents(files / "out"), table(files / "out")
    assert run(f"{TEXTS.replace('--out out', '--out fresh')} {flags}") == 0
    assert (contents(files / "fresh"), table(files / "fresh")) == used


def table(out):
    """The table of a manifest, without its seconds."""
    rows = json.loads((out / "manifest.json").read_text())["table"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_files_of_two_runs_are_not_mixed(files, monkeypatch):
    for name, file in [("x", "train"), ("y", "valid")]:
        assert run(f"embed --data {file}.jsonl --model llm --out {name}.npy", None) == 0
    assert run(TEXTS) == 0
    assert run(ARRAYS, budget=3) == 0
    assert not (files / "out" / "coreset.jsonl").exists()
    monkeypatch.setattr("goracs_jax.verbs.results.figure", None)
    with pytest.raises(TypeError):
        run(ARRAYS, budget=4)
    assert not (files / "out" / "manifest.json").exists()


def test_only_one_run_a_folder(arrays, capsys):
    assert run(ARRAYS) == 0
    with locked(arrays / "out" / "stages"):
        assert_refused(ARRAYS, BUDGET, capsys, r"out/stages is in use by another run")
    assert run(ARRAYS) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("embed --data train.jsonl --model llm --out train.jsonl", r"ends in \.npy"),
        ("embed --data train.jsonl --model llm --out .", r"ends in \.npy, got \."),
        (
            "grads --data train.jsonl --model llm --out llm/g.npy",
            r"lies in the input llm",
        ),
        ("embed --data train.jsonl --out e.npy", r"give either --model or --encoder"),
    ],
)
def test_outputs_never_hit_inputs(files, capsys, command, message):
    before = {p: p.read_bytes() for p in files.rglob("*") if p.is_file()}
    assert_refused(command, None, capsys, message)
    assert {p: p.read_bytes() for p in files.rglob("*") if p.is_file()} == before


def test_out_inside_the_model(files, capsys):
    command = TEXTS.replace("--out out", "--out llm/out")
    assert_refused(command, BUDGET, capsys, r"llm/out lies in the input llm")


@pytest.mark.parametrize("lambda_", ["-1", "inf", "nan", "1e39"])
def test_bad_lambda_before_any_stage(files, capsys, lambda_):
    command = f"{TEXTS} --lambda {lambda_}"
    assert_refused(command, BUDGET, capsys, r"lambda must be in \[0, 1000\], got")
    assert not (files / "out").exists()


def test_equal_norms(arrays):
    np.save("g.npy", np.where(np.arange(N) > 5, 1, np.nextafter(np.float32(1), 2)))
    assert run(ARRAYS + " --grad-norms g.npy") == 0


@pytest.mark.slow
def test_killed_anywhere_ends_with_the_same_bytes(files):
    command = [sys.executable, "-m", "goracs_jax", *TEXTS.split(), "--budget", "5"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    expected = contents(files / "out")
    shutil.rmtree(files / "out")
    killed = 0
    for share in np.linspace(0.4, 0.95, 4):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(share * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 2
    subprocess.run(command, check=True, capture_output=True)
    assert contents(files / "out") == expected


def test_labels_change_norms_and_embeddings(files):
    assert run(TEXTS) == 0
    assert run(TEXTS + " --labels answer") == 0
    for stage in ("training embeddings", "gradient-norms"):
        one, two = (files / "out" / "stages").glob(f"{stage}-*")
        array = next(one.glob("*.npy")).name
        assert not np.allclose(np.load(one / array), np.load(two / array), rtol=1e-3)


def test_lambda_0_needs_no_norms(files):
    assert run(TEXTS + " --lambda 0") == 0
    stages = [path.name for path in (files / "out" / "stages").iterdir()]
    assert not any(name.startswith("gradient") for name in stages)


def test_embed_and_grads_feed_select(files):
    for name in ("train", "valid"):
        data = f"--data {name}.jsonl --model llm"
        assert run(f"embed {data} --out {name}.npy", None) == 0
    assert run("grads --data train.jsonl --model llm --out g.npy", None) == 0
    x, g = np.load("train.npy"), np.load("g.npy")
    assert (x.dtype, x.shape, g.dtype, g.shape) == ("f4", (N, 32), "f4", (N,))
    assert run(TEXTS) == 0
    by_arrays = "--valid-embeddings valid.npy --grad-norms g.npy --train train.jsonl"
    assert run(f"select --train-embeddings train.npy {by_arrays} --out out2") == 0
    assert contents(files / "out") == contents(files / "out2")
    assert sorted(path.name for path in files.glob("g.npy*")) == ["g.npy", "g.npy.json"]


def test_grads_again_is_done_and_all_lora_is_not(files, capsys):
    command = "grads --data train.jsonl --model llm --out g.npy"
    assert run(command, None) == 0
    last = np.load("g.npy")
    assert run(command, None) == 0
    assert "already done" in capsys.readouterr().out
    assert run(command + " --which all_lora", None) == 0
    assert (np.load("g.npy") > last).all()  # more parameters


def test_an_adapter_counts(files):
    adapter = tiny.write_adapter(files / "adapter")
    assert run(TEXTS) == 0
    assert run(TEXTS + " --adapter adapter") == 0
    lora = gx.read_lora_config(adapter)
    model = gx.load_decoder("llm", lora=lora, key=jax.random.key(9))
    model = gx.load_adapter(model, adapter)
    texts = [format_prompt(e.record) for e in read_examples(Path("train.jsonl"))]
    tokens = gx.tokenize(texts, gx.load_tokenizer("llm"), context=256)
    for stage, expected in [
        ("gradient-norms", gx.gradient_norms(model, tokens)),
        ("training embeddings", gx.embed_with_decoder(model, tokens)),
    ]:
        paths = (files / "out" / "stages").glob(f"{stage}-*/*.npy")
        arrays = [np.load(path) for path in paths]
        # With and without the adapter; batches and program are the same here.
        same = [np.array_equal(array, expected) for array in arrays]
        assert sorted(same) == [False, True]


def test_an_untrained_adapter_is_refused(files, capsys):
    tiny.write_adapter(files / "adapter", scale=0.0)
    command = TEXTS + " --adapter adapter"
    assert_refused(command, BUDGET, capsys, r"adapter: every lora_B is zero")


def test_arrays_to_indices(arrays, capsys):
    assert run(ARRAYS + " --grad-norms g.npy --lambda 0.3") == 0
    names = {path.name for path in (arrays / "out").iterdir()}
    assert names == {
        "indices.npy", "scores.npz", "manifest.json", "report.png", "stages",
    }  # fmt: skip
    assert run(ARRAYS + " --method random --seed 3") == 0
    assert json.loads((arrays / "out/manifest.json").read_text())["config"]["seed"] == 3


def test_dry_run_writes_nothing(files, capsys):
    before = sorted(files.rglob("*"))
    assert run(TEXTS + " --dry-run") == 0
    assert sorted(files.rglob("*")) == before
    printed = capsys.readouterr().out
    assert "gradient-norms: to do" in printed
    assert run(TEXTS) == 0
    assert run(TEXTS + " --dry-run") == 0
    assert "gradient-norms: done" in capsys.readouterr().out


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


def edit(path, change):
    path.write_text(change(path.read_text()))


def edit_config(folder, **changes):
    edit(folder / "config.json", lambda text: json.dumps(json.loads(text) | changes))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def last_line(text):
    return text.splitlines()[-1]


SPOIL_TEXTS = {
    "missing key": (
        lambda f: edit(f / "train.jsonl", lambda t: t.replace("output", "target", 1)),
        r"train\.jsonl:1: key 'output' is missing",
    ),
    "truncated": (
        lambda f: edit(f / "train.jsonl", lambda t: t[:-9]),
        rf"train\.jsonl:{N}: not valid JSON.*cut off",
    ),
    "encoding": (
        lambda f: (f / "valid.jsonl").write_bytes(b'{"instruction": "\xff"}'),
        r"valid\.jsonl:1: byte 0xff is not UTF-8: convert",
    ),
    "empty file": (
        lambda f: edit(f / "valid.jsonl", lambda t: ""),
        r"valid\.jsonl is empty",
    ),
    "duplicate": (
        lambda f: edit(f / "train.jsonl", lambda t: t + last_line(t)),
        rf"train\.jsonl:{N + 1} repeats the texts of train\.jsonl:{N}",
    ),
    "empty text": (
        lambda f: edit(
            f / "train.jsonl", lambda t: '{"instruction": "a", "output": ""}\n' + t
        ),
        r"train\.jsonl:1: output is empty",
    ),
    "longer than the context": (
        lambda f: edit(
            f / "train.jsonl", lambda t: t.replace("Name", "Name " * 300, 1)
        ),
        r"train\.jsonl:1 has \d+ tokens, more than the model's context of 256",
    ),
    "missing tensor": (
        lambda f: edit_tensors(f / "llm", lambda t: t.pop("model.norm.weight")),
        r"missing.*model\.norm\.weight",
    ),
    "unexpected tensor": (
        lambda f: edit_tensors(f / "llm", lambda t: t.update(extra=np.ones(1))),
        r"unexpected.*extra",
    ),
    "truncated weights": (lambda f: truncate(f / "llm/model.safetensors"), r"llm"),
    "unknown architecture": (
        lambda f: edit_config(f / "llm", architectures=["X"], model_type="mamba"),
        r"mamba",
    ),
    "unknown rope type": (
        lambda f: edit_config(
            f / "llm", rope_scaling={"rope_type": "yarn", "factor": 2}
        ),
        r"yarn",
    ),
    "pickle": (
        lambda f: (f / "llm/model.safetensors").rename(f / "llm/pytorch_model.bin"),
        r"pickle|safetensors",
    ),
    "no model": (lambda f: shutil.rmtree(f / "llm"), r"llm does not exist"),
    "no tokenizer": (lambda f: (f / "llm/tokenizer.json").unlink(), r"tokenizer"),
}


@pytest.mark.parametrize("name", SPOIL_TEXTS)
def test_bad_texts_and_models(files, capsys, name):
    spoil, message = SPOIL_TEXTS[name]
    spoil(files)
    assert_refused(TEXTS, BUDGET, capsys, message)
    stages = files / "out" / "stages"
    # Nothing was computed.
    assert [path.name for path in stages.glob("*")] in ([], [".lock"])


def test_duplicates_may_be_kept(files):
    edit(files / "train.jsonl", lambda text: text + last_line(text))
    assert run(TEXTS + " --duplicates keep") == 0


def save(name, array):
    return lambda: np.save(name, array)


X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
SPOIL_ARRAYS = {
    "budget 0": (lambda: None, 0, rf"budget must be in \[1, {N}\], got 0"),
    "budget above N": (
        lambda: None,
        N + 1,
        rf"budget must be in \[1, {N}\], got {N + 1}",
    ),
    "nan": (save("x.npy", np.where(X > 2, np.nan, X)), 5, r"NaN or infinity"),
    "infinite": (save("y.npy", np.where(X > 2, np.inf, X)), 5, r"NaN or infinity"),
    "shapes": (save("y.npy", X[:, :3]), 5, r"4 dimensions, validation embeddings 3"),
    "norms": (save("g.npy", np.ones(3, np.float32)), 5, r"shape \[3\].*24 rows"),
    "zero norms": (save("g.npy", np.zeros(N, np.float32)), 5, r"norms are zero"),
    "archive": (lambda: Path("x.npy").write_bytes(b"PK\x03\x04"), 5, r"is not a \.npy"),
    "pickled": (save("x.npy", np.array([{}])), 5, r"x\.npy is not a \.npy file of num"),
    "integers": (
        save("x.npy", np.ones((N, 4), int)),
        5,
        r"must be one array of floats",
    ),
    "no array": (
        lambda: Path("x.npy").write_text(""),
        5,
        r"x\.npy is not a \.npy file",
    ),
}


@pytest.mark.parametrize("name", SPOIL_ARRAYS)
def test_bad_arrays(arrays, capsys, name):
    spoil, budget, message = SPOIL_ARRAYS[name]
    spoil()
    assert_refused(ARRAYS + " --grad-norms g.npy", budget, capsys, message)
    assert not (arrays / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("select --out out", r"nothing to select from: give --train and --valid"),
        ("select --train-embeddings x.npy --out out", r"--valid-embeddings together"),
        ("select --valid-embeddings y.npy --out out", r"--valid-embeddings together"),
        (ARRAYS + " --lambda 0.1", r"lambda 0\.1 needs gradient norms"),
        (ARRAYS + " --lambda -1 --grad-norms g.npy", r"lambda must be in \[0, 1000\]"),
        (ARRAYS + " --method best", r"--method must be one of goracs, greedy, random"),
        (ARRAYS.replace("x.npy", "none.npy"), r"none\.npy does not exist"),
        (ARRAYS + " --train none.jsonl", r"none\.jsonl does not exist"),
        (ARRAYS + " --config none.yaml", r"none\.yaml: cannot be read"),
        (ARRAYS + " --seed -1", r"--seed must be in \[0, 4294967295\], got -1"),
        (ARRAYS + " --seed 99999999999999999999", r"--seed must be in .*, got 99999"),
        (
            ARRAYS + " --model m",
            r"--model is for texts: leave it out beside embeddings",
        ),
        (ARRAYS + " --nosuch 3", r"Unrecognized options: --nosuch"),
        (ARRAYS + " --lambda abc", r"Error parsing --lambda: .*'abc'"),
        ("select --out out", r"nothing to select from"),
        ("nosuch", r"Unrecognized .*options: nosuch"),
        (
            ARRAYS.replace("--out out", "--out x.npy/out"),
            r"x\.npy/out cannot be written",
        ),
        (
            ARRAYS.replace("--out out", "--out /proc/out"),
            r"/proc/out cannot be written",
        ),
    ],
)
def test_bad_flags(arrays, capsys, command, message):
    assert_refused(command, BUDGET, capsys, message)
    assert not (arrays / "out").exists()


def test_pool_and_embeddings_must_match(files, arrays, capsys):
    np.save("x.npy", X[:-1])
    assert_refused(
        ARRAYS + " --train train.jsonl", BUDGET, capsys, r"24 examples.*23 rows"
    )


def test_no_space(files, capsys, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0)
    )
    assert_refused(
        TEXTS, BUDGET, capsys, r"MiB are needed and 0 MiB are free: make room"
    )


def test_no_space_in_the_middle(files, capsys, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device", "out/stages")

    monkeypatch.setattr(np, "savez", full)
    assert_refused(TEXTS, BUDGET, capsys, r"out/stages: No space left on device")
    monkeypatch.undo()
    monkeypatch.chdir(files)
    assert run(TEXTS) == 0


def assert_refused(command, budget, capsys, message):
    """Exit code 2 and one line on standard error, beside bars and spinners."""
    capsys.readouterr()
    assert run(command, budget) == 2
    errors = capsys.readouterr().err.splitlines()
    lines = [line for line in errors if line.strip() and "\u2501" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("goracs: ")
    with pytest.raises(InputError, match=message):
        raise InputError(lines[0])


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["select", "--help"])
    printed = capsys.readouterr().out
    for flag in ("--budget", "--lambda", "--train-embeddings", "--config", "--dry-run"):
        assert flag in printed
