import ast
import errno
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import MISSING, fields
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from commands import ARRAYS, assert_refused, run

import goracs_jax as gx
from goracs_jax import cli
from goracs_jax.cli import VERBS, main, parse, with_config
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.settings.flags import flag_name, flags_of
from goracs_jax.training import TASKS

ROOT = Path(__file__).parents[2]
HEAVY = {
    *("jax", "jaxlib", "flax", "optax", "orbax", "ott", "ot", "sklearn", "scipy"),
    *("matplotlib", "transformers", "tokenizers", "polars", "rich", "numpy"),
}


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


BAD_CONFIGS = {
    "name twice": ("lambda: 0\nlambda: 1\n", r"'lambda' stands twice"),
    "flag twice": ("dry-run: true\ndry_run: false\n", r"dry-run stands twice"),
    "mapping": ("encoder: {a: 1}\n", r"encoder: is nested: give one value"),
    "lists": ("budget: [[1], 2]\n", r"budget: is nested: give one value"),
    "deep list": ("budget: " + "[" * 20000, r"cannot be read .*recursion"),
    "deep mapping": ("{a: " * 9000, r"cannot be read .*recursion"),
    "digits": (f"seed: {'9' * 5000}\n", r"cannot be read .*digits"),
    "hexadecimal digits": (f"seed: 0x{'f' * 9000}\n", r"seed: Exceeds the limit"),
    "sexagesimal digits": ("seed: 9" + ":9" * 20000, r"seed: Exceeds the limit|cann"),
    "long": ("# " + "a" * 70000, r"70,002 bytes are more than 65,536"),
    "no date": ("seed: 2024-99-99\n", r"cannot be read .*month must be in 1\.\.12"),
    "NUL": ('out: "a\\0b"\n', r"--out must be a path, got 'a\\x00b'"),
    "surrogate": ('out: "a\\ud800"\n', r"--out must be a path"),
    "no path": ('out: ""\n', r"--out must be a path, got ''"),
    "aliases": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n"
            for a, b in pairwise("abcdefghij")
        )
        + "budget: *j\n",
        r"'a' is no flag|nested",
    ),
    "aliases of a flag": (
        "budget: &a [x,x,x]\nseed: &b [*a,*a,*a]\nencoder: [*b,*b,*b]\n",
        r"seed: is nested",
    ),
    "no text": (b"budget: \xff\n", r"cannot be read .*utf-8"),
    "tag": (
        "budget: !!python/object/apply:os.getcwd []\n",
        r"could not determine",
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_config_files(arrays, capsys, name):
    text, message = BAD_CONFIGS[name]
    Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.process_time()
    command = f"{ARRAYS.replace(' --out out', '')} --config c.yaml"
    assert_refused(command, None, capsys, message)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("demo --config a.yaml --config=b.yaml", r"--config is given twice: put all"),
        ("demo --config", r"--config must be a path: name a YAML file"),
        ("demo --config --dry-run", r"--config must be a path: name a YAML file"),
        ("demo --config none.yaml", r"--config: none\.yaml does not exist"),
        ("demo --config .", r"--config: \. is a folder: name the file in it"),
        ("demo --out=", r"--out must be a path, got ''"),
    ],
)
def test_config_is_one_file(arrays, capsys, command, message):
    assert_refused(command, None, capsys, message)


def test_typed_flags_override_a_config_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("dry-run: true\nlambda: [0.5, -1e-7]\nencoder: e\nbudget: 3\n")
    common = ["select", "--out", "out", "--config", str(path)]
    settings = parse(common)
    assert (settings.dry_run, settings.encoder) == (True, Path("e"))
    assert settings.lambda_ == (0.5, -1e-7)
    typed = ["--no-dry-run", "--lambda", "-1e-9,2", "--encoder", "None"]
    settings = parse([*common, *typed])
    assert (settings.dry_run, settings.encoder) == (False, None)
    assert (settings.lambda_, settings.budget) == ((-1e-9, 2.0), (3,))


def test_values_have_the_types_of_their_fields():
    ctr = ["prepare", "--task=ctr", "--input", "a", "--out", "b"]
    settings = parse([*ctr, "--valid", "7", "--test", "0.25", "--like_above", "-.5"])
    assert (settings.valid, settings.test, settings.like_above) == (7, 0.25, -0.5)
    assert isinstance(settings.valid, int)
    assert (settings.input, settings.task) == (Path("a"), "ctr")
    assert parse(["select", "--budget", "8,4,8", "--out", "o"]).budget == (8, 4)


def help_of(verb, capsys):
    assert main([verb, "--help"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    return printed.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text, settings = help_of(verb, capsys), VERBS[verb].settings
    required = [f.name for f in fields(settings) if f.default is MISSING]
    introduction, *sections = re.split(r"\n\n(\S.*):\n(?=  -)", text)
    titles = sections[::2]
    if required:
        assert titles[0] == "required"
        listed = re.findall(r"^  --([\w-]+)", sections[1], re.MULTILINE)
        assert {*listed} == {flag_name(name) for name in required}
        usage = introduction.split("[FLAGS]")[0]
        assert all(f"--{flag_name(name)} " in usage for name in required)
    assert titles[-1] == "run"
    for field in fields(settings):
        flag = rf"^  --{flag_name(field.name)}[ ,]"
        assert len(re.findall(flag, text, re.MULTILINE)) == 1
    for wrong in ("None", "MISSING", "<", "==SUPPRESS==", "ellipsis"):
        assert wrong not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(f.help.endswith(".") for f in flags_of(settings))


def test_defaults_in_help(capsys):
    text = " ".join(help_of("finetune", capsys).split())
    told = "(default: {} for seqrec, {} for ctr)".format
    seqrec, ctr = TASKS["seqrec"], TASKS["ctr"]
    assert told(seqrec.epochs, ctr.epochs) in text
    assert told(seqrec.scored, ctr.scored) in text
    rates = re.search(r"to 0\. \(default: (\S+) for seqrec, (\S+) for ctr\)", text)
    assert rates
    assert [*map(float, rates.groups())] == [seqrec.learning_rate, ctr.learning_rate]
    assert "(default: q_proj,v_proj)" in text
    assert "(default: off)" in text
    assert "95 % intervals" in help_of("evaluate", capsys)


def test_help_lists_a_registered_method(capsys, monkeypatch):
    mine = gx.FunctionMethod(
        name="mine", choose=print, about="Rows that I like.", weighed=True
    )
    monkeypatch.setitem(gx.METHODS, "mine", mine)
    for verb in ("select", "compare"):
        text = help_of(verb, capsys)
        assert re.search(r"^ +mine +Rows that I like\.$", text, re.MULTILINE)
        assert re.search(
            r"Methods that use lambda: [^.]*\bmine\b", " ".join(text.split())
        )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview(arguments, capsys):
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert not printed.err
    for verb in VERBS:
        assert re.search(rf"^  {verb} +[A-Z].*\.$", printed.out, re.MULTILINE)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"goracs_jax {version('goracs-jax')}\n"
    assert gx.__version__ == version("goracs-jax")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nosuch", r"there is no verb 'nosuch': give one of demo, prepare, .*compare"),
        ("nosuch --help", r"there is no verb 'nosuch': give one of demo, prepare"),
        ("--seed 3 demo", r"there is no verb '--seed'"),
        (ARRAYS, r"--budget must be given: see goracs select --help\."),
        ("evaluate", r"--task, --model, --out, --test must be given: see goracs eval"),
        (
            "demo --budgett 3",
            r"no flag --budgett \(did you mean --budget\?\): see gora",
        ),
        ("demo --budg 3", r"no flag --budg .*see goracs demo --help\."),
        ("demo --budget", r"--budget: expected one argument: see goracs demo --help"),
        ("demo --dry-run=yes", r"--dry-run.*'yes': see goracs demo --help"),
        ("demo 3", r"unrecognized arguments: 3: see goracs demo --help"),
        ("embed --labels x", r"--labels must be one of all, answer, got 'x': see"),
        ("prepare --format x", r"must be one of auto, movielens-100k, .*, got 'x'"),
        ("prepare --test x", r"--test must be a number, got 'x': see goracs prepare"),
        ("demo --seed 1.5", r"--seed must be a whole number, got '1\.5'"),
    ],
)
def test_mistakes_name_the_help_of_the_verb(command, message, capsys):
    assert_refused(command, None, capsys, message)


def test_a_computation_that_fails_is_code_3(capsys, monkeypatch):
    def fail(settings):
        raise NumericalError("the loss is NaN at step 7: lower the learning rate.")

    monkeypatch.setattr(cli.Verb, "load", lambda verb: fail)
    assert main(["demo"]) == 3
    line = "goracs: the loss is NaN at step 7: lower the learning rate.\n"
    assert capsys.readouterr().err == line


class Panic(BaseException):
    """As of a library in Rust: no Exception."""


@pytest.mark.parametrize("kind", [KeyError, Panic, ZeroDivisionError, RecursionError])
def test_a_fault_of_the_program_is_code_70(capsys, monkeypatch, tmp_path, kind):
    def fail(settings):
        raise kind("first\nsecond")

    monkeypatch.setattr(cli.Verb, "load", lambda verb: fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(kind):  # in tests it shows
        main(["demo"])
    monkeypatch.delenv("GORACS_TRACEBACK")
    assert main(["demo", "--seed", "7"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    told = rf"goracs: a fault of goracs itself \({kind.__name__}: .*\): .* (\S+)\."
    log = Path(re.fullmatch(told, line)[1])
    assert log.parent == tmp_path
    text = log.read_text()
    assert "['demo', '--seed', '7']" in text
    assert f"jax {version('jax')}" in text
    assert "in fail\n    raise kind" in text


def test_a_fault_is_one_line_where_no_log_can_be_written(capsys, monkeypatch):
    class Mute(Exception):
        def __str__(self):
            raise KeyError("text")

    def fail(settings):
        raise faults.pop()

    def full(error, arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    faults = [Mute(), ValueError("\x1b[31m")]
    monkeypatch.setattr(cli.Verb, "load", lambda verb: fail)
    monkeypatch.setattr(cli, "log_fault", full)
    monkeypatch.delenv("GORACS_TRACEBACK")
    assert [main(["demo"]), main(["demo"])] == [70, 70]
    red, mute = capsys.readouterr().err.splitlines()
    assert r"(ValueError: \x1b[31m)" in red
    assert "(Mute: Mute)" in mute
    assert "GORACS_TRACEBACK=1 shows (no log is written: " in mute
    assert "No space left" in mute


def test_leaving_is_no_fault(monkeypatch):
    monkeypatch.delenv("GORACS_TRACEBACK")
    monkeypatch.setattr(cli.Verb, "load", lambda verb: lambda settings: sys.exit(5))
    with pytest.raises(SystemExit, match="5"):
        main(["demo"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_function(verb):
    assert VERBS[verb].load().__name__ == verb


LIGHT = [
    *[["--help"], ["--version"], ["select", "--help"], ["compare", "--help"]],
    *[["nosuch"], ["select", "--nosuch"], ["select", "--budget", "x", "--out", "o"]],
]


@pytest.mark.parametrize("arguments", [*LIGHT, None])
def test_what_is_told_at_once_imports_nothing_heavy(arguments):
    """None stands for the package alone."""
    program = "import json, sys, goracs_jax\n"
    if arguments is not None:
        program += f"from goracs_jax.cli import main\nmain({arguments!r})\n"
    program += "print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & HEAVY


def test_public_names():
    """What type checkers see is what the interpreter finds."""
    tree = ast.parse(Path(gx.__file__).read_text())
    (told,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        (statement.module.removeprefix("goracs_jax."), name.asname)
        for statement in told.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    assert imported == {(home, name) for name, home in gx._HOMES.items()}
    for name in gx._HOMES:
        assert getattr(getattr(gx, name), "__name__", name) == name
        assert name in dir(gx)
    assert gx.cost.make_cost
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = gx.nosuch


def test_another_process_compiles_nothing(files):
    """What the first compiled is read back; nothing new is stored."""
    command = [sys.executable, "-m", "goracs_jax", "embed", "--data", "valid.jsonl"]
    environment = os.environ | {
        "GORACS_CACHE": str(files / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    # Where it is set, JAX keeps programs there and nowhere else.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
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
