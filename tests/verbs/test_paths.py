"""What is read is a file that ends, and nothing is written over it: for every verb."""

import os
import time
import zipfile
from pathlib import Path
from typing import get_args, get_origin

import numpy as np
import pytest
import raw_files
import tiny
from commands import ARRAYS, TEXTS, assert_refused

from goracs_jax.cli import VERBS, main, parse
from goracs_jax.errors import InputError
from goracs_jax.jobs.rows import read_sides
from goracs_jax.runs.arrays import read_floats
from goracs_jax.settings.flags import flags_of
from goracs_jax.settings.parser import _value
from goracs_jax.settings.paths import check_paths

SECONDS = 5.0  # of the processor: the most that a refusal takes
for _verb in VERBS.values():
    _verb.load()  # imports take seconds, here more than elsewhere


def least(verb):
    """The fewest flags that the parser takes, with paths of their own."""
    command = [verb]
    for flag in flags_of(VERBS[verb].settings):
        if flag.required:
            metavar = _value(flag.field.type).metavar
            choice = metavar.strip("{}").split(",")[0]
            names = {"PATH": f"{flag.name}.in", "INT": "1", "INT[": "1"}
            text = names.get(metavar, "1" if metavar.startswith("INT") else choice)
            command += [f"--{flag.name}", text]
    return command


def paths_of(verb):
    """The flags of a verb that name outputs, and those that name inputs."""
    flags = flags_of(VERBS[verb].settings)
    paths = [f for f in flags if Path in (f.field.type, *_kinds(f.field.type))]
    outputs = [flag for flag in paths if flag.flag.writes]
    return outputs, [flag for flag in paths if not flag.flag.writes]


def _kinds(annotation):
    inner = [k for x in get_args(annotation) for k in (x, *get_args(x))]
    return inner if get_origin(annotation) else []


@pytest.mark.parametrize("verb", VERBS)
def test_every_output_says_what_it_writes(verb):
    outputs, inputs = paths_of(verb)
    assert "out" in [flag.name for flag in outputs]
    assert "config" in [flag.name for flag in inputs]
    written = {"out", "losses", "errors", "projections"}
    assert not written & {f.name for f in inputs} or verb == "select"  # --errors


@pytest.mark.parametrize("verb", VERBS)
def test_a_tilde_is_the_home(verb, tmp_path, monkeypatch):
    """Shells leave it in --out=~/x, and files of flags have it as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths = [flag for flags in paths_of(verb) for flag in flags]
    names = {flag.name: flag.field.name for flag in paths if flag.name != "config"}
    (tmp_path / "flags.yaml").write_text("".join(f"{n}: ~/{n}\n" for n in names))
    typed = [f"--{name}=~/{name}" for name in names]
    for more in (typed, ["--config", "~/flags.yaml"]):
        settings = parse([verb, *least_without(verb, names), *more])
        for name, field in names.items():
            assert getattr(settings, field) == tmp_path / name


def least_without(verb, names):
    """The fewest flags, but for some."""
    rest = least(verb)[1:]
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return [x for name, value in pairs if name[2:] not in names for x in (name, value)]


@pytest.mark.parametrize("verb", VERBS)
def test_no_input_lies_where_a_verb_writes(verb, tmp_path, monkeypatch):
    """Each input of each verb at each place that it writes, and below links to it."""
    monkeypatch.chdir(tmp_path)
    outputs, inputs = paths_of(verb)
    (tmp_path / "linked").symlink_to("here")
    for out in outputs:
        for pattern in out.flag.writes:
            name = pattern.format(name="o.x", stem="o").replace("*", "1")
            for given in inputs:
                for folder in ("here", "linked"):
                    # --config is read by the parser: here its path alone counts.
                    settings = parse([*least(verb), f"--{out.name}", "here/o.x"])
                    vars(settings)[given.field.name] = Path(folder) / name
                    with pytest.raises(InputError, match=r"here/o\.x (lies|would)"):
                        check_paths(settings)
        settings = parse([*least(verb), f"--{out.name}", "here/o.x"])
        for given in inputs:
            vars(settings)[given.field.name] = Path("here/other.y")
        check_paths(settings)


@pytest.mark.parametrize("verb", VERBS)
def test_no_input_is_a_pipe_a_device_or_a_loop(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("device").symlink_to("/dev/zero")
    outputs, inputs = paths_of(verb)
    for given in (*outputs, *inputs):
        for name in ("pipe", "loop", "device", "loop/inside"):
            settings = parse(least(verb))
            vars(settings)[given.field.name] = Path(name)
            with pytest.raises(InputError, match=rf"{name}: (a device|cannot be op)"):
                check_paths(settings)


PIPES = [
    (
        "select --train pipe --valid valid.jsonl --model llm --out out --budget 2",
        "pipe",
    ),
    (
        "select --train-embeddings pipe --valid-embeddings pipe --out o --budget 2",
        "pip",
    ),
    ("embed --data valid.jsonl --model llm --out e.npy --config pipe", "pipe"),
    ("embed --data valid.jsonl --model pipe --out e.npy", "pipe"),
    ("grads --data valid.jsonl --model llm --adapter pipe --out e.npy", "pipe"),
    ("prepare --task seqrec --format csv --input pipe --out out", "pipe"),
    ("prepare --task seqrec --format recbole --input folder --out out", "a.inter"),
    ("prepare --task ctr --input valid.jsonl --template pipe --out out", "pipe"),
    ("evaluate --task seqrec --test valid.jsonl --model llm --out m.json", "items.jso"),
    (f"{TEXTS} --space pipe.npz --lambda 0 --budget 2", r"pipe\.npz"),
]


@pytest.mark.parametrize(("command", "name"), PIPES)
def test_a_pipe_is_refused_at_once(files, capsys, command, name):
    (files / "folder").mkdir()
    (files / "folder/a.item").write_text("item_id:token\ttitle:token\n")
    for pipe in ("pipe", "pipe.npz", "items.jsonl", "folder/a.inter"):
        os.mkfifo(files / pipe)
    started = time.process_time()
    assert_refused(command, None, capsys, rf"{name}.*: a device or a pipe: give a file")
    assert time.process_time() - started < SECONDS


def test_an_array_is_never_its_own_output(arrays, capsys):
    """Whatever a verb would leave beside its output, too."""
    before = Path("x.npy").read_bytes()
    for place in ("x.npy", "./x.npy", "../" + arrays.name + "/x.npy"):
        command = f"embed --data x.npy --model m --out {place}"
        assert_refused(command, None, capsys, "lies in the input x.npy")
    Path("out").mkdir()
    Path("out/indices.npy").write_bytes(before)
    command = ARRAYS.replace("x.npy", "out/indices.npy")
    assert_refused(command, 3, capsys, r"--out out would write over the input out/ind")
    Path("run.yaml").write_text("budget: 3\n")
    Path("run.yaml").rename("out/manifest.json")
    command = f"{ARRAYS} --config out/manifest.json"
    assert_refused(command, None, capsys, r"would write over the input out/manifest")
    assert Path("out/indices.npy").read_bytes() == Path("x.npy").read_bytes() == before


def test_all_that_verbs_leave_is_declared(files, tmp_path):
    """Every file beside or in an output, but for stages, is a name that is refused."""
    tiny.write_adapter(files / "adapter")
    raw_files.write("movielens-1m", files / "raw")
    commands = {
        "embed": "--data valid.jsonl --model llm --out o/e.npy",
        "grads": "--data valid.jsonl --model llm --out o/g.npy --errors o/e.npy",
        "merge": "--model llm --adapter adapter --out o/m",
        "select": f"{TEXTS.removeprefix('select')} --budget 2,3",
        "finetune": "--data valid.jsonl --valid valid.jsonl --model llm --steps 2 "
        "--warmup-steps 1 --tensorboard --out o/f",
        "prepare": "--task seqrec --format movielens-1m --input raw --out o/p "
        "--min-history 1 --negatives 0 --valid 1 --test 1",
    }
    for verb, flags in commands.items():
        command = [verb, *flags.replace("--out out", "--out o/s").split()]
        before = {*files.rglob("*")}
        assert main(command) == 0
        new = {path for path in files.rglob("*") if path.is_file()} - before
        assert new
        for path in new:
            if "stages" in path.parts or path.name == ".lock":
                continue
            settings = parse(command)
            vars(settings)["config"] = path
            with pytest.raises(InputError, match=r"would write over|lies in"):
                check_paths(settings)


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (ARRAYS, "out/coreset.jsonl"),
        (ARRAYS, "out/budget-3-lambda-0.0/indices.npy"),
        ("embed --data x.jsonl --model llm --out e.npy", "e.npy.json"),
        ("merge --model llm --adapter a --out m", "m/config.json"),
        ("prepare --task ctr --input x.csv --out o[1]", "o[1]/valid.jsonl"),
        (
            "finetune --data x.jsonl --valid x.jsonl --model llm --out f",
            "f/adapter_model.safetensors",
        ),
    ],
)
def test_a_folder_in_the_place_of_an_output(tmp_path, monkeypatch, command, taken):
    monkeypatch.chdir(tmp_path)
    budget = ["--budget", "3"] if command == ARRAYS else []
    settings = parse([*command.split(), *budget])
    check_paths(settings)
    Path(taken).mkdir(parents=True)
    with pytest.raises(InputError, match=f"would write {Path(taken).name}, and a fold"):
        check_paths(settings)


def npy(header: str, content: bytes = b"") -> bytes:
    """A .npy file with any header."""
    text = (header + " " * (-(10 + len(header) + 1) % 64) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


FORM = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}".format
HEADERS = {
    "more than there is": npy(FORM("(10, 4)"), b"\0" * 16),
    "less than there is": npy(FORM("(1, 2)"), b"\0" * 16),
    "overflow": npy(FORM("(4294967296, 4294967296)"), b"\0" * 16),
    "beyond any integer": npy(FORM(f"({10**30}, 4)"), b"\0" * 16),
    "below zero": npy(FORM("(-1, -4)"), b"\0" * 16),
    "one below zero": npy(FORM("(-2, 2)"), b"\0" * 16),
    "not whole": npy(FORM("(1.0, 4)"), b"\0" * 16),
    "deep": npy("(" * 4000, b"\0" * 16),
    "open": npy("{'descr': '''", b"\0" * 16),
    "digits": npy(FORM("(" + "9" * 5000 + ",)"), b"\0" * 16),
    "huge header": npy(FORM("(4,)") + " " * 60000, b"\0" * 16),
    "empty": b"",
    "a type without end": npy(FORM("(4,)").replace("<f4", "V" + "9" * 30), b"\0" * 16),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path, name):
    path, rows = tmp_path / "x.npy", tmp_path / "rows.npz"
    path.write_bytes(HEADERS[name])
    np.savez(rows, valid=np.zeros((10, 4), np.float32))
    with zipfile.ZipFile(rows, "a") as archive:
        archive.writestr("train.npy", HEADERS[name])
    started = time.process_time()
    with pytest.raises(InputError, match=r"x\.npy is not a"):
        read_floats({"x": (path, "rows")})
    with pytest.raises(InputError, match=r"rows\.npz:train is not a"):
        read_sides(rows, [4, 10])
    assert time.process_time() - started < SECONDS


def test_a_header_that_lies_is_one_line(arrays, capsys):
    Path("y.npy").write_bytes(HEADERS["overflow"])
    message = r"y\.npy is not .*shape \[4294967296, 4294967296\] of float32"
    assert_refused(ARRAYS, 3, capsys, message)
    assert not Path("out").exists()
