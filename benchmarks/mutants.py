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
from dataclasses import asdict, dataclass
from pathlib import Path

from common import write

ROOT = Path(__file__).parents[1]
COPIED = ("goracs_jax", "tests", "benchmarks", "conftest.py", "pyproject.toml")
SECONDS = 900  # a mutant that hangs is noticed too


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old` becomes `new` somewhere in `room`, and `tests` must see it."""

    name: str
    room: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "reward added",
        "cost",
        "scaled - jnp.asarray(cost.reward)[rows][:, None]",
        "scaled + jnp.asarray(cost.reward)[rows][:, None]",
        "tests/cost",
    ),
    Mutant(
        "costs not shifted",
        "transport",
        "shifted = cost - shift if shift else cost",
        "shifted = cost",
        "tests/transport",
    ),
    Mutant(
        "potentials not shifted back",
        "transport",
        'log["u"] + shift',
        'log["u"]',
        "tests/transport",
    ),
    Mutant(
        "greedy forgets what is near",
        "selection/search",
        "jnp.minimum(state.nearest,",
        "jnp.maximum(state.nearest,",
        "tests/selection/search/test_greedy.py",
    ),
    Mutant(
        "zero weights in the matching",
        "selection/search",
        "weight[once] - weight.min() + 1.0",
        "weight[once] - weight.min()",
        "tests/selection/search/test_group_exchange.py",
    ),
    Mutant(
        "prices fall where mass lacks",
        "selection/relaxation.py",
        "lacking = wanted - got * (1 / served.parts)",
        "lacking = got * (1 / served.parts) - wanted",
        "tests/selection/test_bound.py",
    ),
    Mutant(
        "a pair keeps the dearest units",
        "selection/search",
        "jnp.minimum(rising, falling).sum(0)",
        "jnp.maximum(rising, falling).sum(0)",
        "tests/selection/search/test_annealing.py",
    ),
    Mutant(
        "units by rounding, not by chance",
        "selection/search/units.py",
        "np.floor(np.round(ends, 9) + rng.random())",
        "np.rint(ends)",
        "tests/selection/search/test_units.py",
    ),
    Mutant(
        "sweeps of the quench are not planned",
        "selection/work.py",
        "starts * (1 + plan.epochs) * plan.length",
        "starts * plan.epochs * plan.length",
        "tests/selection/test_work.py",
    ),
    Mutant(
        "a move may cost more than the limit",
        "selection/wishes",
        "allowed &= load <= wishes.limit",
        "allowed &= load <= wishes.limit + 1",
        "tests/selection/wishes/test_moves.py",
    ),
    Mutant(
        "a full group takes one more",
        "selection/wishes",
        "jnp.where(counts < most, of_any, -1)",
        "jnp.where(counts <= most, of_any, -1)",
        "tests/selection/wishes/test_moves.py",
    ),
    Mutant(
        "parts of costs rounded down",
        "selection/wishes",
        "parts = np.ceil(few / limit * top)",
        "parts = np.floor(few / limit * top)",
        "tests/selection/wishes/test_given.py",
    ),
    Mutant(
        "k-center takes the nearest",
        "selection/baselines",
        "jnp.argmax(squared)",
        "jnp.argmin(squared)",
        "tests/selection/baselines",
    ),
    Mutant(
        "itra rounds its rank down",
        "selection/itra.py",
        "rank = -(-m // n)",
        "rank = m // n",
        "tests/selection/test_itra.py",
    ),
    Mutant(
        "rounding counted the wrong way",
        "selection/values.py",
        "squared = block.cost**2 - (2 *",
        "squared = block.cost**2 + (2 *",
        "tests/selection/test_bound.py",
    ),
    Mutant(
        "rows of a class not numbered in the whole",
        "selection/by_class.py",
        "rows.append(mine[parts[-1].indices])",
        "rows.append(parts[-1].indices)",
        "tests/selection/test_by_class.py",
    ),
    Mutant(
        "the least remainder wins",
        "selection/classes.py",
        "np.lexsort((-weights, -rest))",
        "np.lexsort((-weights, rest))",
        "tests/selection/test_classes.py",
    ),
    Mutant(
        "pruned: repeated rows of the last part count",
        "selection/search/candidates.py",
        "slots[open_], halvings, ~part.fresh",
        "slots[open_], halvings, ~part.fresh & False",
        "tests/selection/search/test_group_exchange.py",
    ),
    Mutant(
        "pruned: slots that are looked at again are misnumbered",
        "selection/search/candidates.py",
        "slots[open_], halvings",
        "open_, halvings",
        "tests/selection/search/test_group_exchange.py",
    ),
    Mutant(
        "pruned: rows of a part in the order of w",
        "selection/values.py",
        "np.sort(order[:, start : start + size], axis=1)",
        "order[:, start : start + size]",
        "tests/selection/search/test_group_exchange.py",
    ),
    Mutant(
        "pruned: prices that are not those of the bounds",
        "selection/bound.py",
        "Relaxed(Seen(centre, below)",
        "Relaxed(Seen(trial, below)",
        "tests/selection/test_bound.py",
    ),
    Mutant(
        "pruned: no prices for the exchange",
        "selection/search/stages.py",
        "seen = relaxed.seen if",
        "seen = None if",
        "tests/selection/search/test_stages.py",
    ),
    Mutant(
        "pruned: means of other rows",
        "cost/factors.py",
        "reward=reward, matrix=None, row_means=None",
        "reward=reward, matrix=None",
        "tests/cost",
    ),
    Mutant(
        "pruned: one group too few",
        "selection/serving.py",
        "jax.lax.top_k(-groups.min(1), most)",
        "jax.lax.top_k(-groups.min(1), most - 1)",
        "tests/selection/test_serving.py",
    ),
    Mutant(
        "squares rescaled once",
        "llm",
        "sums.squares * keep**2",
        "sums.squares * keep",
        "tests/llm/test_loss.py",
    ),
    Mutant(
        "gradient of the other matrix",
        "llm",
        'nnx.PathContains("lora_b")',
        'nnx.PathContains("lora_a")',
        "tests/llm/test_gradients.py",
    ),
    Mutant(
        "the border token is scored",
        "llm",
        "if span[1] > answer.start",
        "if span[1] >= answer.start",
        "tests/llm/test_tokens.py",
    ),
    Mutant(
        "projections too short",
        "gradients",
        "/ dim**0.5",
        "/ dim",
        "tests/gradients/test_projection.py",
    ),
    Mutant(
        "the mask shows the next token",
        "models/attention.py",
        "past = behind >= 0",
        "past = behind >= -1",
        "tests/models/test_decoder.py",
    ),
    Mutant(
        "adapters without their scale",
        "models/lora.py",
        "self.factor * product(x, self.lora_a",
        "product(x, self.lora_a",
        "tests/models/test_decoder.py",
    ),
    Mutant(
        "merged without the scale",
        "models/lora.py",
        "astype(jnp.float32) + factor * ab",
        "astype(jnp.float32) + ab",
        "tests/models/test_merge.py",
    ),
    Mutant(
        "B is not transposed",
        "models",
        'in ("kernel", "lora_a", "lora_b")',
        'in ("kernel", "lora_a")',
        "tests/models/test_peft.py",
    ),
    Mutant(
        "rows of llama.cpp left as they are",
        "models",
        "pairs.swapaxes(1, 2).reshape(rows.shape)",
        "pairs.reshape(rows.shape)",
        "tests/models/test_weights.py",
    ),
    Mutant(
        "the newest example trains",
        "data",
        "newer = sizes - 1 - log.before[rows]",
        "newer = sizes - log.before[rows]",
        "tests/data/test_splits.py",
    ),
    Mutant(
        "dropout by the place in a micro-batch",
        "training",
        "jax.vmap(partial(jax.random.fold_in, key))(batch.rows)",
        "jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(batch.rows)))",
        "tests/training/test_step.py",
    ),
    Mutant(
        "ties against the target",
        "evaluate",
        "np.sum(distances < best, axis=1)",
        "np.sum(distances <= best, axis=1)",
        "tests/evaluate/test_metrics.py",
    ),
    Mutant(
        "beams scored by one token too few",
        "evaluate",
        "scores / (step + 1)",
        "scores / (step + 2)",
        "tests/evaluate/test_beam.py",
    ),
    Mutant(
        "variance with n in place of n - 1",
        "comparison",
        "m.var(ddof=1) / len(m)",
        "m.var() / len(m)",
        "tests/comparison/test_intervals.py",
    ),
    Mutant(
        "a pass at half its price",
        "comparison",
        "2.0 * search.passes * pairs * search.dim",
        "search.passes * pairs * search.dim",
        "tests/comparison",
    ),
    Mutant(
        "parts of other batches are taken",
        "runs",
        "if earlier.plan != plan:",
        "if False:",
        "tests/runs/test_stages.py",
    ),
    Mutant(
        "a lock that many hold",
        "files.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/test_files.py",
    ),
    Mutant(
        "an unknown bound is printed",
        "report",
        'if np.isfinite(x) else "-"',
        'if x == x else "-"',
        "tests/report/test_report.py",
    ),
    Mutant(
        "a failed computation is the user's mistake",
        "cli.py",
        "_fail(str(error), code=3)",
        "_fail(str(error))",
        "tests/verbs/test_cli.py",
    ),
    Mutant(
        "--no-flag switches on",
        "settings",
        'not str(option_string).startswith("--no-")',
        'str(option_string).startswith("--no-")',
        "tests/verbs/test_cli.py",
    ),
    Mutant(
        "rows that are left over are lost",
        "mesh.py",
        "local = -(-len(x) // mesh.size)",
        "local = len(x) // mesh.size",
        "tests/test_devices.py",
    ),
)


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
