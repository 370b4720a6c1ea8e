"""The documentation is true: its code runs, its commands parse, its files exist."""

import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from goracs_jax import cli
from goracs_jax.selection.method import METHODS, Goracs, SimulatedAnnealing

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACT = PROJECT["tool"]["importlinter"]["contracts"][0]
MAKEFILE = (ROOT / "Makefile").read_text()


def blocks(text, language):
    """The fenced blocks of a language, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


def commands(text):
    """Lines of shell blocks, with those that end in a backslash joined."""
    for block in blocks(text, "sh"):
        yield from block.replace("\\\n", " ").splitlines()


@pytest.fixture
def methods():
    """The registry, for one page: goracs searches briefly, what it adds is dropped."""
    kept = dict(METHODS)
    METHODS["goracs"] = Goracs(
        annealing=SimulatedAnnealing(epochs=2, fewest_epochs=1, sweeps=20, starts=1)
    )
    yield METHODS
    METHODS.clear()
    METHODS.update(kept)


@pytest.mark.usefixtures("methods")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(PAGES[p], "python")])
def test_python_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {}
    for code in blocks(PAGES[page], "python"):
        exec(compile(code, page, "exec"), space)
    assert not os.listdir(tmp_path)  # nothing is left behind where a reader tries it


@pytest.mark.parametrize(
    ("page", "line"),
    [(p, line) for p in PAGES for line in commands(PAGES[p]) if "goracs " in line],
)
def test_commands_parse(page, line):
    program, *arguments = shlex.split(line, comments=True)
    assert program == "goracs"
    settings = cli.parse(arguments)
    assert type(settings).__name__.lower() == arguments[0]


def test_make_targets_exist():
    named = {
        target
        for text in PAGES.values()
        for target in re.findall(r"(?:^|`)make (\w+)", text, re.M)
    }
    assert {"demo", "test", "docs"} <= named
    assert named <= set(re.findall(r"^(\w+):", MAKEFILE, re.M))


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    """Links, by the folder of the page; and paths in code font, from the root."""
    linked = re.findall(r"\]\((?!http)([\w./-]+)[#)]", PAGES[page])
    for path in linked:
        assert ((ROOT / page).parent / path).exists(), path
    for path in re.findall(
        r"`((?:goracs_jax|tests|benchmarks|notebooks)/[\w./]+)`", PAGES[page]
    ):
        assert (ROOT / path).exists(), path


def test_every_verb_has_its_help():
    page = PAGES["docs/cli.md"]
    assert tuple(re.findall(r"<!-- help: (\w+) -->", page)) == tuple(cli.VERBS)
    assert re.findall(r"^## goracs (\w+)", page, re.M) == list(cli.VERBS)


def test_method_table_names_every_method():
    """One row of choosing.md for each method that the package brings."""
    table = re.findall(r"^\| `(\w[\w-]*)` \|", PAGES["docs/choosing.md"], re.M)
    assert table == list(METHODS)


def test_architecture_has_the_layers_that_are_checked():
    """In the same order, from the top; names side by side may not import each other."""
    picture = blocks_of_rooms(PAGES["docs/architecture.md"])
    layers = [
        {name.removeprefix("goracs_jax.") for name in layer.split(" | ")}
        for layer in CONTRACT["layers"]
    ]
    assert picture == layers


def blocks_of_rooms(text):
    """The names before the first wide space of each line of the list of rooms."""
    lines = text.partition("`make lint`:\n\n")[2].partition("\n\n")[0].splitlines()
    return [set(re.split(r"\s{2,}", line.strip())[0].split(" | ")) for line in lines]


def example(start):
    """The block of CONTRIBUTING.md that starts so."""
    (found,) = [b for b in blocks(PAGES["CONTRIBUTING.md"], "") if b.startswith(start)]
    return found


def test_example_of_a_raw_format(tmp_path, monkeypatch):
    from goracs_jax.data import formats, interactions, raw_files

    added = eval("{" + example('"library"') + "}", vars(formats))
    monkeypatch.setattr(formats, "FORMATS", formats.FORMATS | added)
    monkeypatch.setattr(raw_files, "FORMATS", formats.FORMATS)
    loans, books = tmp_path / "loans.json", tmp_path / "books.json"
    loans.write_text(
        '{"reader": "u", "isbn": "b", "stars": 4.0, "date": "1970-01-02 00:00:01"}\n'
    )
    books.write_text('{"isbn": "b", "name": "Café"}\n')
    raw = interactions.read_raw(raw_files.find_raw_files("auto", loans, books))
    assert raw.ratings.rows.rows() == [("u", "b", 4.0, 86_401.0)]
    assert raw.titles.rows.rows() == [("b", "Café")]


def test_example_of_a_method():
    """It names the function that adding.md shows, with what adding.md says of it."""
    from goracs_jax.selection.method import builtin

    added = eval(example("FunctionMethod(").rstrip().rstrip(","), vars(builtin))
    space = {}
    exec(blocks(PAGES["docs/adding.md"], "python")[0], space)
    shown = space["MEAN"]
    for field in ("name", "about", "needs", "weighed"):
        assert getattr(added, field) == getattr(shown, field)


def test_example_of_a_family(monkeypatch):
    import families

    from goracs_jax.models import hf_config

    space = dict(vars(hf_config))
    exec(example("def _mine"), space)
    added = eval("{" + example('"mine"') + "}", space)
    monkeypatch.setattr(hf_config, "FAMILIES", hf_config.FAMILIES | added)
    raw = families.raw_config("qwen2") | {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
    }
    read = hf_config.read_decoder_config(raw, "config.json")
    assert read.biases == ("q_proj", "k_proj", "v_proj")
