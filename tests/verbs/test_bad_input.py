"""Each mistake is one line on standard error and exit code 2, before any stage."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from commands import (
    ARRAYS,
    BUDGET,
    TEXTS,
    N,
    assert_refused,
    edit,
    edit_config,
    edit_tensors,
    last_line,
    run,
    truncate,
)

from goracs_jax.selection import problem

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
            f / "llm", rope_scaling={"rope_type": "odd", "factor": 2}
        ),
        r"odd",
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
    "budget not whole": (lambda: None, 2.5, r"--budget must be whole numbers.*'2\.5'"),
    "nan": (save("x.npy", np.where(X > 2, np.nan, X)), 5, r"NaN or infinity"),
    "infinite": (save("y.npy", np.where(X > 2, np.inf, X)), 5, r"NaN or infinity"),
    "shapes": (save("y.npy", X[:, :3]), 5, r"4 dimensions, validation embeddings 3"),
    "norms": (save("g.npy", np.ones(3, np.float32)), 5, r"shape \[3\].*24 rows"),
    "zero norms": (save("g.npy", np.zeros(N, np.float32)), 5, r"norms are zero"),
    "archive": (
        lambda: Path("x.npy").write_bytes(b"PK\x03\x04"),
        5,
        r"is not a file of num",
    ),
    "pickled": (save("x.npy", np.array([{}])), 5, r"x\.npy is not a file of num"),
    "integers": (
        save("x.npy", np.ones((N, 4), int)),
        5,
        r"must be one array of floats",
    ),
    "no array": (
        lambda: Path("x.npy").write_text(""),
        5,
        r"x\.npy is not a file of numbers",
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
        (
            ARRAYS + " --method grad-norm",
            r"ranks by norms: give --grad-norms",
        ),
        (ARRAYS + " --method error", r"--method error ranks by errors: give --errors"),
        (ARRAYS + " --method loss-drop", r"loss-drop is for texts: give --rewards"),
        (
            ARRAYS + " --method alignment --reward grad-norm",
            r"alignment ranks by rewards: give --rewards, or --reward alignment, probe",
        ),
        (ARRAYS + " --errors e.npy", r"--errors are read by --method error and no"),
        (ARRAYS + " --method error --errors e.npy", r"e\.npy does not exist"),
        (
            ARRAYS + " --method error --errors x.npy",
            r"prediction errors of x\.npy have shape \[24, 4\].*24 rows",
        ),
        (ARRAYS + " --lambda -1 --grad-norms g.npy", r"lambda must be in \[0, 1000\]"),
        (ARRAYS + " --method best", r"--method must be one of goracs, greedy, itra"),
        (ARRAYS.replace("x.npy", "none.npy"), r"none\.npy does not exist"),
        (ARRAYS + " --train none.jsonl", r"none\.jsonl does not exist"),
        (ARRAYS + " --config none.yaml", r"--config: none\.yaml does not exist"),
        (ARRAYS + " --config=", r"--config must be a path"),
        (ARRAYS + " --seed -1", r"--seed must be in \[0, 4294967295\], got -1"),
        (ARRAYS + " --seed 99999999999999999999", r"--seed must be in .*, got 99999"),
        (
            ARRAYS + " --model m",
            r"--model is for texts: leave it out beside embeddings",
        ),
        (ARRAYS + " --nosuch 3", r"no flag --nosuch.*see goracs select --help"),
        (ARRAYS + " --lambda abc", r"--lambda must be numbers.*'abc'"),
        ("select --out out", r"nothing to select from"),
        ("nosuch", r"there is no verb 'nosuch'"),
        (
            ARRAYS.replace("--out out", "--out x.npy/out"),
            r"--out x\.npy/out lies in the input x\.npy",
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


def test_a_config_that_is_nested_too_deeply(arrays, capsys):
    Path("deep.yaml").write_text("a: " + "[" * 5000)
    message = r"deep\.yaml: cannot be read \(maximum recursion depth"
    assert_refused(ARRAYS + " --config deep.yaml", BUDGET, capsys, message)


@pytest.mark.parametrize("flag", ["--processes 2", "--process 0"])
def test_processes_need_a_coordinator(files, capsys, flag):
    command = f"embed --data train.jsonl --model llm --out e.npy {flag}"
    assert_refused(command, None, capsys, r"need --coordinator")
    assert not (files / "e.npy").exists()


def test_pool_and_embeddings_must_match(files, arrays, capsys):
    np.save("x.npy", X[:-1])
    assert_refused(
        ARRAYS + " --train train.jsonl", BUDGET, capsys, r"24 examples.*23 rows"
    )


def test_transport_that_does_not_fit(files, capsys, monkeypatch):
    monkeypatch.setattr(problem, "transport_bytes", lambda n, m: 2**60)
    message = rf"a transport of {BUDGET} x \d+ takes \d+ GiB of memory.*lower the bud"
    assert_refused(TEXTS, BUDGET, capsys, message)
    assert not (files / "out").exists()


def test_errors_before_any_stage(files, capsys):
    np.save("e.npy", np.append(np.ones(N - 1), -1.0))
    message = r"1 prediction errors of e\.npy are neg"
    assert_refused(f"{TEXTS} --method error --errors e.npy", BUDGET, capsys, message)
    assert not (files / "out").exists()


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

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    message = r"out/stages/.*: the disk is full \(No space left on device\): make room"
    assert_refused(TEXTS, BUDGET, capsys, message)
    monkeypatch.undo()
    monkeypatch.chdir(files)
    assert run(TEXTS) == 0


def test_an_untrained_adapter_is_refused(files, capsys):
    tiny.write_adapter(files / "adapter", scale=0.0)
    command = TEXTS + " --adapter adapter"
    assert_refused(command, BUDGET, capsys, r"adapter: every lora_B is zero")


GRADS = "grads --data train.jsonl --model llm --out g.npy"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "embed --data train.jsonl --model llm --out train.jsonl",
            r"lies in the input train\.jsonl",
        ),
        ("embed --data train.jsonl --model llm --out e.txt", r"ends in \.npy"),
        ("embed --data train.jsonl --model llm --out .", "a folder has that name"),
        (
            "grads --data train.jsonl --model llm --out llm/g.npy",
            r"lies in the input llm",
        ),
        ("embed --data train.jsonl --out e.npy", r"give either --model or --encoder"),
        (GRADS + " --losses llm/l.npy", r"--losses llm/l\.npy lies in the input llm"),
        (GRADS + " --errors e.txt", r"--errors must be a file that ends in \.npy"),
        (GRADS + " --errors ./g.npy", r"two outputs have the same name"),
        (GRADS + " --projections p.npy --projection-dim 0", r"at least 1, got 0"),
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
