"""Raw files to examples by the command line."""

import json
import shutil

import numpy as np
import pytest
import raw_files
from commands import assert_refused, run
from full_disk import assert_nothing_is_lost

from goracs_jax.data.examples import read_examples
from goracs_jax.files import hash_files

USERS, ITEMS = 12, 30
PREPARE = "prepare --task seqrec --input raw --out out --valid 9 --test 0.1"
PREPARE += " --negatives 5"
FILES = ("train.jsonl", "valid.jsonl", "test.jsonl", "items.jsonl")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Ratings of 12 users for 15 of 30 items each, in the files of MovieLens-1M."""
    rng = np.random.default_rng(0)
    ratings = [
        (str(user), str(item), float(rng.integers(1, 6)), float(rng.integers(999)))
        for user in range(USERS)
        for item in rng.choice(ITEMS, 15, replace=False)
    ]
    titles = {str(item): f"Title {item}" for item in range(ITEMS)}
    raw_files.write("movielens-1m", tmp_path / "raw", ratings, titles)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def hashes(folder):
    return {name: hash_files(folder / name) for name in FILES}


def test_seqrec(raw, capsys):
    assert run(PREPARE, None) == 0
    train, valid, test, items = (read(raw / "out", name) for name in FILES)
    # 15 ratings of a user make 12 examples with at least 3 earlier items.
    assert (len(valid), len(test)) == (9, round(0.1 * 12 * USERS))
    assert len(train) + len(valid) + len(test) == 12 * USERS
    ids = {item["item_id"]: item["title"] for item in items}
    for record in [*valid, *test]:
        assert record["output"] == f'"{ids[record["target"]]}"'
        assert len(set(record["negatives"]) - {record["target"]}) == 5
        assert set(record["negatives"]) <= ids.keys()
    assert "negatives" not in train[0]
    assert "movie" in train[0]["instruction"]
    assert len(read_examples(raw / "out" / "train.jsonl")) == len(train)
    printed = capsys.readouterr().out
    assert "movielens-1m: raw/ratings.dat, titles from raw/movies.dat" in printed
    assert "items.jsonl (30)" in printed


def test_quotes_inside_titles(raw, capsys):
    """Generation ends at the closing quote, so a title must not hold one."""
    movies = raw / "raw/movies.dat"
    movies.write_text(movies.read_text().replace("Title 7", 'The "7" Tablet'))
    assert run(PREPARE, None) == 0
    assert "inside 1 of them it is written '" in capsys.readouterr().out
    *examples, items = (read(raw / "out", name) for name in FILES)
    assert "The '7' Tablet" in {item["title"] for item in items}
    outputs = [record["output"] for part in examples for record in part]
    assert "\"The '7' Tablet\"" in outputs
    assert all(output.count('"') == 2 for output in outputs)


def test_manifest(raw):
    with (raw / "raw/ratings.dat").open("a") as file:
        file.write("1::2\n")
    assert run(PREPARE + " --max-bad 0.1 --core 2", None) == 0
    manifest = json.loads((raw / "out/manifest.json").read_text())
    ratings = manifest["inputs"]["ratings"]
    assert ratings["sha256"] == hash_files(raw / "raw/ratings.dat")
    assert (ratings["lines"], ratings["bad"]) == (181, 1)
    assert ratings["first_bad"][0].startswith("raw/ratings.dat:181: 2 fields where 4")
    assert manifest["outputs"] == hashes(raw / "out")
    assert [step["step"] for step in manifest["steps"]] == [
        *("read", "repeated", "untitled", "core")
    ]
    assert manifest["steps"][0] == {
        **{"step": "read", "users": USERS, "items": ITEMS},
        **{"interactions": 180, "dropped": 0},
    }
    assert manifest["config"]["core"] == 2
    assert manifest["examples"]["valid"] == 9


def test_same_seed_same_bytes(raw):
    assert run(PREPARE, None) == 0
    first = hashes(raw / "out")
    shutil.rmtree(raw / "out")
    assert run(PREPARE + " --format movielens-1m", None) == 0
    assert hashes(raw / "out") == first
    assert run(PREPARE + " --seed 1", None) == 0
    changed = hashes(raw / "out")
    assert [changed[name] == first[name] for name in FILES] == [
        True,
        False,
        False,
        True,
    ]


def test_a_full_disk(raw, capsys):
    assert run(PREPARE, None) == 0
    assert_nothing_is_lost(f"{PREPARE} --seed 1", 4096, raw, capsys)


def test_test_negatives_do_not_depend_on_the_size_of_validation(raw):
    assert run(PREPARE, None) == 0
    first = hash_files(raw / "out/test.jsonl")
    assert run(PREPARE.replace("--valid 9", "--valid 3"), None) == 0
    assert hash_files(raw / "out/test.jsonl") == first


def test_ctr_leave_one_out(raw):
    command = "prepare --task ctr --input raw --out out --split leave-one-out"
    assert run(command, None) == 0
    train, valid, test, _ = (read(raw / "out", name) for name in FILES)
    assert len(valid) == len(test) == USERS
    assert {record["user"] for record in test} == {str(user) for user in range(USERS)}
    for record in [*train, *valid, *test]:
        assert record["output"] == ("Yes" if record["rating"] > 3 else "No")
        assert "negatives" not in record


def test_interactions_without_times(raw, capsys):
    """The line that asks for an order leads on."""
    rows = (raw / "raw/ratings.dat").read_text().splitlines()
    cells = [row.split("::") for row in rows]
    head = "user_id,item_id,title,rating"
    lines = [f"{user},{item},T {item},{rating}" for user, item, rating, _ in cells]
    raw_files.lines(raw / "r.csv", [head, *lines])
    command = PREPARE.replace("--input raw", "--input r.csv --format csv")
    message = r"no column 'timestamp'.*--order file .* or --order random"
    assert_refused(command, None, capsys, message)
    found = {}
    for order in ("file", "random"):
        assert run(f"{command} --order {order}", None) == 0
        test = read(raw / "out", "test.jsonl")
        found[order] = [(record["user"], record["target"]) for record in test]
    pairs = [(user, item) for user, item, *_ in cells]
    # An example has three earlier interactions of its user.
    users = [user for user, _ in pairs]
    examples = [p for i, p in enumerate(pairs) if users[:i].count(p[0]) >= 3]
    newest = examples[-len(found["file"]) :]
    assert found["file"] == newest
    assert set(found["random"]) != set(newest)
    assert run(f"{command} --order random --seed 1", None) == 0
    other = [(r["user"], r["target"]) for r in read(raw / "out", "test.jsonl")]
    assert other != found["random"]


def test_ratings_on_one_side(raw, capsys):
    command = PREPARE.replace("seqrec", "ctr")
    message = r"all ratings lie in \[1, 5\], .*--like-above to a number in \[1, 5\)"
    assert_refused(f"{command} --like-above 9", None, capsys, message)
    assert run(f"{command} --like-above 4.9", None) == 0


def test_dry_run_writes_nothing(raw, capsys):
    assert run(PREPARE + " --dry-run", None) == 0
    printed = capsys.readouterr().out
    assert "the newest 0.1 for test, 9 before for validation" in printed
    assert "would write train.jsonl, valid.jsonl" in printed
    assert not (raw / "out").exists()


def test_config_and_own_template(raw):
    (raw / "t.yaml").write_text(
        "instruction: 'Next {noun}?'\ninput: '{history}'\noutput: '{target}'\n"
    )
    (raw / "c.yaml").write_text(
        "task: seqrec\ninput: raw\nvalid: 0.1\ntest: 5\nnegatives: 0\n"
        "template: t.yaml\nnoun: film\n"
    )
    assert run("prepare --config c.yaml --out out", None) == 0
    test = read(raw / "out", "test.jsonl")
    assert len(test) == 5
    assert test[0]["instruction"] == "Next film?"
    assert test[0]["negatives"] == []
    manifest = json.loads((raw / "out/manifest.json").read_text())
    assert manifest["inputs"]["template"]["sha256"] == hash_files(raw / "t.yaml")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (PREPARE + " --history 0", r"--history must be at least 1, got 0"),
        (PREPARE + " --core 0", r"--core must be at least 1"),
        (PREPARE + " --negatives -1", r"--negatives must be at least 0"),
        (PREPARE + " --min-history 11", r"--min-history must be in \[1, 10\]"),
        (PREPARE + " --max-bad 2", r"--max-bad must be a share, got 2"),
        (PREPARE + " --like-above nan", r"--like-above must be finite"),
        (PREPARE + " --test 1.5", r"--test must be a whole number from 1, or a share"),
        (PREPARE + " --split leave-one-out", r"--valid is for --split global"),
        (PREPARE + " --format amazon", r"--format"),
        (PREPARE + " --template none.yaml", r"--template: none\.yaml does not exist"),
        (PREPARE.replace("raw", "none"), r"none does not exist"),
        (PREPARE.replace("--out out", "--out raw/out"), r"lies in the input raw"),
        (PREPARE.replace("--out out", "--out /proc/x"), r"/proc/x cannot be written"),
    ],
)
def test_bad_settings_before_any_work(raw, capsys, command, message):
    assert_refused(command, None, capsys, message)
    assert not (raw / "out").exists()
    assert len(list((raw / "raw").iterdir())) == 2


def test_histories_on_each_line_are_no_repeats(raw, capsys):
    ratings = [("u", str(i), 5.0, float(i)) for i in range(3)]
    titles = {str(i): f"Title {i}" for i in range(3)}
    raw_files.write("mind", raw / "mind", ratings, titles)
    command = PREPARE.replace("--input raw", "--input mind --repeats keep")
    message = r"--repeats keep: each line of mind/behaviors\.tsv lists"
    assert_refused(command, None, capsys, message)
    assert not (raw / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (PREPARE.replace("--valid 9", "--valid 131"), r"131 validation and 14 test"),
        (
            PREPARE.replace(" 5", " 16"),
            r"has seen 15 of 30 items: 16 .*--negatives 15",
        ),
        (PREPARE + " --core 99", r"no interaction is left with --core"),
    ],
)
def test_what_shows_after_reading(raw, capsys, command, message):
    assert_refused(command, None, capsys, message)
    assert not list((raw / "out").glob("*.json*"))


def test_an_input_is_never_written_over(raw, capsys):
    raw_files.write("jsonl", raw)
    command = "prepare --task seqrec --format jsonl --input a.jsonl --out ."
    command += " --metadata items.jsonl"
    before = (raw / "items.jsonl").read_bytes()
    assert_refused(command, None, capsys, r"write over the input items\.jsonl")
    assert (raw / "items.jsonl").read_bytes() == before


def test_too_many_bad_lines(raw, capsys):
    with (raw / "raw/ratings.dat").open("a") as file:
        file.write("1::2\n" * 2)
    message = r"2 of 182 lines cannot .* more than 1 %: .*dat:181: 2 fields"
    assert_refused(PREPARE, None, capsys, message)
