"""From raw interactions to examples: read, clean, split, and write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.table import Table

from goracs_jax.choices import Order
from goracs_jax.data.examples import write_jsonl
from goracs_jax.data.interactions import CleaningStep, Raw, in_order, read_raw, tidy
from goracs_jax.data.negatives import check_negatives, draw_negatives
from goracs_jax.data.raw_files import RawFiles
from goracs_jax.data.records import Wording, item_records, records, with_negatives
from goracs_jax.data.splits import (
    Log,
    Split,
    leave_one_out,
    make_log,
    split_by_time,
    training_rows,
)
from goracs_jax.errors import InputError
from goracs_jax.files import hash_files, together, write_json
from goracs_jax.inputs.parts import hash_input, mib_of
from goracs_jax.jobs.leakage import Leaked, Watch, texts_of
from goracs_jax.runs.progress import progress
from goracs_jax.runs.say import say, waiting
from goracs_jax.settings.common import Leaks
from goracs_jax.settings.outputs import EXAMPLES, MANIFEST


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How interactions become examples."""

    wording: Wording
    template: Path | None  # the file of the wording's template
    split: Literal["global", "leave-one-out"]
    valid: int | float  # examples, or their share, of a global split
    test: int | float
    min_history: int  # earlier items that an example needs
    order: Order  # what orders the interactions
    core: int  # interactions that a user and an item need
    repeats: Literal["drop", "keep"]  # of a user with an item
    negatives: int  # items drawn beside each target of seqrec
    max_bad: float  # the share of lines that may be unreadable
    seed: int
    leaks: Leaks  # what is done with copies of validation and test


class Prepared(NamedTuple):
    """A cleaned log of interactions, split into examples."""

    files: RawFiles
    config: PrepareConfig
    raw: Raw
    steps: Sequence[CleaningStep]
    log: Log
    split: Split

    def save(self, out: Path, made: Mapping[str, Any]) -> None:
        """Write the examples, the items and the manifest, all of them or none.

        Args:
            out: The folder.
            made: What made them: settings, versions and machine, as `made_by` gives it.
        """
        self.show()
        with together(out, (*EXAMPLES, MANIFEST), seal=MANIFEST) as new:
            leaked = self._write(new, made)
        say(leaked.text)
        sizes = [*map(len, self.split), len(self.log.item_ids)]
        sizes[0] -= leaked.dropped
        written = [f"{name} ({n:,})" for name, n in zip(EXAMPLES, sizes, strict=True)]
        say(f"{out}: {', '.join([*written, MANIFEST])}")

    def show(self) -> None:
        """Show what each cleaning step left."""
        say(_table(self.steps))

    def leaked(self) -> Leaked:
        """Count the training examples that copy others; nothing is written."""
        watch = self._watch()
        for _ in watch.passing(records(self.log, self.split.train, self._wording)):
            pass
        return watch.found

    @property
    def _wording(self) -> Wording:
        return self.config.wording

    def _watch(self) -> Watch:
        """Make what counts the copies of validation and test examples."""
        known = {"validation": self.split.valid, "test": self.split.test}
        made = {n: records(self.log, rows, self._wording) for n, rows in known.items()}
        texts = {name: map(texts_of, found) for name, found in made.items()}
        return Watch(texts, self.config.leaks)

    def _write(self, out: Path, made: Mapping[str, Any]) -> Leaked:
        parts, watch = self.split._asdict(), self._watch()
        examples = _examples(self.log, self.split, self.config)
        examples["train"] = watch.passing(examples["train"])
        with progress() as bar:
            for part, rows in parts.items():
                tracked = bar.track(examples[part], total=len(rows), description=part)
                write_jsonl(out / f"{part}.jsonl", tracked)
        leaked = watch.found
        sizes = {part: len(rows) for part, rows in parts.items()}
        sizes["train"] -= leaked.dropped
        known = training_rows(self.log, self.split)
        write_jsonl(out / "items.jsonl", item_records(self.log, known))
        with waiting("hashes"):
            hashed = {
                "inputs": self._inputs(),
                "outputs": {name: hash_files(out / name) for name in EXAMPLES},
            }
        manifest = {
            **made,
            "format": self.files.name,
            "columns": self.files.columns._asdict(),
            "inputs": hashed["inputs"],
            "steps": [step._asdict() for step in self.steps],
            "examples": sizes,
            "leakage": leaked._asdict(),
            "items": len(self.log.item_ids),
            "outputs": hashed["outputs"],
        }
        write_json(out / MANIFEST, manifest)
        return leaked

    def _inputs(self) -> dict[str, dict[str, Any]]:
        paths = {"ratings": self.files.ratings, "titles": self.files.titles}
        if self.config.template:
            paths["template"] = self.config.template
        inputs: dict[str, dict[str, Any]] = {
            name: {"file": str(path), "sha256": hash_input(path)}
            for name, path in paths.items()
        }
        for name, reading in self.raw._asdict().items():
            inputs[name] |= {
                "lines": reading.lines,
                "bad": reading.bad,
                "first_bad": reading.first,
            }
        return inputs


def run(files: RawFiles, config: PrepareConfig) -> Prepared:
    """Read, clean and split raw interactions; nothing is written.

    Args:
        files: The raw files.
        config: How they become examples.

    Raises:
        InputError: Too many lines are unreadable, or too little is left.
    """
    raw = _read(files, config.max_bad)
    tidied = tidy(
        in_order(raw.ratings.rows, config.order, config.seed),
        raw.titles.rows,
        rated=config.wording.task == "ctr",
        repeats=config.repeats == "keep",
        core=config.core,
    )
    log = _unquote(make_log(tidied.table), config.wording)
    if config.wording.task == "ctr":
        _check_labels(log, config.wording.like_above)
    if config.split == "leave-one-out":
        split = leave_one_out(log, min_history=config.min_history)
    else:
        sizes = {"valid": config.valid, "test": config.test}
        split = split_by_time(log, **sizes, min_history=config.min_history)
    if config.wording.task == "seqrec":
        for rows in (split.valid, split.test):
            check_negatives(log, rows, config.negatives)
    return Prepared(files, config, raw, tidied.steps, log, split)


def _check_labels(log: Log, like_above: float) -> None:
    """Refuse ratings that are all on one side of what counts as liked."""
    low, high = log.rating.min(), log.rating.max()
    if not low <= like_above < high:
        cure = "take --task seqrec: there is nothing to tell apart"
        if low < high:
            cure = f"set --like-above to a number in [{low:g}, {high:g})"
        raise InputError(
            f"all ratings lie in [{low:g}, {high:g}], on one side of --like-above "
            f"{like_above:g}: {cure}."
        )


def _read(files: RawFiles, max_bad: float) -> Raw:
    paths = (files.ratings, files.titles)
    mib = sum(map(mib_of, paths))
    with progress() as bar:
        task = bar.add_task("MiB read", total=mib)
        tell = lambda done: bar.update(task, completed=done)
        raw = read_raw(files, max_bad, tell)
    for path, reading in zip(paths, raw, strict=True):
        if reading.bad:
            say(
                f"{path}: {reading.bad:,} of {reading.lines:,} lines skipped: "
                f"{'; '.join(reading.first)}"
            )
    return raw


def _unquote(log: Log, wording: Wording) -> Log:
    """Replace, inside titles, the character that ends a title in an answer."""
    quote = wording.texts.quote
    other = "\u2019" if quote == "'" else "'"
    count = sum(quote in title for title in log.titles) if quote else 0
    if not count:
        return log
    say(f"{quote} ends a title: inside {count:,} of them it is written {other}")
    return log._replace(titles=[title.replace(quote, other) for title in log.titles])


def _examples(log: Log, split: Split, config: PrepareConfig) -> dict[str, Any]:
    """Make the records of each part; for seqrec, two of them get negatives."""
    wording, parts = config.wording, split._asdict()
    made = {part: records(log, rows, wording) for part, rows in parts.items()}
    if wording.task == "seqrec":
        # Each part has random numbers of its own, so that the size of one does not
        # change the negatives of the other.
        rngs = np.random.default_rng(config.seed).spawn(2)
        for part, rng in zip(("valid", "test"), rngs, strict=True):
            drawn = draw_negatives(log, parts[part], config.negatives, rng=rng)
            made[part] = with_negatives(log, made[part], drawn)
    return made


def _table(steps: Sequence[CleaningStep]) -> Table:
    """Make the table of what each cleaning step left, for the terminal."""
    table = Table()
    for i, name in enumerate(CleaningStep._fields):
        table.add_column(name, justify="right" if i else "left")
    for step, *counts in steps:
        table.add_row(step, *(f"{count:,}" for count in counts))
    return table
