"""The arrays that the trials of a comparison select from, made once."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from goracs_jax.comparison.charges import Sizes
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs, adapter_seed
from goracs_jax.files import digest, hash_files
from goracs_jax.jobs.score import Scores, embed_stage, listed, norms_stage, run
from goracs_jax.jobs.select_inputs import SelectInputs
from goracs_jax.runs.opened import open_encoder, open_llm
from goracs_jax.runs.outputs import bytes_to_store, work_folder
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.settings import Compare


class Scoring(NamedTuple):
    """A stage that trials share, and where its arrays go."""

    cost: str  # the part of a trial's cost that it belongs to
    stage: Stage
    files: dict[str, str]  # the name of each array of the stage that is kept: its file
    n_rows: int

    def outputs(self, folder: Path) -> dict[str, Path]:
        """Return the file of each array, by its name in the stage."""
        return {name: folder / file for name, file in self.files.items()}

    def work(self, folder: Path) -> Path:
        """Return the folder of the stage while it runs."""
        first, *_ = self.outputs(folder).values()
        return work_folder(first)


class Shared(NamedTuple):
    """Arrays by file, the SHA-256 of each, and the seconds that each pass took."""

    arrays: Arrays
    sha256: dict[str, str]
    seconds: dict[str, float]  # by a file of the pass

    def inputs_for(
        self, settings: Compare, trial: Trial, inputs: CompareInputs
    ) -> SelectInputs:
        """Make the inputs of a trial's selection: what its seed draws, as it needs."""
        drawn, own = inputs.draws[trial.seed], adapter_seed(settings, trial)
        rows_of = {"x": drawn.train_rows, "y": drawn.valid_rows}
        if own is None:  # the pass over the whole pool
            rows_of |= {"g": drawn.train_rows, "e": drawn.train_rows}
        arrays, sha256 = {}, {}
        for symbol, file in files_of(settings, trial).items():
            array, sha = self.arrays[file], self.sha256[file]
            rows = rows_of.get(symbol)
            arrays[symbol] = array if rows is None else array[rows]
            sha256[symbol] = sha if rows is None else digest([sha, rows.tolist()])
        classes = drawn.classes if trial.arm.by_label else None
        return SelectInputs.of(arrays, sha256, drawn.train, classes)

    def seconds_of(
        self, settings: Compare, trial: Trial, whole: Sizes, drawn: Sizes
    ) -> dict[str, float]:
        """Return what a trial's share of each pass took, by tokens.

        Args:
            settings: The flags of the comparison.
            trial: The trial.
            whole: The sizes of all examples.
            drawn: The sizes of those that the seed draws.
        """
        found: dict[str, float] = {}
        if not trial.needs:
            return found
        files = files_of(settings, trial)
        if "embeddings" in trial.needs:
            share = drawn.embedded.sum() / whole.embedded.sum()
            both = self.seconds[files["x"]] + self.seconds[files["y"]]
            found["embeddings"] = float(both * share)
        if "gradients" in trial.needs:
            share = drawn.train.tokens.sum() / whole.train.tokens.sum()
            seconds = self.seconds[files["g"]]
            own = adapter_seed(settings, trial) is not None
            found["gradients"] = seconds if own else float(seconds * share)
        return found


def files_of(settings: Compare, trial: Trial) -> dict[str, str]:
    """Name the file of each array that a trial selects from, by its symbol."""
    found = {"x": "train.npy", "y": "valid.npy"}
    names = norms_files(adapter_seed(settings, trial))
    if "gradients" in trial.needs:
        found["g"] = names["norms"]
    if "prediction_errors" in trial.arm.record.needs:
        found["e"] = names["errors"]
    return found


def norms_files(seed: int | None) -> dict[str, str]:
    """Name the files of a gradient pass, with the seed of an adapter of its own.

    >>> norms_files(None)["norms"], norms_files(3)["norms"]
    ('norms.npy', 'norms-3.npy')
    """
    ending = ".npy" if seed is None else f"-{seed}.npy"
    return {name: name + ending for name in ("norms", "errors")}


def scorings(
    settings: Compare, inputs: CompareInputs, trials: Sequence[Trial]
) -> Iterator[Scoring]:
    """Yield the stages that some trials need; none is run.

    Each opens its model anew, so that one model at a time is in memory.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        trials: The trials that are to be done.
    """
    # POO is reported for every choice, so embeddings are needed in any case.
    if any(trial.selects for trial in trials):
        yield from _embeddings(settings, inputs)
    ranked = [trial for trial in trials if "gradients" in trial.needs]
    for seed in dict.fromkeys(adapter_seed(settings, trial) for trial in ranked):
        yield _gradients(settings, inputs, seed)


def _embeddings(s: Compare, inputs: CompareInputs) -> Iterator[Scoring]:
    embedder = (
        open_encoder(s.encoder)
        if s.encoder
        else open_llm(s.model, s.adapter, s.seed, s)
    )
    for file, pool in (("train.npy", inputs.train), ("valid.npy", inputs.valid)):
        stage = embed_stage("embeddings", pool, embedder, inputs.training.scored)
        rows = len(pool.examples)
        yield Scoring("embeddings", stage, {"embeddings": file}, rows)


def _gradients(s: Compare, inputs: CompareInputs, seed: int | None) -> Scoring:
    """Make the pass with a given adapter, or over what a seed draws with its own."""
    pool = inputs.train if seed is None else inputs.draws[seed].train
    llm = open_llm(s.model, s.adapter, s.seed if seed is None else seed, s)
    stage = norms_stage(pool, llm, "last_v_lora_b", inputs.training.scored)
    return Scoring("gradients", stage, norms_files(seed), len(pool.examples))


def compute(found: Iterable[Scoring], folder: Path) -> Shared:
    """Run the stages that are not done, and map all arrays into memory.

    Args:
        found: The stages.
        folder: Where their arrays are kept.
    """
    arrays, sha256, seconds = {}, {}, {}
    for scoring in found:
        outputs = scoring.outputs(folder)
        needed = bytes_to_store(scoring.n_rows)
        scores = run(scoring.stage, outputs, scoring.work(folder), needed)
        for name, file in scoring.files.items():
            arrays[file] = scores.arrays[name]
            sha256[file] = hash_files(outputs[name])
            seconds[file] = scores.seconds
    return Shared(arrays, sha256, seconds)


def say_plan(found: Iterable[Scoring], folder: Path) -> None:
    """Say which of the stages are done."""
    for scoring in found:
        outputs = scoring.outputs(folder)
        if Scores.load(outputs, scoring.stage):
            say(f"{listed(outputs)} already done.")
        else:
            say(
                f"{scoring.stage.name} of {scoring.n_rows} examples: to do, into "
                f"{listed(outputs)}"
            )
