"""Mutants: does the suite still notice what it noticed?

Each mutant is one small mistake in one room, and the tests that must see it. One at a
time is written into a copy of the repository, and its tests are run with `-x`: they
must fail. The mutated text is looked for in the whole room and must be there exactly
once, so code that moves inside its room takes its mutant along, and code that is
rewritten asks for a new one.

    python benchmarks/mutants.py              # all, into results/mutants.json
    python benchmarks/mutants.py greedy mask  # those by name, nothing written

All tests that are named are also run on the unchanged copy first: a test that fails
anyway would kill nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from common import write
from mutants_list import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
COPIED = ("goracs_jax", "tests", "benchmarks", "conftest.py", "pyproject.toml")
SECONDS = 900  # a mutant that hangs is noticed too


def place(package: Path, mutant: Mutant) -> Path:
    """The only file of the room that has the text, exactly once.

    Raises:
        SystemExit: There is none, or more than one place.
    """
    room = package / mutant.room
    files = [room] if room.is_file() else sorted(room.rglob("*.py"))
    found = {file: file.read_text().count(mutant.old) for file in files}
    if sum(found.values()) != 1:
        places = [f"{file.name} ({n})" for file, n in found.items() if n]
        raise SystemExit(
            f"mutant {mutant.name!r}: {mutant.old!r} must be in goracs_jax/"
            f"{mutant.room} once, found in {', '.join(places) or 'no file'}: choose "
            "another text."
        )
    return next(file for file, n in found.items() if n)


def run_tests(folder: Path, tests: list[str]) -> tuple[int, str, float]:
    """Exit code of pytest, its last lines and seconds."""
    started = time.perf_counter()
    # Nothing compiled for one mutant may be read by another: a folder for each.
    environment = {k: v for k, v in os.environ.items() if "CACHE_DIR" not in k}
    environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, text = 1, f"not done after {SECONDS} s"
    return code, text, time.perf_counter() - started


def try_mutant(folder: Path, mutant: Mutant) -> dict:
    """Mutate the copy, run the tests, put the file back."""
    file = place(folder / "goracs_jax", mutant)
    whole = file.read_text()
    file.write_text(whole.replace(mutant.old, mutant.new))
    try:
        code, text, seconds = run_tests(folder, [mutant.tests])
    finally:
        file.write_text(whole)
    if code not in (0, 1):  # a test that does not even start sees nothing
        raise SystemExit(f"mutant {mutant.name!r}: pytest ended with {code}:\n{text}")
    failed = [line for line in text.splitlines() if line.startswith("FAILED")]
    return {
        **asdict(mutant),
        "file": str(file.relative_to(folder)),
        "killed": code == 1,
        "by": failed[0].split()[1] if failed else None,
        "seconds": round(seconds, 1),
    }


def main(wanted: list[str]) -> int:
    """Try the mutants whose name has one of the words; all without words."""
    chosen = [m for m in MUTANTS if not wanted or any(w in m.name for w in wanted)]
    for mutant in MUTANTS:
        place(ROOT / "goracs_jax", mutant)  # all are there, before anything runs
    results = []
    with tempfile.TemporaryDirectory(prefix="goracs-mutants-") as name:
        folder = Path(name)
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        tests = sorted({mutant.tests for mutant in chosen})
        code, text, seconds = run_tests(folder, tests)
        if code:
            raise SystemExit(f"without a mutant the tests fail:\n{text}")
        print(f"{seconds:6.1f} s  no mutant: all pass", flush=True)
        for mutant in chosen:
            result = try_mutant(folder, mutant)
            outcome = "killed" if result["killed"] else "SURVIVED"
            print(f"{result['seconds']:6.1f} s  {outcome}  {mutant.name}", flush=True)
            results.append(result)
    survivors = [result["name"] for result in results if not result["killed"]]
    if not wanted:
        figures = {"killed": len(results) - len(survivors), "mutants": results}
        print(write("mutants", figures))
    print(json.dumps({"tried": len(results), "survived": survivors}))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
