"""What wins, which lambda is chosen, and what choosing costs."""

import numpy as np
import pytest

from goracs_jax.comparison.charges import Search, Sizes, Trained, charged
from goracs_jax.comparison.design import Trial, design
from goracs_jax.comparison.entries import (
    Outcome,
    contenders,
    entries_of,
    pairs_of,
    winners,
)
from goracs_jax.comparison.intervals import holm
from goracs_jax.comparison.picture import comparison_figure
from goracs_jax.comparison.table import as_markdown, notes_of, rows_of
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.models import DecoderConfig

USERS = 40
UNITS = np.arange(USERS)
NOISE = np.random.default_rng(0).normal(size=(2, USERS))


def outcome(values, loss=1.0, **costs):
    costs = {"training": 2.0} | costs
    return Outcome({"AUC": values}, loss, costs, costs)


def grid(goracs=0.1, losses=(3.0, 2.0)):
    """full, random and goracs with two lambdas; goracs is better by a constant."""
    lambdas = (0.0, 0.1)
    cells = design(
        ["full", "random", "goracs"], [8], lambdas, [0, 1], full_seeds=1, n_train=50
    )
    shared = {"embeddings": 10.0, "gradients": 20.0, "selection": 1.0}
    found = {}
    for cell in cells:
        values = 0.5 + NOISE[cell.seed]
        if cell.method == "goracs":
            loss = losses[lambdas.index(cell.lambda_)]
            mine = {n: c for n, c in shared.items() if n in (*cell.needs, "selection")}
            found[cell] = outcome(values + goracs + cell.lambda_, loss, **mine)
        else:
            found[cell] = outcome(values)
    return found


def test_validation_chooses_lambda_and_pays_for_all():
    entries = entries_of(grid())
    assert [entry.name for entry in entries] == [
        *("full", "random", "goracs, lambda 0", "goracs, lambda 0.1"),
        "goracs, lambda by validation",
    ]
    fixed, chosen = entries[-2:]
    assert chosen.lambda_ == 0.1
    np.testing.assert_array_equal(chosen.values("AUC"), fixed.values("AUC"))
    # Embeddings and gradients once, two searches, two trainings.
    expected = {"embeddings": 10, "gradients": 20, "selection": 2, "training": 4}
    assert chosen.mean_cost("seconds") == expected
    # Whatever the test examples say.
    assert entries_of(grid(losses=(1.0, 2.0)))[-1].lambda_ == 0
    assert [e.name for e in contenders(entries)][1:] == [
        *("random", "goracs, lambda by validation")
    ]


def test_lambda_is_chosen_over_the_seeds_that_all_have():
    # Over both seeds lambda 0 would have the mean loss 1.5, and be chosen.
    losses = {(0.0, 0): 3.0, (0.0, 1): 0.0, (0.1, 0): 2.0}
    found = {
        Trial("goracs", w, 8, s): outcome(NOISE[0], x) for (w, s), x in losses.items()
    }
    *_, chosen = entries_of(found)
    assert (chosen.choice, chosen.lambda_, list(chosen.outcomes)) == (
        *("by validation", 0.1, [0]),
    )
    del found[Trial("goracs", 0.0, 8, 0)]
    assert [entry.choice for entry in entries_of(found)] == ["fixed", "fixed"]


def test_a_winner_is_ahead_of_every_other_on_the_same_users_and_seeds():
    # All vary far more than they differ; paired, they differ by a constant.
    entries = entries_of(grid())
    pairs = pairs_of(entries, UNITS)
    assert [(pair.first, pair.second, pair.seeds) for pair in pairs] == [
        ("full", "random", (0,)),
        ("full", "goracs, lambda by validation", (0,)),
        ("random", "goracs, lambda by validation", (0, 1)),
    ]
    # On the seeds that both have: the noise of another seed would show.
    assert [p.difference.value for p in pairs] == pytest.approx([0, -0.2, -0.2])
    assert winners(entries, pairs) == {(8, "goracs, lambda by validation", "AUC")}
    records = rows_of(entries, pairs, UNITS)
    lines = as_markdown(records, []).splitlines()
    assert [line.count("**") for line in lines] == [0] * 6 + [2, 0]
    assert "goracs, lambda by validation (0.1)" in lines[-2]


@pytest.mark.parametrize("ahead", [-0.05, 0.05])
def test_no_winner_where_the_interval_holds_zero(ahead):
    found = grid()
    noise = np.random.default_rng(1).normal(size=USERS)
    for cell in found:
        if cell.method == "goracs":
            apart = ahead + noise - noise.mean()
            found[cell] = outcome(0.5 + NOISE[cell.seed] + apart)
    entries = entries_of(found)
    pairs = pairs_of(entries, UNITS)
    assert pairs[-1].difference.value == pytest.approx(-ahead)
    assert pairs[-1].difference.low < 0 < pairs[-1].difference.high
    assert winners(entries, pairs) == set()


def test_a_method_alone_in_its_budget_has_beaten_nobody():
    alone = entries_of({c: o for c, o in grid().items() if c.method != "random"})
    assert winners(alone, pairs_of(alone, UNITS)) == set()


def test_notes_say_what_intervals_are_over():
    records = rows_of(entries_of(grid()), [], UNITS)
    sizes = {"users": USERS, "epoch_flops": 1e12}
    both = notes_of(records, [], **sizes)
    assert "95 % intervals, over 40 test users and 2 seeds." in both[0]
    assert "a value alone, which proves nothing (full of 50)." in both[2]
    # Without a comparison with random nothing is said of one.
    assert not any("random (p" in note for note in both)
    more = {Trial("random", None, 8, 2): outcome(NOISE[0])}
    third = notes_of(rows_of(entries_of(grid() | more), [], UNITS), [], **sizes)
    assert "and 3 seeds; over test users and 2 seeds: goracs, lambda 0 of" in third[0]
    one = {cell: o for cell, o in grid().items() if cell.seed == 0}
    notes = notes_of(rows_of(entries_of(one), [], UNITS), [], **sizes)
    assert notes[0] == "One seed has a value alone, which proves nothing."
    assert not any("Bold" in note for note in notes)


def test_one_seed_wins_nothing_and_has_no_interval():
    one = {cell: o for cell, o in grid(goracs=9.0).items() if cell.seed == 0}
    entries = entries_of(one)
    pairs = pairs_of(entries, UNITS)
    assert {pair.difference.low for pair in pairs} == {None}
    assert winners(entries, pairs) == set()
    records = rows_of(entries, pairs, UNITS)
    assert not any("[" in line or "**" in line for line in as_markdown(records, []))
    assert comparison_figure(records, "AUC").axes


def test_what_differs_from_random_is_corrected_for_the_number_of_methods():
    """Three methods with p of 0.03, 0.04 and 0.9 alone: after Holm none is sure."""
    found = {}
    apart = {"herding": 0.25, "k-center": 0.2, "nearest": 0.01}
    for seed in (0, 1, 2):
        noise = np.random.default_rng(seed).normal(size=(5, USERS))
        found[Trial("random", None, 8, seed)] = outcome(noise[0])
        for name, (method, ahead) in enumerate(apart.items()):
            values = noise[0] + 0.6 * noise[name + 1] + ahead
            found[Trial(method, None, 8, seed)] = outcome(values)
        found[Trial("full", None, 50, seed)] = outcome(noise[0] + 5)
    pairs = pairs_of(entries_of(found), UNITS)
    mine = [p for p in pairs if {"random"} & {p.first, p.second}]
    with_random = {({p.first, p.second} - {"random"}).pop(): p for p in mine}
    assert with_random["full"].holm_p is None
    rest = [with_random[name] for name in apart]
    assert [p.holm_p for p in rest] == pytest.approx(holm([p.p for p in rest]))
    assert all(p.holm_p is None for p in pairs if p not in mine)
    records = rows_of(entries_of(found), pairs, UNITS)
    (note,) = [
        n
        for n in notes_of(records, pairs, users=USERS, epoch_flops=1.0)
        if n.startswith("Different from random")
    ]
    sure = [name for name, p in zip(apart, rest, strict=True) if p.holm_p < 0.05]
    assert all((f"{name} of 8 +" in note) == (name in sure) for name in apart)
    assert "full" not in note.split(":")[1]


def test_a_cell_is_charged_for_what_it_needs():
    config, lengths = DecoderConfig.tiny(), np.array([3, 5, 8])
    train = Counts(lengths, np.array([2, 1, 4]))
    valid, embedded = train.take(np.array([0, 1])), np.append(lengths, lengths[:2])
    sizes = Sizes(config, None, train, valid, embedded)
    trained = Trained(np.array([0, 2]), 4, 2)
    training = 4 * gradient_flops(config, train.take(trained.rows), "all_lora")
    training += 2 * forward_flops(config, valid)
    gradients = gradient_flops(config, train, "last_v_lora_b")
    embeddings = forward_flops(config, Counts(embedded, np.zeros(5, int)))
    search = 7 * 2 * 3 * 2 * config.hidden_size
    needed = lambda *cell: charged(
        Trial(*cell, 2, 0), sizes, trained, Search(7, config.hidden_size)
    )
    assert needed("random", None) == {"training": training}
    assert needed("error", None) == {"gradients": gradients, "training": training}
    assert needed("goracs", 0.0) == {
        "embeddings": embeddings, "selection": search, "training": training
    }  # fmt: skip
    assert set(needed("goracs", 0.1)) == {*needed("goracs", 0.0), "gradients"}
