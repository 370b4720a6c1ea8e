import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_runs_as_it_stands(code):
    exec(compile(code, "README.md", "exec"), {})


def test_figures_are_those_of_the_json_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    assert tables.fill(README) == README
    assert len(tables.MARKED.findall(README)) == len(tables.RENDER)
    sys.modules.pop("tables")


def test_length():
    assert len(README.splitlines()) < 150


def test_named_files_exist():
    for path in re.findall(r"\]\((?!http)([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
