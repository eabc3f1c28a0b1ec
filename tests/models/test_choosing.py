"""What `model=WORD` stands for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from evalkit.errors import EvalkitError
from evalkit.models.choosing import NamedModel, choose_model, is_whole_recipe, named_by_hub_id
from evalkit.models.settings import default_model, read_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with folders of these names in it."""
    for name in ("mine", "bm25", "intfloat/multilingual-e5-small", "模型 (1)"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(word: str, caplog: pytest.LogCaptureFixture) -> tuple[NamedModel, str]:
    """The model, and what was said of it."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "evalkit"):
        found = choose_model(word)
    return found, "\n".join(caplog.messages)


@pytest.mark.parametrize(
    "word", ["./mine", "../here/mine", "/mine", "~/mine", ".", "..", "./模型 (1)", "./nowhere", "./bm25"]
)
def test_a_path_is_a_folder(word: str, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it is there is said by whoever reads it."""
    assert chosen(word, caplog) == (NamedModel("auto", {"path": word}), "")


def test_a_bare_word_is_a_name(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen("bge-reranker-base", caplog) == (NamedModel("bge-reranker-base"), "")
    assert chosen("nothing-of-that-name", caplog) == (NamedModel("nothing-of-that-name"), "")
    found, said = chosen("bm25", caplog)
    assert found == NamedModel("bm25")
    assert said == "model=bm25 is evalkit's own; the folder of that name is model=./bm25"


def test_a_bare_word_that_only_a_folder_has(here: Path) -> None:
    with pytest.raises(EvalkitError, match=r"^there is no model 'mine', but a folder of that name: model=\./mine$"):
        choose_model("mine")


def test_a_user_s_own_file_is_a_name_too(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    (here / "configs" / "model").mkdir(parents=True)
    (here / "configs" / "model" / "mine.yaml").write_text("defaults: [base, _self_]\nname: mine\n")
    assert choose_model("mine", [here / "configs"]) == NamedModel("mine")


def test_a_hub_id(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen("some/model", caplog) == (NamedModel("auto", {"hub_id": "some/model"}), "")
    found, said = chosen("BAAI/bge-m3", caplog)
    assert found == NamedModel("bge-m3")
    assert said == "BAAI/bge-m3 is run by evalkit's own file for it, model=bge-m3"


def test_a_hub_id_that_a_folder_has_too(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    word = "intfloat/multilingual-e5-small"
    found, said = chosen(word, caplog)
    assert found == NamedModel("auto", {"path": f"./{word}"})
    assert said == f"model={word} is the folder here; the Hub's model is model=auto model.hub_id={word}"


def test_more_than_one_slash_is_no_hub_id(here: Path) -> None:
    with pytest.raises(
        EvalkitError, match=r"^model=a/b/c: there is no such folder, and a Hub id is ORGANISATION/NAME$"
    ):
        choose_model("a/b/c")


def test_a_hub_id_leads_to_the_file_with_its_weights() -> None:
    """Two files name bge-reranker-base; one of them runs an ONNX file in its repository."""
    assert named_by_hub_id("BAAI/bge-reranker-base") == "bge-reranker-base"
    assert named_by_hub_id("BAAI/nothing") is None


def test_only_evalkits_own_file_unchanged_is_a_whole_recipe() -> None:
    own = read_model("bge-reranker-base").model_dump(mode="json")
    assert is_whole_recipe(own)
    assert not is_whole_recipe(own | {"hub_id": "my/finetune"})
    assert not is_whole_recipe(read_model("local-embedder").model_dump(mode="json"))
    assert not is_whole_recipe(default_model())
