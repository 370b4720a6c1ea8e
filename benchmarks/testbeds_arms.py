"""What each arm of a testbed chooses: rows of the pool that a seed has drawn."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from testbeds_features import embed, gradients, save
from testbeds_pools import BUDGET, Drawn, Universe
from testbeds_training import Trainer

import goracs_jax as gx
from goracs_jax.check.planted import MOST_CLASSES, neighbour_distances
from goracs_jax.comparison.design import FULL, Trial
from goracs_jax.errors import InputError
from goracs_jax.evaluate.metrics import auc_values
from goracs_jax.files import digest, hash_files
from goracs_jax.selection.classes import class_budgets, make_classes

ORACLE, RANDOM = "oracle", "random"
#: Arms that choose by nothing that the target tells.
BLIND = (ORACLE, RANDOM, FULL)
#: Sources that are made where they are missing.
MADE = {"text": embed, "gradient": gradients}
#: So are those that a trainer makes: mean states of prompts, and the loss drops of the
#: pool that a seed draws, whose number follows.
PROMPTS, DROPS = "prompts", "drops-"
Rows = Int[np.ndarray, " chosen"]


class Choice(NamedTuple):
    """What a choice depends on beside its arm and seed."""

    universe: Universe
    drawn: Drawn
    features: Path  # the folder of SOURCE.npz
    lambda_: float
    budget: int = BUDGET
    trainer: Callable[[], Trainer] | None = None  # makes sources that are missing

    def rows(self, arm: str, seed: int) -> Rows:
        """Choose rows, as numbers of the universe's pool; `full` takes all of them."""
        pool = self.drawn.pool
        if arm == FULL:
            return pool
        if arm in (RANDOM, ORACLE):
            order = np.random.default_rng(seed).permutation(len(pool))
            if arm == ORACLE:
                order = order[self.universe.planted[pool[order]]]
                mine, theirs = self._answers()
                if len(set(theirs)) <= MOST_CLASSES:  # titles are no classes
                    order = _in_classes(order, mine, theirs, self.budget)
            return np.sort(pool[order[: self.budget]])
        trial = self._trial(arm, seed)
        x, y, given = self._given(trial)
        found = gx.goracs(
            *(x, y),
            budget=self.budget,
            method=trial.config.method,
            lambda_=trial.config.lambdas[0],
            key=jax.random.key(seed),
            **given,
        )
        return pool[found.indices]

    def found(self, arm: str, seed: int) -> dict[str, float]:
        """Return the AUC of the planted rows by what the arm goes by.

        That is the nearness in its space (the mean distance to the ten nearest rows of
        the target), and its reward, if it has one; the blind arms go by neither.
        Where the arm chooses inside classes, pairs of rows of one class count. For a
        probe, also what it knows by itself, of the judge's rows.
        """
        if arm in BLIND:
            return {}
        trial = self._trial(arm, seed)
        x, y, given = self._given(trial)
        classes = None
        if trial.arm.by_label:
            classes = make_classes(*self._answers(), (len(x), len(y)))
        scores = {"nearness": -neighbour_distances(x, y, classes)}
        for name in ("rewards", "grad_norms"):
            if name in given:
                scores["reward"] = given[name]
        found = self._of_probe() if trial.config.reward.kind == "probe" else {}
        planted = self.universe.planted[self.drawn.pool]
        strata = np.zeros(len(x), int) if classes is None else classes.train
        for name, each in scores.items():
            found[name] = _area(planted, each, strata)
        return found

    def _of_probe(self) -> dict[str, float]:
        """Return the AUC on the judge's rows of the probe of the target alone."""
        states = self._read(PROMPTS)["valid"]
        yes = np.array([record["output"] == "Yes" for record in self.universe.held])
        judge, target = self.drawn.judge, self.drawn.target
        always = np.ones(len(judge), bool)  # how well the answer Yes agrees
        z = gx.probe(states[judge], states[target], always, yes[target])
        return {"probe": float(auc_values(yes[judge], z).mean())}

    def _given(self, trial: Trial) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Return both sides in the space of a trial, and classes and rewards."""
        config, (mine, theirs) = trial.config, self._answers()
        classes = {"train_labels": mine, "valid_labels": theirs}
        labels = classes if trial.arm.by_label else {}
        given: dict[str, Any] = dict(labels)
        if source := config.reward_source:
            classes = (mine, theirs) if labels else None
            given["rewards"] = config.reward.of(*self._sides(source), classes)
        if config.by_loss_drop:
            given["rewards"] = self._read(f"{DROPS}{trial.seed}")["rewards"]
        if config.by_norms:
            given["grad_norms"] = self._read("gradient")["norms"][self.drawn.pool]
        x, y = config.space.of([self._sides(part.name) for part in config.space.parts])
        return x, y, given

    def _answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the answers of the pool, and those of the target."""
        of = lambda records, rows: np.array([records[row]["output"] for row in rows])
        u, drawn = self.universe, self.drawn
        return of(u.pool, drawn.pool), of(u.held, drawn.target)

    def depends_on(self, arm: str, seed: int) -> dict[str, Any]:
        """Return lambda, where it weighs, and the features that the arm reads."""
        if arm in BLIND:
            return {"lambda": None, "features": []}
        trial = self._trial(arm, seed)
        sources = {*trial.config.symbols}
        sources |= {"gradient"} if trial.config.by_norms else set()
        sources |= {f"{DROPS}{seed}"} if trial.config.by_loss_drop else set()
        names = [named(self._file(source)) for source in sorted(sources)]
        return {"lambda": trial.lambda_, "features": names}

    def _trial(self, arm: str, seed: int) -> Trial:
        trial = Trial(arm, self.lambda_, self.budget, seed)
        trial = trial if trial.weighs else trial._replace(lambda_=None)
        if "prediction_errors" in trial.config.method.needs:
            raise InputError(f"{arm}: the testbeds have no prediction errors.")
        return trial

    def _sides(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        arrays = self._read(source)
        return arrays["train"][self.drawn.pool], arrays["valid"][self.drawn.target]

    def _read(self, source: str) -> Mapping[str, np.ndarray]:
        return _load(self._file(source))

    def _file(self, source: str) -> Path:
        path = self.features / f"{source}.npz"
        if not path.exists() and source in MADE:
            MADE[source](self.universe, self.features)
        if not path.exists() and source == PROMPTS and self.trainer:
            save(path, self.trainer().prompts())
        if not path.exists() and source.startswith(DROPS) and self.trainer:
            rewards = self.trainer().drops(self.drawn, int(source.removeprefix(DROPS)))
            save(path, {"rewards": rewards})
        if not path.exists():
            raise InputError(f"{path} is missing: no such rows are made here.")
        return path


def data_of(universe: Universe) -> dict[str, str]:
    """Return the digests of the rows that seeds draw from."""
    pool = [universe.pool, universe.planted.tolist()]
    return {"pool": digest(pool), "held": digest(universe.held)}


@cache
def named(features: Path) -> str:
    """Return the name of a file of features, with the digest of its contents."""
    return f"{features.stem} {hash_files(features)}"


@cache
def _load(path: Path) -> Mapping[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _in_classes(
    order: np.ndarray, mine: np.ndarray, theirs: np.ndarray, budget: int
) -> np.ndarray:
    """Take the first rows of each class, in proportion to its rows in the target."""
    classes = make_classes(mine[order], theirs, (len(order), len(theirs)))
    shares = class_budgets(classes, budget).tolist()
    parts = [order[classes.train == c][:n] for c, n in enumerate(shares)]
    return np.concatenate(parts)


def _area(planted: np.ndarray, score: np.ndarray, strata: np.ndarray) -> float:
    """Return the AUC of a flag over the pairs of rows of one stratum."""
    right = pairs = 0.0
    for stratum in np.unique(strata):
        flag, mine = planted[strata == stratum], score[strata == stratum]
        if 0 < flag.sum() < len(flag):
            count = flag.sum() * (~flag).sum()
            right += count * auc_values(flag, mine).mean()
            pairs += count
    return float(right / pairs)
