"""`goracs check` on a tiny model: what it leaves, resumes, says and refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from commands import assert_refused, edit, run
from full_disk import assert_nothing_is_lost

from goracs_jax.check import trained
from goracs_jax.check.design import Sizes
from goracs_jax.check.features import features_of, sides_of
from goracs_jax.check.inputs import drawn_of, flags_of, read_inputs, with_defaults
from goracs_jax.check.price import Price, Rates, fitted, price_of
from goracs_jax.cli import parse
from goracs_jax.errors import InputError
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.models import decoder_config
from goracs_jax.runs.opened import open_llm
from goracs_jax.runs.reading import tokenize_pool

# One batch is a whole subset, without dropout and from a given adapter: two trainings
# of a subset differ by rounding alone.
CHAT = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
CHECK = (
    "check --train train.jsonl --valid valid.jsonl --model llm --adapter adapter "
    "--task ctr --budget 8 --steps 3 --warmup-steps 1 --batch-size 8 --dropout 0 "
    "--repeats 2 --pairs 4 --quantiles 3 --quantile-seeds 1 --subsets 10 "
    "--planted-rows 40 --spaces text,gradient/whiten/cosine,given.npz --out out"
)
TRAININGS = 2 + 4 + 3 * 3 + 10
N, M = 64, 24


def example(rng, i):
    word = str(rng.choice(["ash", "elm", "fir"]))
    answer = "Yes" if word == "ash" else "No"
    record = {"instruction": "Like it?", "input": f"tree {word} {i:02}"}
    return record | {"output": answer, "user": i // 2}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A model, an adapter, two files of one length, and what the verb makes of them."""
    folder = tmp_path_factory.mktemp("check")
    tiny.write_llm(folder / "llm")
    tiny.write_adapter(folder / "adapter", scale=0.1)
    rng = np.random.default_rng(0)
    for name, size, first in (("train", N, 0), ("valid", M, N)):
        records = [example(rng, first + i) for i in range(size)]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines)
    given = {"train": rng.normal(size=(N, 2)), "valid": rng.normal(size=(M, 2))}
    np.savez(folder / "given.npz", **given)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(CHECK, None) == 0
    return folder


def result(folder):
    """What check.json has, without times."""
    found = json.loads((folder / "out/check.json").read_text())
    return {name: found[name] for name in ("reliability", "spaces", "rewards", "runs")}


def test_it_leaves_a_record_a_picture_and_the_trainings(files):
    found = json.loads((files / "out/check.json").read_text())
    assert found["reliability"]["icc"] > 0.99  # of equal trainings
    assert list(found["spaces"]) == ["text", "gradient/whiten/cosine", "given.npz"]
    assert list(found["rewards"]) == ["grad-norm", "alignment"]
    for record in (*found["spaces"].values(), *found["rewards"].values()):
        assert 0 <= record["planted_auc"] <= 1
        assert -1 <= record["lds"]["low"] <= record["lds"]["value"] <= 1
    assert found["verdict"]["text"]
    assert len(found["runs"]) == found["cost"]["trainings"] == TRAININGS
    assert (files / "out/check.png").stat().st_size > 10_000
    cells = list((files / "out/cells/stages").glob("finetune-*/adapter_model*"))
    assert len(cells) == TRAININGS


def test_a_second_run_trains_nothing(files, monkeypatch):
    before = result(files)
    monkeypatch.setattr("goracs_jax.jobs.finetune.train_adapter", None)
    assert run(CHECK, None) == 0
    assert result(files) == before


def test_a_full_disk(files, capsys):
    assert_nothing_is_lost(CHECK, 20_000, files, capsys)


def test_stopped_between_trainings_it_goes_on(files, monkeypatch):
    before, done = result(files), list((files / "out/cells/stages").iterdir())
    (files / "out/check.json").unlink()
    for home in sorted(done)[: len(done) // 2]:
        (home / "done.json").unlink()
        (home / "metrics.jsonl").unlink()
    train, left = trained.finetune.run, 5

    def stopping(*given):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return train(*given)

    with monkeypatch.context() as patch:
        patch.setattr(trained.finetune, "run", stopping)
        assert run(CHECK, None) == 130
    assert not (files / "out/check.json").exists()
    assert run(CHECK, None) == 0
    assert result(files) == before


def test_the_plan_says_what_it_costs(files, capsys):
    assert run(CHECK + " --dry-run", None) == 0
    said = capsys.readouterr().out
    assert f"{TRAININGS} trainings of 3 steps: 2 of one subset, 4 second" in said
    assert "tokens" in said
    assert f"done in out/cells: {TRAININGS}\n" in said
    assert run(CHECK.replace("--out out", "--out other") + " --dry-run", None) == 0
    assert "a time to be measured" in capsys.readouterr().out
    assert not (files / "other").exists()


def test_flags_that_follow_are_flags_of_select(files, capsys):
    flags = json.loads((files / "out/check.json").read_text())["verdict"]["flags"]
    texts = "select --train train.jsonl --valid valid.jsonl --model llm"
    assert flags
    capsys.readouterr()
    assert run(f"{texts} {flags} --out chosen --dry-run", 8) == 0


PRICE = Price(
    steps=100,
    step_tokens=1600.0,
    step_flops=1e12,
    judge_flops=1e13,
    pass_flops=1e9,
    fixed_flops=0.0,
    spaces=3,
)
ASKED = Sizes(4000, 1000, 4, 12, 5, 2, 60)


def test_a_time_limit_shrinks_the_sizes():
    rates = Rates(step=1.0, judge=10.0)
    whole = PRICE.seconds(ASKED, rates)
    assert whole == 106 * (100 * 1.0 + 10.0) + 5000 * 1e9 / 1e12
    assert fitted(PRICE, rates, ASKED, None, 256) == ASKED
    assert fitted(PRICE, rates, ASKED, whole, 256) == ASKED
    half = fitted(PRICE, rates, ASKED, whole / 2, 256)
    assert PRICE.seconds(half, rates) <= whole / 2
    assert half.subsets < 60
    assert half.quantile_seeds < 2
    least = fitted(PRICE, rates, ASKED, 5000.0, 256)
    assert least.quantile_seeds == 0
    assert least.subsets >= 24
    with pytest.raises(InputError, match=r"too short: the least .* takes about 64"):
        fitted(PRICE, rates, ASKED, 60.0, 256)


def test_rows_of_a_file_are_those_of_the_examples(files):
    """Pools are drawn in an order of their own; the rows of given.npz follow it."""
    out = ["--out", str(files / "out")]
    settings = with_defaults(parse([*CHECK.split()[:-2], *out]))
    inputs = read_inputs(settings)
    drawn = drawn_of(inputs, inputs.sizes, settings)
    folder = files / "out/arrays"
    sides = sides_of(settings, inputs, drawn, folder)
    pool, planted = features_of(inputs, drawn, sides, folder)
    given = np.load(files / "given.npz")
    line = lambda example: int(example.place.split(":")[1]) - 1
    for some, found in ((drawn.pool, pool), (drawn.planted, planted.features)):
        x, y = found.spaces["given.npz"]
        rows = [line(example) for example in some.pool.examples]
        assert x == pytest.approx(given["train"][rows])
        rows = [line(example) for example in inputs.target.pool.examples]
        assert y == pytest.approx(given["valid"][rows])
    assert sorted([*inputs.target.rows, *inputs.judge.rows]) == list(range(M))


REFUSED = {
    "time": ("--time-limit soon", "--time-limit must be as 90s, 60m or 2h, got 'soon'"),
    "short": ("--time-limit 1s --steps 9999", "too short: the least that tells"),
    "best": ("--keep best", "--keep best chooses by the loss that judges"),
    "both": ("--epochs 2", "epochs or steps must be given, and not both"),
    "budget": ("--budget 40", "--budget 40 of 64 training examples: give at most half"),
    "pairs": ("--pairs 20", "--subsets must be at least 20, got 10"),
    "share": ("--planted-share 1", r"--planted-share must be in \[0.05, 0.95\], got 1"),
    "reward": ("--rewards none", "none is no reward"),
    "adapters": ("--adapter-from-pool 0.1", "give --adapter or --adapter-from-pool"),
    "adam": (
        "--preconditioner adam",
        "needs what Adam remembers",
    ),
    "unknown": ("--rewards luck", "a reward is .* got 'luck'"),
    "space": ("--spaces moon", "--space must be text, gradient, .* or an .npz"),
    "twice": ("--spaces text,text/none/euclidean", "names one of them twice"),
    "directions": ("--rewards alignment/drop:12", "as many directions as 12 target"),
    "ranges": ("--quantiles 40 --quantile-seeds 1", "leaves ranges without any"),
    "transform": ("--spaces text/drop:99", "drop:99 needs 99 directions, and 12"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_refused(files, case, capsys):
    flags, message = REFUSED[case]
    assert_refused(f"{CHECK} {flags}", None, capsys, message)


def test_data_that_cannot_be_checked_are_refused(files, capsys):
    edit(files / "train.jsonl", lambda text: text.replace("Yes", "No"))
    message = "all outputs are the same, so none can be planted wrong"
    assert_refused(CHECK, None, capsys, message)
    first = lambda text: "".join(text.splitlines(keepends=True)[:2])
    edit(files / "valid.jsonl", first)
    assert_refused(
        CHECK, None, capsys, "valid.jsonl has one user only, which cannot be cut"
    )


@pytest.mark.slow
def test_what_is_trained_and_computed_once(files):
    """Adapters of the gradients, one for planted rows; layers below all adapters.

    Of fresh adapters, each training has another: the check may stop by its ICC."""
    command = CHECK.replace("--adapter adapter ", "").replace(",given.npz", "")
    rewards = " --adapter-from-pool 0.2 --rewards loss-drop,alignment/drop:1"
    rewards += " --layers last:1"
    assert run(f"{command}{rewards}".replace("--out out", "--out warm"), None) == 0
    found = json.loads((files / "warm/check.json").read_text())
    assert list(found["rewards"]) == ["loss-drop", "alignment/drop:1"]
    stages = [home.name for home in (files / "warm/arrays/stages").iterdir()]
    for kind in ("adapter from the pool-", "path to the target-"):
        assert sum(name.startswith(kind) for name in stages) == 2
    assert len(list((files / "warm/cells").glob("lower-states-*"))) == 1


def test_trainings_share_what_lower_layers_make(files, capsys, monkeypatch):
    """Adapters in the last of two layers: the first one runs once, before the probe."""
    layers = CHECK.replace("--adapter adapter", "--layers last:1 --rewards grad-norm")
    layers = layers.replace("text,gradient/whiten/cosine,given.npz", "given.npz")
    layers = layers.replace("--quantile-seeds 1", "--quantile-seeds 0")
    layers = layers.replace("--out out", "--out layers")
    train, seen = trained.finetune.train_adapter, []

    def watched(*given, lower, **named):
        seen.append(lower)
        return train(*given, lower=lower, **named)

    monkeypatch.setattr(trained.finetune, "train_adapter", watched)
    assert run(layers, None) == 0
    # The adapter whose gradients are taken is in all layers.
    adapters = [lower for lower in seen if lower is not None]
    assert all(lower is adapters[0] for lower in adapters)
    found = json.loads((files / "layers/check.json").read_text())
    assert len(adapters) == found["cost"]["trainings"] + 1  # and the probe
    assert capsys.readouterr().out.count("run once: ") == 1


LAYERS = CHECK.replace("--adapter adapter", "--layers")


def test_a_price_leaves_out_layers_that_run_once(files):
    """Against the FLOPs of a decoder of one layer, and of one of both."""

    def price(layers, **given):
        settings = with_defaults(parse(LAYERS.replace("--layers", layers).split()))
        inputs = read_inputs(settings)
        return price_of(settings, inputs, **given), inputs, settings

    one, inputs, settings = price("--layers last:1")
    both, *_ = price("--layers last:2")
    each, *_ = price("--layers last:1", once=False)
    llm = open_llm(settings.model, None, 0)
    pool, judge = (
        Counts.of(tokenize_pool(some, llm, "answer"))
        for some in (inputs.train, inputs.judge.pool)
    )
    config = decoder_config(settings.model)
    upper = replace(config, num_layers=1)
    lower = [forward_flops(config, x) - forward_flops(upper, x) for x in (pool, judge)]
    step, share = gradient_flops(upper, pool, "all_lora"), 8 / N
    near = lambda value: pytest.approx(value, rel=1e-12)
    assert one.step_flops == near(step * share)
    assert one.judge_flops == near(forward_flops(upper, judge))
    assert one.fixed_flops - both.fixed_flops == near(sum(lower))
    assert each.step_flops == near((step + lower[0]) * share)
    assert each.judge_flops == both.judge_flops == near(forward_flops(config, judge))
    assert each.fixed_flops == both.fixed_flops
    assert both.step_flops == near(gradient_flops(config, pool, "all_lora") * share)
    assert (one.once, both.once, each.once) == (True, False, False)
    # On a machine of 1e9 FLOPs a second, all FLOPs take their time.
    for some in (one, both, each):
        rates = Rates(some.step_flops / 1e9, some.judge_flops / 1e9)
        assert some.seconds(ASKED, rates) == near(some.flops(ASKED) / 1e9)


@pytest.mark.parametrize("labels", [None, "answer"])
def test_flags_for_chats_embed_what_was_checked(files, labels):
    """Chats are scored in their answers and embedded whole, which no --labels says."""
    for name in ("train", "valid"):
        lines = (files / f"{name}.jsonl").read_text().splitlines()
        chats = [
            {
                "messages": [
                    {"role": "user", "content": record["input"]},
                    {"role": "assistant", "content": record["output"]},
                ]
            }
            for record in map(json.loads, lines)
        ]
        text = "".join(json.dumps(chat) + "\n" for chat in chats)
        (files / f"{name}.jsonl").write_text(text)
    (files / "chat.jinja").write_text(CHAT)
    flags = f"{CHECK} --template chat.jinja"
    flags += f" --labels {labels}" if labels else ""
    settings = with_defaults(parse(flags.split()))
    inputs = read_inputs(settings)
    assert inputs.training.scored == "answer"
    drawn = drawn_of(inputs, inputs.sizes, settings)
    expected = ["--labels", "answer"] if labels else []
    assert flags_of(settings, inputs, drawn).by_text == expected


def test_no_planted_answer_makes_a_chat_too_long(files):
    """Of several turns the last answer is exchanged, where there is room for it."""
    turn = lambda role, text: {"role": role, "content": text}
    for name, size in (("train", N), ("valid", M)):
        chats = [
            {
                "messages": [
                    *(turn("user", "ash " * (i % 5 + 1)), turn("assistant", "elm")),
                    turn("user", f"{name} {i} " + "fir " * (i % 7)),
                    turn("assistant", f"{i} " + "oak " * (i % 11 * 2)),
                ]
            }
            for i in range(size)
        ]
        lines = "".join(json.dumps(chat) + "\n" for chat in chats)
        (files / f"{name}.jsonl").write_text(lines)
    (files / "chat.jinja").write_text(CHAT)
    flags = f"{CHECK} --template chat.jinja --labels all --too-long"
    settings = with_defaults(parse(f"{flags} skip --max-length 150".split()))
    inputs = read_inputs(settings)
    drawn = drawn_of(inputs, inputs.sizes, settings)
    llm = open_llm(files / "llm", None, 0, template=settings.template)
    right = {example.place: example for example in inputs.train.examples}
    assert tokenize_pool(drawn.planted.pool, llm, "all").lengths.max() <= 150
    assert 0 < drawn.flag.sum() < round(settings.planted_share * len(drawn.flag))
    for example, wrong in zip(drawn.planted.pool.examples, drawn.flag, strict=True):
        *before, answer = right[example.place].record["messages"]
        *found, planted = example.record["messages"]
        assert found == before
        assert (planted != answer) == wrong
