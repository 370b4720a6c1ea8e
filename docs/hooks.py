"""What `mkdocs build` does beyond its plugins.

- Pages of the repository become pages of the site, with their pictures; README.md is
  the home page. There is one copy of each, which reads well in both places.
- A marker such as `<!-- help: select -->` becomes the text of `goracs select --help`.
- A block of language math becomes MathML, which browsers show without a script.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Name in the site: name in the repository.
PAGES = {
    "index.md": "README.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE",
    "benchmarks/README.md": "benchmarks/README.md",
}
PICTURES = "benchmarks/results/*.png"
HELP = re.compile(r"<!-- help: ([a-z]+) -->")


def on_config(config: MkDocsConfig) -> None:
    """Add the formatter of math blocks."""
    fence = {"name": "math", "class": "math", "format": _math}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages and pictures that stand outside docs/."""
    pictures = (path.relative_to(ROOT).as_posix() for path in ROOT.glob(PICTURES))
    for name, source in (PAGES | {name: name for name in pictures}).items():
        path = str(ROOT / source)
        files.append(File.generated(config, name, abs_src_path=path))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between repository and docs/ into links of the site, and add help."""
    if page.file.src_uri != "benchmarks/README.md":
        markdown = markdown.replace("](../README.md", "](index.md")
        markdown = re.sub(r"\]\((docs|\.\.)/", "](", markdown)
    return HELP.sub(lambda match: f"```text\n{_help(match[1])}\n```", markdown)


def _help(verb: str) -> str:
    """Return what `goracs VERB --help` prints on a terminal of 80 columns."""
    command = [sys.executable, "-m", "goracs_jax", verb, "--help"]
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    printed = subprocess.run(
        command, cwd=ROOT, env=os.environ | plain, capture_output=True, text=True
    )
    if printed.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: {printed.stderr}")
    return "\n".join(line.rstrip() for line in printed.stdout.strip().splitlines())


def _math(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="math">{convert(source, display="block")}</div>'
