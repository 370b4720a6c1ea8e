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

    texts = [path.read_text() for path in tables.READMES]
    assert [tables.fill(text) for text in texts] == texts
    marked = [name for text in texts for _, name, _ in tables.MARKED.findall(text)]
    assert len(marked) == len(set(marked))
    assert {"demo", "games", "optimal"} <= set(marked) <= set(tables.RENDER)
    sys.modules.pop("tables")


def test_length():
    assert len(README.splitlines()) < 170


@pytest.mark.parametrize("readme", ["README.md", "benchmarks/README.md"])
def test_named_files_exist(readme):
    paths = re.findall(r"\]\((?!http)([\w./-]+)\)", (ROOT / readme).read_text())
    assert paths
    for path in paths:
        assert ((ROOT / readme).parent / path).exists(), path
