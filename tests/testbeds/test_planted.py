"""How well arms find what is planted, against plain loops."""

from statistics import mean

import numpy as np
import pytest

import goracs_jax as gx


@pytest.fixture
def folder(universe, tmp_path):
    rng = np.random.default_rng(1)
    pool, held = len(universe.pool), len(universe.held)
    # Planted rows are a little nearer.
    x = rng.normal(size=(pool, 3)) - 0.5 * universe.planted[:, None]
    rows = {"train": x, "valid": rng.normal(size=(held, 3)) - 0.5}
    np.savez(tmp_path / "some.npz", **rows)
    norms = rng.random(pool) + 0.2 * universe.planted
    np.savez(tmp_path / "gradient.npz", **rows, norms=norms)
    return tmp_path


def area(flag, score):
    """Count the pairs in the right order."""
    pairs = [
        (a > b) + (a == b) / 2
        for a in score[flag].tolist()
        for b in score[~flag].tolist()
    ]
    return sum(pairs), len(pairs)


def test_nearness_and_rewards_are_judged_inside_classes(beds, universe, folder):
    drawn = beds.pools.draw(universe, 0)
    choice = beds.arms.Choice(universe, drawn, folder, 0.5)
    with np.load(folder / "gradient.npz") as file:
        x, y = file["train"][drawn.pool], file["valid"][drawn.target]
        norms = file["norms"][drawn.pool]
    mine = np.array([universe.pool[row]["output"] for row in drawn.pool])
    theirs = np.array([universe.held[row]["output"] for row in drawn.target])
    flag = universe.planted[drawn.pool]
    near = np.zeros(len(x))
    for row, answer in enumerate(mine):
        apart = np.linalg.norm(y[theirs == answer] - x[row], axis=1)
        near[row] = -np.sort(apart)[:10].mean()
    rewards = gx.alignment(x, y, train_labels=mine, valid_labels=theirs)

    def inside(score):
        each = [area(flag[mine == a], score[mine == a]) for a in ("Yes", "No")]
        right, pairs = map(sum, zip(*each, strict=True))
        return right / pairs

    expected = {"nearness": inside(near), "reward": inside(np.asarray(rewards))}
    found = choice.found("greedy:by-label@some@alignment", 0)
    # Distances in float32 or in squares change the order of few pairs.
    assert found == pytest.approx(expected, abs=1e-3)
    without = choice.found("greedy@some", 0)
    right, pairs = area(flag, norms)
    assert without["reward"] == pytest.approx(right / pairs, abs=1e-6)
    assert without["nearness"] != found["nearness"]
    assert choice.found("random", 0) == choice.found("oracle", 0) == {}


def test_a_probe_is_judged_by_what_it_knows_of_the_target(beds, universe, folder):
    """A ridge regression of the target's answers, on the judge's rows."""
    yes = np.array([record["output"] == "Yes" for record in universe.held])
    rng = np.random.default_rng(2)
    held = rng.normal(size=(len(yes), 4)) + 0.7 * yes[:, None]
    pool = rng.normal(size=(len(universe.pool), 4))
    np.savez(folder / "prompts.npz", train=pool, valid=held)
    drawn = beds.pools.draw(universe, 0)
    choice = beds.arms.Choice(universe, drawn, folder, 0.5)
    found = choice.found("goracs:by-label@some@probe", 0)
    y = held[drawn.target]
    z = (y - y.mean(0)) / y.std(0)
    penalty = np.sum(z**2) / len(z)
    t = yes[drawn.target] - yes[drawn.target].mean()
    w = np.linalg.solve(z.T @ z + penalty * np.eye(4), z.T @ t)
    score = (held[drawn.judge] - y.mean(0)) / y.std(0) @ w
    right, pairs = area(yes[drawn.judge], score)
    assert found["probe"] == pytest.approx(right / pairs, abs=1e-4)
    assert found["probe"] > 0.6
    assert {"nearness", "reward"} < found.keys()
    assert "probe" not in choice.found("greedy:by-label@some@alignment", 0)


def test_shares_are_those_of_what_arms_choose(beds, universe, folder):
    arms, seeds = ["nearest@some", "oracle"], [0, 3]
    areas = []
    draw, made = beds.pools.draw, beds.arms.Choice
    choice_of = lambda seed: made(universe, draw(universe, seed), folder, 0.1)
    near, oracle = beds.planted.planted(choice_of, arms, seeds)
    for budget in (64, 200):
        shares = []
        for seed in seeds:
            choice = choice_of(seed)._replace(budget=budget)
            rows = choice.rows("nearest@some", seed)
            areas.append(choice.found("nearest@some", seed)["nearness"])
            assert len(set(rows.tolist())) == budget
            shares.append(mean(universe.planted[rows].tolist()))
        found = near[f"share of {budget}"]
        assert found["value"] == pytest.approx(mean(shares))
        assert found["low"] < found["value"] < found["high"]
        assert oracle[f"share of {budget}"]["value"] == 1
    assert [name.split()[0] for name in near["features"]] == ["some"]
    assert near["AUC by nearness"]["value"] == pytest.approx(mean(areas))
    assert "AUC by nearness" not in oracle
