"""The arrays that the trials of a comparison select from, made once."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from goracs_jax.comparison.charges import Sizes
from goracs_jax.comparison.design import COSTS, Trial
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.files import digest, hash_files
from goracs_jax.jobs.rows import Sources
from goracs_jax.jobs.score import Scores, listed, run
from goracs_jax.jobs.select_config import LLM_SOURCES
from goracs_jax.jobs.select_inputs import SelectInputs
from goracs_jax.llm.lower import LowerTable
from goracs_jax.runs.opened import Pool, open_encoder, open_llm
from goracs_jax.runs.outputs import bytes_to_store, work_folder
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.settings import Compare

#: Passes that give rows of both sets.
SOURCES = ("text", *LLM_SOURCES)


class Scoring(NamedTuple):
    """A stage that trials share, and where its arrays go."""

    stage: Stage
    files: dict[str, str]  # the name of each array of the stage that is kept: its file
    pool: Pool

    @property
    def n_rows(self) -> int:
        """The number of rows of each array."""
        return len(self.pool.examples)

    def outputs(self, folder: Path) -> dict[str, Path]:
        """Return the file of each array, by its name in the stage."""
        return {name: folder / file for name, file in self.files.items()}

    def work(self, folder: Path) -> Path:
        """Return the folder of the stage while it runs."""
        first, *_ = self.outputs(folder).values()
        return work_folder(first)


class Shared(NamedTuple):
    """Arrays by file, the SHA-256 of each, and the seconds that each pass took.

    `lower` is what the layers below all adapters make of the texts.
    """

    arrays: Arrays
    sha256: dict[str, str]
    seconds: dict[str, float]  # by a file of the pass
    lower: LowerTable | None = None

    def inputs_for(
        self, settings: Compare, trial: Trial, inputs: CompareInputs
    ) -> SelectInputs:
        """Make the inputs of a trial's selection: what its seed draws, as it needs."""
        drawn = inputs.draws[trial.seed]
        arrays, sha256 = {}, {}
        for symbol, (file, seed) in files_of(settings, trial).items():
            array, sha = self.arrays[file], self.sha256[file]
            # A pass of the seed's own went over what it draws.
            whole = drawn.valid_rows if symbol[0] == "y" else drawn.train_rows
            rows = whole if seed is None else None
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
        shares = {
            "embeddings": drawn.embedded.sum() / whole.embedded.sum(),
            "gradients": drawn.train.tokens.sum() / whole.train.tokens.sum(),
        }
        found: dict[str, float] = {}
        for name in trial.paid:
            seed = seed_of(settings, trial, name)
            share = float(shares[COSTS[name]]) if seed is None else 1.0
            # Norms and errors are two files of one pass.
            files = list(pass_files(name, seed).values())[: 2 if name in SOURCES else 1]
            seconds = share * sum(self.seconds[file] for file in files)
            found[COSTS[name]] = found.get(COSTS[name], 0.0) + seconds
        return found


class Kept(NamedTuple):
    """The file of an array, and the seed whose own pass made it, if one did."""

    file: str
    seed: int | None


def seed_of(settings: Compare, trial: Trial, name: str) -> int | None:
    """Return the seed that a pass belongs to; None if it goes over all examples.

    Embeddings are the same for all seeds. A fresh adapter is drawn by the seed, which
    changes gradients and their norms, but no prediction error. The pass of the first
    seed goes over all examples, unless the seed draws a pool of its own. Subspace and
    loss drop depend on the validation examples that the seed draws.

    Args:
        settings: The flags of the comparison.
        trial: The trial.
        name: One of its `passes`.
    """
    s = settings
    if name in ("subspace", "loss-drop"):
        return trial.seed
    trained = s.adapter is not None or s.adapter_from_pool is not None
    by_adapter = name == "gradient" or (name == "norms" and trial.config.by_norms)
    first = trial.seed == s.seed and s.draw_train is None
    return trial.seed if by_adapter and not trained and not first else None


def pass_files(name: str, seed: int | None) -> dict[str, str]:
    """Name the file of each side, or array, of a pass, with the seed it belongs to.

    >>> pass_files("text", None), pass_files("gradient", 3)["train"]
    ({'train': 'train.npy', 'valid': 'valid.npy'}, 'gradient-train-3.npy')
    >>> pass_files("norms", None)
    {'norms': 'norms.npy', 'errors': 'errors.npy'}
    """
    end = ".npy" if seed is None else f"-{seed}.npy"
    if name == "norms":
        return {array: array + end for array in ("norms", "errors")}
    if name == "loss-drop":
        return {"rewards": name + end}
    start = "" if name == "text" else f"{name}-"
    return {side: start + side + end for side in ("train", "valid")}


def files_of(settings: Compare, trial: Trial) -> dict[str, Kept]:
    """Find the file of each array that a trial selects from, by its symbol."""
    found, config = {}, trial.config
    for name in trial.passes:
        seed = seed_of(settings, trial, name)
        files = pass_files(name, seed).values()
        if name == "norms":
            needs = config.method.needs
            read = (config.by_norms, "prediction_errors" in needs)
            symbols = [s for s, is_read in zip("ge", read, strict=True) if is_read]
            files = [f for f, is_read in zip(files, read, strict=True) if is_read]
        else:
            symbols = ["r"] if name == "loss-drop" else config.symbols[name]
        for symbol, file in zip(symbols, files, strict=True):
            found[symbol] = Kept(file, seed)
    return found


def scorings(
    settings: Compare, inputs: CompareInputs, trials: Iterable[Trial]
) -> Iterator[Scoring]:
    """Yield the stages that some trials need; none is run.

    Each pass opens its model anew, so that one model at a time is in memory.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        trials: The trials that are to be done.
    """
    passes = dict.fromkeys(
        (name, seed_of(settings, trial, name))
        for trial in trials
        for name in trial.passes
    )
    for name, seed in passes:
        yield from _scorings(settings, inputs, name, seed)


def _scorings(
    s: Compare, inputs: CompareInputs, name: str, seed: int | None
) -> Iterator[Scoring]:
    """Make the stages of a pass: over all examples, or over what a seed draws."""
    drawn = inputs if seed is None else inputs.draws[seed]
    train, valid = drawn.train, drawn.valid
    pools = {"train": train, "valid": valid}
    files, own = pass_files(name, seed), s.seed if seed is None else seed
    if name == "text" and s.encoder:
        llm, embedder = None, open_encoder(s.encoder)
    else:
        embedder = llm = open_llm(s.model, s.adapter, own, s, template=s.template)
    rest = (inputs.training.scored, s.out / "shared", own)
    made = Sources.of(s, (train, valid), embedder, llm, *rest)
    if s.adapter_from_pool is not None and name != "text":
        _, made = made.warmed(s, inputs.train, s.adapter_from_pool, s.seed)
    if name in SOURCES:
        array = "embeddings" if COSTS[name] == "embeddings" else "projections"
        for side, stage in zip(("train", "valid"), made.sides(name)[:2], strict=True):
            assert isinstance(stage, Stage)
            yield Scoring(stage, {array: files[side]}, pools[side])
    else:
        stage = made.norms if name == "norms" else made.loss_drop()[1]
        yield Scoring(stage, files, train)


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
        given = (scoring.work(folder), needed, scoring.pool)
        scores = run(scoring.stage, outputs, *given)
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
