"""The arrays that all trials of a comparison select from, made once."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.files import hash_files
from goracs_jax.jobs.score import Scores, embed_stage, listed, norms_stage, run
from goracs_jax.jobs.select_inputs import SelectInputs
from goracs_jax.runs.opened import open_models
from goracs_jax.runs.outputs import bytes_to_store, work_folder
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.settings import Compare

#: The name of each array's file, by the symbol of the array in a search.
FILES = {"x": "train", "y": "valid", "g": "norms", "e": "errors"}


class Scoring(NamedTuple):
    """A stage that all trials share, and where its arrays go."""

    cost: str  # the part of a trial's cost that it belongs to
    stage: Stage
    symbols: dict[str, str]  # the symbol of each array of the stage that is kept
    n_rows: int

    def outputs(self, folder: Path) -> dict[str, Path]:
        """Return the file of each array, by its name in the stage."""
        return {name: path_of(folder, symbol) for name, symbol in self.symbols.items()}

    def work(self, folder: Path) -> Path:
        """Return the folder of the stage while it runs."""
        first, *_ = self.outputs(folder).values()
        return work_folder(first)


class Shared(NamedTuple):
    """Arrays by symbol, the SHA-256 of their files, and the seconds that they took."""

    arrays: Arrays
    sha256: dict[str, str]
    seconds: dict[str, float]  # by part of a trial's cost

    def inputs_for(self, trial: Trial, inputs: CompareInputs) -> SelectInputs:
        """Make the inputs of one trial's selection: the arrays that it needs alone."""
        symbols = ["x", "y"]
        if "gradients" in trial.needs:
            symbols.append("g")
        if "prediction_errors" in trial.base_method.needs:
            symbols.append("e")
        return SelectInputs.of(
            {symbol: self.arrays[symbol] for symbol in symbols},
            {symbol: self.sha256[symbol] for symbol in symbols},
            inputs.train,
            inputs.classes if trial.by_label else None,
        )


def path_of(folder: Path, symbol: str) -> Path:
    """Return the file of an array in the folder that trials share."""
    return folder / f"{FILES[symbol]}.npy"


def scorings(
    settings: Compare, inputs: CompareInputs, trials: Iterable[Trial]
) -> list[Scoring]:
    """List the stages that some trials need; none is run.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        trials: The trials that are to be done.
    """
    s, scored, found = settings, inputs.training.scored, []
    needs = {need for trial in trials for need in trial.needs}
    if not any(trial.selects for trial in trials):
        return []
    # POO is reported for every choice, so embeddings are needed in any case.
    llm = s.model if "gradients" in needs or not s.encoder else None
    opened, embedder = open_models(llm, s.encoder, s.adapter, s.seed, s)
    for symbol, pool in (("x", inputs.train), ("y", inputs.valid)):
        stage = embed_stage("embeddings", pool, embedder, scored)
        rows = len(pool.examples)
        found.append(Scoring("embeddings", stage, {"embeddings": symbol}, rows))
    if "gradients" in needs and opened:
        stage = norms_stage(inputs.train, opened, "last_v_lora_b", scored)
        rows = len(inputs.train.examples)
        kept = {"norms": "g", "errors": "e"}
        found.append(Scoring("gradients", stage, kept, rows))
    return found


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
        for name, symbol in scoring.symbols.items():
            arrays[symbol] = scores.arrays[name]
            sha256[symbol] = hash_files(outputs[name])
        cost = scoring.cost
        seconds[cost] = seconds.get(cost, 0.0) + scores.seconds
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
