"""The first page is short, and its figures and those of all pages are measured."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_figures_are_those_of_the_json_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    texts = [path.read_text() for path in tables.pages()]
    assert [tables.fill(text) for text in texts] == texts
    marked = [name for text in texts for _, name, _ in tables.MARKED.findall(text)]
    assert len(marked) == sum(text.count("<!-- figures:") for text in texts)
    assert len(marked) == len(set(marked))
    assert set(marked) == set(tables.RENDER)
    sys.modules.pop("tables")


def test_marked_parts_are_found_in_both_readmes_and_in_docs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    (tmp_path / "docs" / "how").mkdir(parents=True)
    for page in ("docs/results.md", "docs/how/search.md", "docs/style.css"):
        (tmp_path / page).write_text("")
    found = [path.relative_to(tmp_path).as_posix() for path in tables.pages(tmp_path)]
    assert found == [
        "README.md",
        "benchmarks/README.md",
        "docs/how/search.md",
        "docs/results.md",
    ]
    sys.modules.pop("tables")


def test_two_screens():
    assert len(README.splitlines()) <= 110
    assert README.count("<!-- figures:") == 2
    assert README.count("![") == 1
    assert re.findall(r"^make (\w+)", README, re.M) == ["demo", "test"]
