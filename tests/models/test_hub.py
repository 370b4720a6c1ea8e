"""Models named as on the hub, over real HTTP from a server on loopback."""

from pathlib import Path

import pytest
import tiny
from hub_server import GATED, MAIN, OLD, PRIVATE, serving
from huggingface_hub import constants

from goracs_jax.cli import main
from goracs_jax.errors import InputError
from goracs_jax.models.hub import fetch_model, is_hub_name, published_name

NAME = "org/tiny"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model in two revisions, an empty cache, and an empty folder."""
    model, old = tiny.write_llm(tmp_path / "new"), tiny.write_llm(tmp_path / "old")
    for name in ("pytorch_model.bin", "modeling.py", "onnx/config.json", "README.md"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("not to be fetched")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serving({NAME: {MAIN: model, OLD: old}, GATED: {MAIN: model}}) as server:
        # The library reads its variables once, at import.
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_weights_config_and_tokenizer_are_fetched_and_nothing_else(hub):
    folder = fetch_model(NAME)
    served = files(hub.repos[NAME][MAIN])
    wanted = {n for n in served if n.endswith(("json", "safetensors")) and "/" not in n}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= wanted
    assert files(folder) == {name: served[name] for name in wanted}
    assert published_name(folder) == NAME
    before = len(hub.asked)
    assert fetch_model(NAME) == folder
    assert not [path for path in hub.asked[before:] if "resolve" in path]


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": {"a": "part.safetensors"}}']
)
def test_shards_are_fetched_by_the_names_in_the_index(hub, index):
    model = hub.repos[NAME][MAIN]
    (model / "model.safetensors").rename(model / "part.safetensors")
    (model / "other.safetensors").write_bytes(b"not to be fetched")
    (model / "model.safetensors.index.json").write_text(index)
    found = {name for name in files(fetch_model(NAME)) if name.endswith("safetensors")}
    assert found == ({"part.safetensors"} if "part" in index else set())


def test_a_revision_is_a_tag_or_a_commit(hub):
    assert fetch_model(NAME, "v1").name == fetch_model(NAME, OLD).name == OLD
    assert fetch_model(NAME, "main").name == MAIN


def test_sizes_need_config_alone(hub):
    assert list(files(fetch_model(NAME, files="config"))) == ["config.json"]


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("org/none", None, "org/none: neither a folder here nor a model that the hub"),
        (PRIVATE, None, "for a private model, log in with `hf auth login`"),
        (GATED, None, "org/gated: the hub gives this model only to those who have"),
        (NAME, "v9", "org/tiny at revision v9: the hub has the model, but not this"),
    ],
)
def test_what_the_hub_does_not_give(hub, name, revision, message):
    with pytest.raises(InputError, match=message) as error:
        fetch_model(name, revision)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["m-Q4_K_M.gguf", "adapter_config.json"])
def test_what_is_no_folder_of_a_model(hub, tmp_path, name):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / name).write_text("{}")
    hub.repos["org/other"] = {MAIN: folder}
    with pytest.raises(InputError, match=r"org/other: the hub has no config\.json"):
        fetch_model("org/other")


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_cache_serves(hub, monkeypatch, offline):
    folder = fetch_model(NAME)
    reason = "HF_HUB_OFFLINE is set" if offline else "refused"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert fetch_model(NAME) == folder
    for name, revision in (("org/none", None), (NAME, "v1")):
        with pytest.raises(InputError, match=f"cannot be reached .*{reason}"):
            fetch_model(name, revision)


def test_what_is_here_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name(Path(NAME))
    Path("org").mkdir()  # the model would lie in it: a mistake in the path
    assert not is_hub_name(Path(NAME))
    for path in ("/a/b", "a", "a/b/c", "../b", "a/b.gguf", "a b/c", "a/"):
        assert not is_hub_name(Path(path))


def embed(tmp_path, *more: str) -> int:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Say yes.", "output": "Yes"}\n')
    words = ["--data", str(rows), "--out", str(tmp_path / "e.npy"), "--dry-run"]
    return main(["embed", *words, *more])


def test_a_verb_takes_the_name(hub, tmp_path, capsys):
    assert embed(tmp_path, "--model", NAME, "--revision", "v1") == 0
    assert f"model {NAME}: revision {OLD}\n" in capsys.readouterr().out
    assert embed(tmp_path, "--model", "org/none") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("goracs: org/none: neither a folder here nor a model")
    asked = len(hub.asked)
    words = f"embed --data none.jsonl --model {NAME} --revision {OLD} --out e.npy"
    assert main(words.split()) == 2
    assert "none.jsonl does not exist" in capsys.readouterr().err
    assert len(hub.asked) == asked  # a mistake costs no download
    here = str(hub.repos[NAME][MAIN])
    assert embed(tmp_path, "--model", here, "--revision", "v1") == 2
    assert "is here: leave it out" in capsys.readouterr().err
