import json

import pytest

from goracs_jax.errors import InputError
from goracs_jax.models.sentence import sentence_options

STEPS = [
    {"type": f"sentence_transformers.models.{kind}", "path": path}
    for kind, path in [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        ("Normalize", "2_Normalize"),
    ]
]


@pytest.fixture
def write(tmp_path):
    """Writes the files of a folder that are given, over a complete one."""

    def write(files=None):
        everything = {
            "modules.json": STEPS,
            "1_Pooling/config.json": {
                "word_embedding_dimension": 8,
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": True,
            },
            "sentence_bert_config.json": {"max_seq_length": 7, "do_lower_case": True},
            "tokenizer_config.json": {"model_max_length": 9},
            "config_sentence_transformers.json": {"default_prompt_name": None},
        }
        (tmp_path / "1_Pooling").mkdir()
        for name, content in (everything | (files or {})).items():
            if content is not None:
                (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return write


def test_everything_is_read(write):
    options = {"pooling": "mean", "normalize": True, "lowercase": True}
    assert sentence_options(write()) == options | {"max_tokens": 7}


def test_what_is_left_out(write):
    folder = write({"modules.json": STEPS[:2], "sentence_bert_config.json": None})
    assert sentence_options(folder) == {
        "pooling": "mean",
        "normalize": False,
        "max_tokens": 9,
    }


@pytest.mark.parametrize(
    "kind",
    ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"],
)
def test_every_name_of_the_file_of_the_length(write, kind):
    """The seven names of sentence-transformers; the first that is there counts."""
    files = {
        "sentence_bert_config.json": None,
        "sentence_xlnet_config.json": {"max_seq_length": 6},
        f"sentence_{kind}_config.json": {"max_seq_length": 5, "do_lower_case": True},
    }
    options = sentence_options(write(files))
    assert (options["max_tokens"], options["lowercase"]) == (5, True)


@pytest.mark.parametrize("length", [512, 1e30])
def test_a_plain_folder_tells_the_length_at_most(tmp_path, length):
    assert sentence_options(tmp_path) == {}
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"model_max_length": length}))
    assert sentence_options(tmp_path) == {"max_tokens": int(length)}


@pytest.mark.parametrize(
    ("raw", "mode"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "max", "embedding_dimension": 8}, "max"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_pooling_modes(write, raw, mode):
    assert sentence_options(write({"1_Pooling/config.json": raw}))["pooling"] == mode


OUT = STEPS[1] | {"path": "../1_Pooling"}
INFINITE = float("inf")
BOTH = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("modules.json", [*STEPS, {"type": "a.Dense"}], "module 'Dense' is not"),
        ("modules.json", STEPS[:1], "modules Transformer are not supported"),
        ("modules.json", [STEPS[0], *STEPS[:0:-1]], "Transformer, Normalize, Pooling"),
        ("modules.json", [STEPS[0] | {"path": "0_T"}, STEPS[1]], "in folder '0_T'"),
        ("modules.json", {}, "must be a list of objects"),
        ("modules.json", [STEPS[0], OUT], "'../1_Pooling/config.json' leads outside"),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, "must be true or false"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "max_seq_length must"),
        ("tokenizer_config.json", {"model_max_length": INFINITE}, "Infinity is no num"),
        ("1_Pooling/config.json", BOTH, "max_tokens \\+ pooling_mode_mean_tokens"),
        ("1_Pooling/config.json", {}, "pooling none is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "pooling lasttoken"),
        (
            "sentence_bert_config.json",
            {"max_seq_length": "7"},
            "max_seq_length must be",
        ),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query"},
            "default_prompt_name 'query' is not supported",
        ),
    ],
)
def test_refuses_by_name(write, name, content, named):
    with pytest.raises(InputError, match=named) as error:
        sentence_options(write({name: content}))
    assert name in str(error.value)
    assert "\n" not in str(error.value)
