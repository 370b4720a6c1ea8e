"""What is published: the wheel, the source archive, and what describes them."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOM = 1 << 20  # bytes of either archive: figures of the benchmarks would not fit


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = ["-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, archive


def test_wheel_holds_the_package_alone(built):
    wheel, _ = built
    assert wheel.stat().st_size < ROOM
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        metadata = next(name for name in names if name.endswith("/METADATA"))
        described = Parser().parsestr(opened.read(metadata).decode())
    info = f"goracs_jax-{PROJECT['version']}.dist-info/"
    package = {name for name in names if not name.startswith(info)}
    assert package == {"goracs_jax/py.typed"} | {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "goracs_jax").rglob("*.py")
    }
    assert info + "licenses/LICENSE" in names
    assert described["License-Expression"] == "Apache-2.0"
    assert described["Requires-Python"] == PROJECT["requires-python"]


def test_source_archive_builds_the_same_wheel_and_holds_no_figures(built):
    _, archive = built
    assert archive.stat().st_size < ROOM
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    texts = {name for name in names if not name.startswith("goracs_jax/")}
    assert texts == {
        *("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt"),
        *(".gitignore", "PKG-INFO", "pyproject.toml"),
    }
    assert {"goracs_jax/__init__.py", "goracs_jax/py.typed"} <= names


def test_every_requirement_of_an_extra_is_pinned():
    """A name without a pin would be another version on another day."""
    plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
    pins = {
        plain(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"]]
    listed += [name for key in ("dev", "docs", "parity") for name in extras[key]]
    assert {plain(re.match(r"[\w.-]+", name)[0]) for name in listed} <= pins


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        *("Mei", "Chen", "Yu", "Liang", "Yang")
    ]
    assert paper["identifiers"][0]["value"] == "arXiv:2506.04015"


def test_changelog_has_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[?([\w.]+)", changes, re.MULTILINE)
    assert "Unreleased" in versions[0] or versions[0] == PROJECT["version"]
    assert PROJECT["version"] in versions
