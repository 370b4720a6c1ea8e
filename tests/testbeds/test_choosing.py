"""What the arms of a testbed choose, and what names a cell, against plain loops."""

from pathlib import Path
from statistics import mean
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

import goracs_jax as gx
from goracs_jax.cli import main
from goracs_jax.errors import InputError


def test_the_oracle_takes_planted_rows_in_the_shares_of_the_target(beds, universe):
    drawn = beds.pools.draw(universe, 0)
    choice = beds.arms.Choice(universe, drawn, Path(), 0.1)
    oracle, random, full = (choice.rows(a, 0) for a in ("oracle", "random", "full"))
    assert len(set(oracle)) == len(set(random)) == 200
    assert set(oracle) | set(random) <= set(drawn.pool)
    assert full.tolist() == drawn.pool.tolist()
    assert universe.planted[oracle].all()
    share = mean(universe.held[row]["output"] == "Yes" for row in drawn.target)
    yes = sum(universe.pool[row]["output"] == "Yes" for row in oracle)
    assert abs(yes - 200 * share) <= 0.5
    # Of the rows that random takes, the oracle takes what is planted, but for the
    # shares of the classes.
    shared = set(random[universe.planted[random]]) & set(oracle)
    assert len(shared) > 0.9 * universe.planted[random].sum()
    assert choice.rows("random", 1).tolist() != random.tolist()


def test_an_arm_chooses_in_its_space_by_its_reward(beds, universe, tmp_path):
    drawn = beds.pools.draw(universe, 0)
    rng, pool, target = np.random.default_rng(1), drawn.pool, drawn.target
    x, y = rng.normal(size=(1600, 4)) + 1, rng.normal(size=(1000, 4))
    u, v = rng.normal(size=(1600, 3)), rng.normal(size=(1000, 3)) + 2
    norms = rng.random(1600)
    np.savez(tmp_path / "some.npz", train=x, valid=y)
    np.savez(tmp_path / "gradient.npz", train=u, valid=v, norms=norms)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    output = lambda records, rows: np.array([records[row]["output"] for row in rows])
    mine, theirs = output(universe.pool, pool), output(universe.held, target)
    towards = {
        answer: np.mean([v[row] for row in target[theirs == answer]], axis=0)
        for answer in ("Yes", "No")
    }
    aligned = [u[row] @ towards[answer] for row, answer in zip(pool, mine, strict=True)]
    expected = gx.goracs(
        unit(x[pool]),
        unit(y[target]),
        rewards=np.array(aligned, np.float32),
        lambda_=0.5,
        budget=200,
        method="greedy",
        train_labels=mine,
        valid_labels=theirs,
        key=jax.random.key(0),
    )
    choice = beds.arms.Choice(universe, drawn, tmp_path, 0.5)
    found = choice.rows("greedy:by-label@some/cosine@alignment", 0)
    assert found.tolist() == pool[expected.indices].tolist()
    largest = sorted(pool.tolist(), key=lambda row: -norms[row])[:200]
    assert choice.rows("grad-norm@some", 0).tolist() == sorted(largest)
    # Where there is no reward to weigh, lambda does not count.
    plain = ("herding@gradient", "k-center@gradient", "greedy@gradient@none")
    for arm in ("less", *plain):
        rows = [u[pool], v[target]]
        if arm == "less":  # whose own metric is the cosine
            rows = [unit(side) for side in rows]
        rest = {"lambda_": 0.0, "budget": 200, "key": jax.random.key(0)}
        expected = gx.goracs(*rows, method=arm.split("@")[0], **rest)
        assert choice.rows(arm, 0).tolist() == pool[expected.indices].tolist(), arm
        made = choice.depends_on(arm, 0)
        assert made["lambda"] is None
        assert [name.split()[0] for name in made["features"]] == ["gradient"]
    # What ranks by rewards has them with any lambda.
    towards = v[target].mean(axis=0)
    best = sorted(pool.tolist(), key=lambda row: -(u[row] @ towards))[:200]
    for weight in (0.0, 0.5):
        found = choice._replace(lambda_=weight).rows("alignment", 0)
        assert found.tolist() == sorted(best)
    with pytest.raises(InputError, match="error@some: the testbeds have no prediction"):
        choice.rows("error@some", 0)
    with pytest.raises(InputError, match=r"drops-0\.npz is missing"):
        choice.rows("loss-drop@some", 0)
    with pytest.raises(InputError, match=r"none\.npz is missing"):
        choice.rows("nearest@none", 0)


def test_loss_drops_are_made_once_for_each_seed(beds, universe, tmp_path):
    asked = []

    class Trainer:
        def drops(self, drawn, seed):
            asked.append(seed)
            return np.random.default_rng(seed).random(len(drawn.pool), np.float32)

    rows = {"train": np.ones((1600, 2)), "valid": np.ones((1000, 2))}
    np.savez(tmp_path / "some.npz", **rows)
    names = []
    for seed in (3, 4, 3):
        drawn = beds.pools.draw(universe, seed)
        choice = beds.arms.Choice(universe, drawn, tmp_path, 0.5, trainer=Trainer)
        names.append(choice.depends_on("loss-drop@some", seed)["features"])
        drops = np.random.default_rng(seed).random(len(drawn.pool), np.float32)
        best = drawn.pool[np.argsort(-drops, kind="stable")[:200]]
        assert choice.rows("loss-drop@some", seed).tolist() == sorted(best.tolist())
        planted = universe.planted[drawn.pool]
        right = np.mean(drops[planted][:, None] > drops[~planted])
        area = choice.found("greedy@some@loss-drop", seed)["reward"]
        assert area == pytest.approx(right)
    assert asked == [3, 4]
    assert [name.split()[0] for name in names[0]] == ["drops-3", "some"]
    assert names[0] == names[2] != names[1]


def test_what_names_a_cell(beds, universe, tmp_path):
    """Other rows, other mistakes or other features are other cells."""
    data = beds.arms.data_of
    changed = [{**universe.held[0], "output": "?"}, *universe.held[1:]]
    others = [
        universe._replace(pool=universe.pool[::-1]),
        universe._replace(held=changed),
        universe._replace(planted=~universe.planted),
    ]
    assert len({str(data(some)) for some in (universe, *others)}) == 4
    assert data(universe) == data(universe._replace(held=list(universe.held)))
    drawn, found = beds.pools.draw(universe, 0), []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("some", "gradient"):
            given = {"train": np.full((1600, 2), number), "valid": np.ones((1000, 2))}
            np.savez(folder / f"{name}.npz", **given)
        choice = beds.arms.Choice(universe, drawn, folder, 0.5)
        arms = ("goracs@some", "goracs@some@alignment", "nearest@some", "random")
        found.append([choice.depends_on(arm, 0) for arm in arms])
    sources = [[name.split()[0] for name in each["features"]] for each in found[0]]
    assert sources == [["gradient", "some"], ["gradient", "some"], ["some"], []]
    assert [each["lambda"] for each in found[0]] == [0.5, 0.5, None, None]
    for one, other in zip(*found, strict=True):
        assert not {*one["features"]} & {*other["features"]}


def test_features_are_those_of_every_row(beds, universe, tmp_path, monkeypatch):
    tiny.write_llm(tmp_path / "llm")
    few = universe._replace(pool=universe.pool[:40], held=universe.held[:8])
    features = beds.features
    monkeypatch.setattr(features, "LAYERS", "last:1")
    monkeypatch.setattr(features, "DIM", 16)
    opened = SimpleNamespace(model=tmp_path / "llm", encoder=None)
    monkeypatch.setattr(features, "fetch", lambda: opened)
    monkeypatch.setattr(features, "goracs", lambda *words: main([*map(str, words)]))
    features.gradients(few, tmp_path / "bed")
    with np.load(tmp_path / "bed" / "gradient.npz") as file:
        found = dict(file)
    assert {name: rows.shape for name, rows in found.items()} == {
        "train": (40, 16),
        "valid": (8, 16),
        "norms": (40,),
    }
    # A twentieth of the pool warms the adapter.
    assert len((tmp_path / "bed/gradient/warm.jsonl").read_text().splitlines()) == 2
    # The projection keeps squared lengths in expectation: of 40 rows and 16 numbers
    # their mean ratio has a relative deviation below sqrt(2 / 16) = 0.35.
    squares = (found["train"] ** 2).sum(axis=1).mean() / (found["norms"] ** 2).mean()
    assert abs(squares - 1) < 3 * 0.35


def test_the_oracle_of_titles_takes_the_rows_that_random_would(beds, universe):
    records = lambda some: [r | {"output": str(i)} for i, r in enumerate(some)]
    titles = universe._replace(pool=records(universe.pool), held=records(universe.held))
    drawn = beds.pools.draw(titles, 0)
    choice = beds.arms.Choice(titles, drawn, Path(), 0.1)
    oracle, random = (choice.rows(arm, 0) for arm in ("oracle", "random"))
    assert len(set(oracle)) == 200
    assert titles.planted[oracle].all()
    assert set(random[titles.planted[random]]) <= set(oracle)
