"""Token ids and scored tokens of chats, against the data preparation of TRL's trainer.

TRL carries the templates of Llama 3, Qwen 2.5 and 3, Gemma 3 and others. That of
SmolLM2 comes with its weights, that of Mistral is ours, in the same form: TRL does not
know them, so it is given the same template with marks around the answers.
"""

import json
from itertools import pairwise
from pathlib import Path

import chats
import numpy as np
import pytest
import trl
from datasets import Dataset, load_dataset
from templates import NONE, OTHER, PARTLY, SAME, TEMPLATES, TEXT
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from goracs_jax import cli
from goracs_jax.data.examples import read_examples, written
from goracs_jax.errors import InputError
from goracs_jax.llm.conversations import in_parts
from goracs_jax.llm.template_choice import TemplateChoice
from goracs_jax.llm.tokenization import load_tokenizer, tokenize

# TRL sets fields of transformers' arguments under their former names.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

CARRIED = Path(trl.__file__).with_name("chat_templates")
KNOWN = ("llama3", "qwen2_5", "qwen3", "gemma3", "phi3", "qwen3_6", "cohere")
OWN = {
    "smollm2": (chats.CHATML, chats.CHATML_MARKED),
    "mistral": (chats.INST, chats.INST_MARKED),
    "mistral 0.1": (chats.INST_SPACED, chats.INST_SPACED_MARKED),
}
# Of those whose chats are in no other test of prompt and completion, one of each way to
# open and to end an answer.
ROUNDS = ("deepseekv3", "glm4moe", "gptoss", "nemotron_3_nano", "qwen3_5_nothink")


def template(name):
    return OWN[name][0] if name in OWN else (CARRIED / f"{name}.jinja").read_text()


def turns(name):
    """The chats that a template takes."""
    alone = name in ("gemma", "mistral", "mistral 0.1")
    return chats.TURNS if alone else chats.TURNS | chats.WITH_SYSTEM


@pytest.fixture(scope="module")
def model():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=500, num_hidden_layers=1, **sizes))


@pytest.fixture(scope="module")
def prepared(model, tmp_path_factory):
    """What TRL trains on: ids and labels of each record."""

    def prepare(folder, records, marked=None, **settings):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        tokenizer.chat_template = marked or tokenizer.chat_template
        out = tmp_path_factory.mktemp("trl")
        options = {"use_cpu": True, "report_to": "none", "max_length": None}
        trainer = SFTTrainer(
            model,
            SFTConfig(output_dir=str(out), **options, **settings),
            train_dataset=_data(records),
            processing_class=tokenizer,
        )
        rows = trainer.train_dataset
        return [(row["input_ids"], row["labels"]) for row in rows]

    return prepare


def _data(records):
    return records if isinstance(records, Dataset) else Dataset.from_list(records)


def tokens(folder, records, scored, name=None):
    """What is trained on here."""
    examples = read_examples(records)
    tokenizer = load_tokenizer(folder)
    made = TemplateChoice.read(name).of(examples[0].form, tokenizer)
    texts = [*written(examples, lambda said: made.whole(said, scored))]
    found = tokenize(texts, tokenizer, labels=scored, context=10**6)
    ends = found.offsets
    return [
        (found.ids[a:b].tolist(), found.labels[a:b].tolist()) for a, b in pairwise(ends)
    ]


@pytest.mark.parametrize("name", [*KNOWN, *OWN])
def test_messages_are_masked_as_trl_masks_them(name, prepared, tmp_path):
    folder = chats.write_tokenizer(tmp_path / name, template(name))
    records = [{"messages": each} for each in turns(name).values()]
    marked = OWN[name][1] if name in OWN else None
    expected = prepared(folder, records, marked, assistant_only_loss=True)
    assert tokens(folder, records, "answer") == expected
    assert tokens(folder, records, "all") == prepared(folder, records)
    if marked:
        file = tmp_path / "marked.jinja"
        file.write_text(marked)
        assert tokens(folder, records, "answer", str(file)) == expected


@pytest.mark.parametrize("name", [*KNOWN, *OWN, *ROUNDS])
def test_completions_are_masked_as_trl_masks_them(name, prepared, tmp_path):
    folder = chats.write_tokenizer(tmp_path / name, template(name))
    cut = [(each[:k], each[k:]) for each in turns(name).values() for k in (1, 2, 3)]
    records = [
        {"prompt": asked, "completion": rest}
        for asked, rest in cut
        if any(each["role"] == "assistant" for each in rest)
        and asked[-1]["role"] == "user"
    ]
    assert len(records) > 5
    assert tokens(folder, records, "answer") == prepared(folder, records)
    everything = prepared(folder, records, completion_only_loss=False)
    assert tokens(folder, records, "all") == everything


def test_the_published_template_and_tokenizer_of_smollm2(smollm2, prepared, tmp_path):
    tokenizer = load_tokenizer(smollm2)
    tokenizer.save_pretrained(tmp_path / "saved")
    published = tokenizer.chat_template
    turn = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    end = "'<|im_end|>' + '\n'}}"
    marks = (
        "{{'<|im_start|>' + message['role'] + '\n'}}"
        "{% if message['role'] == 'assistant' %}{% generation %}"
        f"{{{{message['content'] + {end}{{% endgeneration %}}"
        f"{{% else %}}{{{{message['content'] + {end}{{% endif %}}"
    )
    marked = published.replace(turn + end, marks)
    assert marked != published
    records = [{"messages": each} for each in turns("smollm2").values()]
    expected = prepared(tmp_path / "saved", records, marked, assistant_only_loss=True)
    assert tokens(smollm2, records, "answer") == expected
    assert tokens(smollm2, records, "all") == prepared(tmp_path / "saved", records)


def test_plain_prompts_are_joined_as_trl_joins_them(prepared, tmp_path):
    folder = chats.write_tokenizer(tmp_path / "t", template("llama3"))
    pairs = [
        ("Which", " one?"),
        ("Which o", "ne?"),
        ("naïve 😀", "😀"),
        ("a\n", "b<eos>"),
    ]
    records = [{"prompt": asked, "completion": answer} for asked, answer in pairs]
    assert tokens(folder, records, "answer") == prepared(folder, records)
    everything = prepared(folder, records, completion_only_loss=False)
    assert tokens(folder, records, "all") == everything


def test_sharegpt_is_read_as_trl_reads_it(prepared, tmp_path):
    """TRL does not translate `human` and `gpt`, and cannot score answers alone."""
    folder = chats.write_tokenizer(tmp_path / "t", template("qwen3"))
    turn = lambda each: {"from": each["role"], "value": each["content"]}
    records = [{"conversations": list(map(turn, x))} for x in chats.TURNS.values()]
    assert tokens(folder, records, "all") == prepared(folder, records)
    as_messages = [{"messages": each} for each in chats.TURNS.values()]
    expected = tokens(folder, as_messages, "answer")
    assert tokens(folder, records, "answer") == expected
    names = {"user": "human", "assistant": "gpt"}
    turn = lambda each: {"from": names[each["role"]], "value": each["content"]}
    records = [{"conversations": list(map(turn, x))} for x in chats.TURNS.values()]
    assert tokens(folder, records, "answer") == expected


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}])
def test_tools_and_options_are_those_of_the_record(options, prepared, tmp_path):
    folder = chats.write_tokenizer(tmp_path / "t", template("qwen3"))
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    tool = {"type": "function", "function": {"name": "f", "description": "d"}}
    record = {
        "messages": [
            {"role": "user", "content": "call f"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2."},
        ],
        "tools": json.dumps([tool]),
        "chat_template_kwargs": options,
    }
    expected = prepared(folder, [record], assistant_only_loss=True)
    assert tokens(folder, [record], "answer") == expected


# Templates of models that see pictures, which want the content in parts.
PARTS = ("idefics3", "llava_next", "smolvlm")
# The end of text of a template that writes it out; a space behind it parts its turns.
ENDS = {"llava_next": "</s>"}
MARKED = tuple(TEMPLATES)


def test_the_templates_that_trl_knows_are_listed():
    paths = CARRIED.glob("*_training.jinja")
    assert sorted(p.name.removesuffix("_training.jinja") for p in paths) == [*MARKED]


@pytest.mark.parametrize("name", [n for n in MARKED if n not in KNOWN])
def test_other_templates_that_trl_knows(name, prepared, tmp_path):
    config = {"eos_token": ENDS[name]} if name in ENDS else {}
    folder = chats.write_tokenizer(tmp_path / name, template(name), **config)
    given = turns(name)
    records = [{"messages": each} for each in given.values()]
    # TRL with a tokenizer leaves the content as it is, and these write nothing of text.
    read = in_parts if name in PARTS else list
    as_read = [{"messages": read(each)} for each in given.values()]
    expected = prepared(folder, as_read, assistant_only_loss=True)
    assert any(any(label >= 0 for label in labels) for _, labels in expected)
    assert tokens(folder, records, "answer") == expected


def marked_by_trl(name, folder, chat):
    """The ids, and those of them that the variant of TRL marks."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    variant = (CARRIED / f"{name}_training.jinja").read_text()
    options = {"return_dict": True, "return_assistant_tokens_mask": True}
    found = tokenizer.apply_chat_template(chat, chat_template=variant, **options)
    pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
    return found["input_ids"], [i if scored else -100 for i, scored in pairs]


# In chats of these kinds they write an answer otherwise once more turns follow.
REWRITTEN = {"diffusion_gemma": {"two", "thinking"}, "gptoss": {"two", "thinking"}}


@pytest.mark.parametrize("name", MARKED)
def test_calls_of_tools_are_masked_as_the_table_says(name, tmp_path):
    folder, (_, tools) = (
        chats.write_tokenizer(tmp_path / name, template(name)),
        TEMPLATES[name],
    )
    rewritten = REWRITTEN.get(name, {"thinking"}) if tools in (PARTLY, OTHER) else ()
    for kind, chat in chats.WITH_TOOLS.items():
        record = {"messages": chat}
        if kind in rewritten:
            with pytest.raises(InputError, match="an answer otherwise once more turns"):
                tokens(folder, [record], "answer")
        elif tools in (SAME, PARTLY):
            expected = marked_by_trl(name, folder, chat)
            assert tokens(folder, [record], "answer") == [expected], kind
        elif tools == TEXT:
            with pytest.raises(InputError, match="the chat template refuses it"):
                tokens(folder, [record], "answer")
        elif tools == OTHER:
            expected = marked_by_trl(name, folder, chat)
            assert tokens(folder, [record], "answer") != [expected], kind


@pytest.mark.parametrize("name", MARKED)
def test_variants_of_trl_may_be_given_as_templates(name, tmp_path):
    folder = chats.write_tokenizer(tmp_path / name, template(name))
    variant = str(CARRIED / f"{name}_training.jinja")
    more = chats.WITH_TOOLS.values() if TEMPLATES[name][1] != NONE else ()
    for chat in (*turns(name).values(), *more):
        read = in_parts(chat) if name in PARTS else chat
        expected = marked_by_trl(name, folder, read)
        assert tokens(folder, [{"messages": chat}], "answer", variant) == [expected]


def test_a_line_feed_behind_a_mark_is_scored_in_a_completion_alone(prepared, tmp_path):
    """In TRL 1.16: the same chat, once as messages, once as prompt and completion."""
    marked = chats.CHATML_MARKED.replace(
        "'<|im_end|>' + '\n'}}{% endgeneration %}",
        "'<|im_end|>' }}{% endgeneration %}{{ '\n' }}",
    )
    assert marked != chats.CHATML_MARKED
    folder = chats.write_tokenizer(tmp_path / "t", marked)
    asked, answer = chats.TURNS["one"]
    as_messages = [{"messages": [asked, answer]}]
    apart = [{"prompt": [asked], "completion": [answer]}]
    ((ids, one),) = prepared(folder, as_messages, assistant_only_loss=True)
    ((same, other),) = prepared(folder, apart)
    assert ids == same
    assert (one[-1], other[-1]) == (-100, ids[-1])
    assert one[:-1] == other[:-1]
    assert tokens(folder, as_messages, "answer") == [(ids, one)]
    assert tokens(folder, apart, "answer") == [(ids, other)]


FILES = {
    "messages": [{"messages": each} for each in chats.TURNS.values()],
    "sharegpt": [
        {"conversations": [{"from": m["role"], "value": m["content"]} for m in each]}
        for each in chats.TURNS.values()
    ],
    "apart": [
        {"prompt": each[:1], "completion": each[1:]} for each in chats.TURNS.values()
    ],
    "texts": [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(6)],
}


@pytest.mark.parametrize("name", FILES)
def test_trl_trains_on_a_coreset_as_on_the_pool(name, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = chats.write_tokenizer(tmp_path / "llm", template("qwen2_5"))
    pool = [{"id": str(i), **record} for i, record in enumerate(FILES[name])]
    lines = "".join(json.dumps(record) + "\n" for record in pool)
    (tmp_path / "pool.jsonl").write_text(lines)
    rng = np.random.default_rng(0)
    for side, rows in (("x", len(pool)), ("y", 4)):
        np.save(f"{side}.npy", rng.normal(size=(rows, 3)).astype(np.float32))
    line = "select --train-embeddings x.npy --valid-embeddings y.npy --budget 3"
    more = "--train pool.jsonl --method random --out out"
    assert cli.main([*line.split(), *more.split()]) == 0
    load = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    read = load_dataset("json", data_files="out/coreset.jsonl", **load)
    chosen = [pool[row] for row in np.load("out/indices.npy")]
    assert [row["id"] for row in read] == [row["id"] for row in chosen]
    assert prepared(folder, read) == prepared(folder, chosen)
    assert prepared(folder, read) == tokens(
        folder, chosen, "answer" if name in ("apart", "texts") else "all"
    )
