"""Write every figure of the READMEs and of docs/ from the JSON files in results/.

    python benchmarks/tables.py

In each page, the lines between `<!-- figures: NAME -->` and `<!-- end -->` are replaced
by what RENDER[NAME] returns.
"""

import re
from pathlib import Path

from tables_accelerator import accelerators
from tables_adapters import adapters
from tables_ahead import ahead, launches
from tables_chats import templates, tokenizers
from tables_checks import checks
from tables_engine import builds, efforts, stages
from tables_families import families
from tables_kernels import kernels
from tables_layers import layers
from tables_passes import (
    compiled,
    demo,
    evaluation,
    finetune,
    gradients,
    limits,
    prepare,
    proxy,
)
from tables_project import mutants, startup
from tables_retired import reasons, retired
from tables_selection import games, optimal, sizes, suite, sweep, transport
from tables_trainers import trainers
from testbeds_table import helps, testbeds

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

RENDER = {
    "demo": demo,
    "games": games,
    "optimal": optimal,
    "builds": builds,
    "efforts": efforts,
    "stages": stages,
    "suite": suite,
    "sizes": sizes,
    "transport": transport,
    "sweep": sweep,
    "gradients": gradients,
    "limits": limits,
    "compiled": compiled,
    "kernels": kernels,
    "proxy": proxy,
    "finetune": finetune,
    "layers": layers,
    "evaluation": evaluation,
    "prepare": prepare,
    "retired": retired,
    "reasons": reasons,
    "startup": startup,
    "mutants": mutants,
    "adapters": adapters,
    "ahead": ahead,
    "launches": launches,
    "accelerators": accelerators,
    "families": families,
    "templates": templates,
    "tokenizers": tokenizers,
    "trainers": trainers,
    "testbeds": testbeds,
    "helps": helps,
    "checks": checks,
}


def pages(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files whose marked parts are filled: READMEs and docs/."""
    readmes = [root / "README.md", root / "benchmarks" / "README.md"]
    return readmes + sorted((root / "docs").rglob("*.md"))


def fill(text: str) -> str:
    """Return the text with every marked part made anew."""
    return MARKED.sub(lambda m: f"{m[1]}{RENDER[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    for page in pages():
        page.write_text(fill(page.read_text()))
