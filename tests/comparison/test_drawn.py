"""What seeds draw and how validation is cut: by content, in any order of the lines."""

import numpy as np
import pytest

from goracs_jax.comparison.drawn import draw, halves, judged_with, pool_of, write_pools
from goracs_jax.data.examples import Example
from goracs_jax.errors import InputError
from goracs_jax.files import hash_files
from goracs_jax.runs.opened import Pool, read_pool


def pool(tmp_path, size, **more):
    """Two examples of each user, and one of the last where the size is odd."""
    records = [
        {"instruction": "Like?", "input": f"é {i}", "output": "Yes", "user": i // 2}
        for i in range(size)
    ]
    examples = [Example(r | more, f"t.jsonl:{i}") for i, r in enumerate(records)]
    return pool_of(examples, tmp_path, "train")


def texts(found):
    return [example.record["input"] for example in found.examples]


def test_a_pool_is_the_file_that_is_written(tmp_path):
    made = pool(tmp_path / "new", 5)
    write_pools([made], tmp_path / "new")
    assert hash_files(made.path) == made.sha256
    again = read_pool(made.path)
    assert [e.record for e in again.examples] == [e.record for e in made.examples]
    before = made.path.stat().st_mtime_ns
    write_pools([made], tmp_path / "new")
    assert made.path.stat().st_mtime_ns == before
    elsewhere = made._replace(path=tmp_path / "given.jsonl")
    write_pools([elsewhere], tmp_path / "new")
    assert not elsewhere.path.exists()


def test_a_draw_does_not_depend_on_the_order_of_the_lines(tmp_path):
    whole, valid = pool(tmp_path, 40), pool(tmp_path, 9)
    other = pool_of(whole.examples[::-1], tmp_path, "train")
    one, two = (draw(x, valid, (12, None), 3, tmp_path) for x in (whole, other))
    assert one.train.sha256 == two.train.sha256
    assert one.valid is valid
    assert one.rows[1] is None
    assert [whole.examples[row] for row in one.train_rows] == one.train.examples
    assert [other.examples[row] for row in two.train_rows] == one.train.examples
    assert len(set(texts(one.train))) == 12
    # A larger draw contains the smaller one.
    larger = draw(whole, valid, (20, None), 3, tmp_path)
    assert texts(larger.train)[:12] == texts(one.train)


def test_every_example_is_drawn_equally_often(tmp_path):
    whole = pool(tmp_path, 20)
    drawn = [draw(whole, whole, (5, None), seed, tmp_path) for seed in range(400)]
    counts = np.bincount(np.concatenate([d.train_rows for d in drawn]), minlength=20)
    # Binomial: 400 draws with 1/4 have the mean 100 and the SD 8.7; five of them.
    assert np.abs(counts - 100).max() < 5 * (400 * 0.25 * 0.75) ** 0.5


def test_equal_examples_are_drawn_apart(tmp_path):
    same = Example({"instruction": "Like?", "output": "Yes"}, "t.jsonl:1")
    twice = pool_of([same] * 6, tmp_path, "train")
    rows = draw(twice, twice, (4, 6), 0, tmp_path).rows
    assert [len(set(each.tolist())) for each in rows] == [4, 6]


@pytest.mark.parametrize("size", [3, 8, 13])
def test_halves_have_half_of_the_users_each(tmp_path, size):
    valid = pool(tmp_path, size)
    sides = halves(valid, tmp_path)
    users = [{e.record["user"] for e in side.examples} for side in sides]
    assert users[0].isdisjoint(users[1])
    assert len(users[0]) - len(users[1]) in (0, 1)
    assert sorted(texts(sides[0]) + texts(sides[1])) == sorted(texts(valid))
    other = halves(pool_of(valid.examples[::-1], tmp_path, "valid"), tmp_path)
    assert [side.sha256 for side in other] == [side.sha256 for side in sides]


def test_examples_without_users_are_their_own(tmp_path):
    records = ({"instruction": "Like?", "output": x} for x in ("Yes", "No", "Yes"))
    valid = pool_of([Example(r, "v.jsonl:1") for r in records], tmp_path, "valid")
    assert [len(side.examples) for side in halves(valid, tmp_path)] == [2, 1]
    one = pool_of(valid.examples[:1], tmp_path, "valid")
    with pytest.raises(InputError, match="one user only, which cannot be cut in two"):
        halves(one, tmp_path)


def test_what_judges_has_the_form_of_the_test_examples(tmp_path):
    test, half = pool(tmp_path, 3), pool(tmp_path, 2)
    joined = judged_with(test, half, "ctr", tmp_path)
    assert texts(joined) == texts(test) + texts(half)
    assert judged_with(test, half, "seqrec", tmp_path) is None
    ranked = pool(tmp_path, 2, target=1, negatives=[2])
    assert len(judged_with(test, ranked, "seqrec", tmp_path).examples) == 5
    # Without users, intervals over users would take examples for independent.
    for example in half.examples:
        del example.record["user"]
    assert judged_with(test, half, "ctr", tmp_path) is None


def test_halves_of_nameless_users_do_not_depend_on_the_order(tmp_path):
    records = [{"instruction": "a", "output": f"t{i // 2}"} for i in range(12)]  # twice
    targets = []
    for some in (records, records[::-1]):
        examples = [Example(record, "x") for record in some]
        target, judge = halves(Pool(examples, "", tmp_path / "v.jsonl"), tmp_path)
        one, two = (
            {example.record["output"] for example in side.examples}
            for side in (target, judge)
        )
        assert not one & two  # equal records are on one side
        assert len(one | two) == 6
        targets.append(one)
    assert targets[0] == targets[1]
