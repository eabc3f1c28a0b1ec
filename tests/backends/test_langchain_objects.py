"""Objects of the user's own that follow LangChain's interfaces: model=langchain model.object=MODULE:NAME."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run_here

import evalkit
from evalkit.errors import EvalkitError

pytest.importorskip("langchain_huggingface")

MODULE = '''
from langchain_core.embeddings import Embeddings


class Letters(Embeddings):
    """How often each letter of the alphabet occurs; queries are told by a last number."""

    def embed_documents(self, texts):
        return [[text.lower().count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] + [0.0] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0][:-1] + [9.0]


class Lengths:
    def score(self, text_pairs):
        return (len(document) / (1 + len(query)) for query, document in text_pairs)


embeddings = Letters()
holder = type("Holder", (), {"reranker": Lengths()})
number = 3


def broken():
    raise RuntimeError("no key in the environment\\nset one")
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, of another name in each test."""
    name = f"made_objects_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    ("place", "kind", "first"),
    [("embeddings", "embedder", None), ("Letters", "embedder", None), ("holder.reranker", "cross-encoder", 4 / 3)],
)
def test_an_object_is_run(place: str, kind: str, first: float | None, module: str, tmp_path: Path) -> None:
    model = evalkit.load_model("langchain", object=f"{module}:{place}", cache_dir=tmp_path / "cache")
    assert model.settings.kind == kind
    (tmp_path / "data.jsonl").write_text(
        json.dumps({"query": ["ab", "zz"], "positive": ["abab"], "negative": ["xyx"]}) + "\n", encoding="utf-8"
    )
    result = evalkit.evaluate(model, evalkit.load_task(path=tmp_path / "data.jsonl"))
    assert result.scores["map"] == 1
    assert result.model.name == f"{module}:{place}"
    scores = result.candidates["score"].tolist()
    if first is None:  # a query's last number, which makes it unlike any document
        assert 0 < scores[1] < scores[0] < 0.5
    else:
        assert scores == pytest.approx([4 / 3, 1])
    assert result.backend["class"].startswith(f"{module}.")
    assert not (tmp_path / "cache").exists()  # nobody knows what could change such a score


def test_from_the_command_line(module: str, tmp_path: Path) -> None:
    done = run_here("task=demo-zh2en", "limit=2", "model=langchain", f"model.object={module}:embeddings",
                    f"results_dir={tmp_path / 'results'}")  # fmt: skip
    assert done.code == 0, done.stderr
    (path,) = (tmp_path / "results").rglob("EvalkitDemoZh2En.json")
    assert json.loads(path.read_text(encoding="utf-8"))["evalkit"]["backend"]["name"] == "langchain"


REFUSALS = {
    None: "model=langchain needs model.object=MODULE:NAME",
    "MODULE": "write MODULE:NAME, as in my_search.models:embeddings",
    "no_such_module:x": "model.object=no_such_module:x can't be loaded: No module named 'no_such_module'",
    "MODULE:nothing": "can't be loaded: module 'MODULE' has no attribute 'nothing'",
    "MODULE:number": "is a int, neither an Embeddings (embed_query, embed_documents) nor a cross-encoder (score)",
    "MODULE:broken": "can't be loaded: no key in the environment set one",
}


@pytest.mark.parametrize("place", REFUSALS)
def test_what_is_no_such_object(place: str | None, module: str) -> None:
    given = {} if place is None else {"object": place.replace("MODULE", module)}
    with pytest.raises(EvalkitError) as caught:
        evalkit.load_model("langchain", **given)
    assert REFUSALS[place].replace("MODULE' has", f"{module}' has") in str(caught.value)
    assert "\n" not in str(caught.value)
