"""Models of mteb's registry through mteb's own loaders, on local weights, beside what mteb's own evaluation gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import E5, prepared
from chinese_texts import LONG_DOCUMENT
from command import run_here
from made_tasks import make_task
from mteb_tasks import mteb_predictions, mteb_task

import evalkit
from evalkit.backends import complete_settings, prepare_model
from evalkit.errors import EvalkitError
from evalkit.hub_access import reporting_hub_errors
from evalkit.models.interfaces import PairScorer, Runtime, TextEmbedder
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.records import Task
from evalkit.scoring.engine import score_task

E5_NAME = "intfloat/multilingual-e5-small"
TASK = make_task(
    (["感冒了怎么办？"], [("感冒一般一周内自愈，多喝水、多休息。", 1), ("苹果富含维生素。", 0), (LONG_DOCUMENT, 0)]),
    (["How to treat a cold?"], [("Rest, and drink a lot of water.", 1), ("The bank opens at nine.", 0)]),
    name="EvalkitMade",
)


def settings_of(name: str, **fields: Any) -> ModelSettings:
    return complete_settings(
        model_settings({"name": "mteb", "kind": "embedder", "backends": ["mteb"]}, {"name": name, **fields}), "mteb"
    )


def scores_of(settings: ModelSettings, task: Task) -> Any:
    model = prepare_model("mteb", settings, Runtime(device="cpu"))
    assert model.for_task is not None
    return score_task(model.for_task(task), settings, task).scores


def test_an_embedder_with_mtebs_prompts(e5_small: Path, tmp_path: Path) -> None:
    """As mteb.evaluate with mteb's own model gives them, and as evalkit's own recipe of e5 does."""
    import mteb

    settings = settings_of(E5_NAME, path=str(e5_small))
    assert (settings.kind, settings.similarity, settings.hub_id) == ("embedder", "cosine", E5_NAME)
    assert (settings.query_prompt, settings.document_prompt) == ("query: ", "passage: ")
    found = scores_of(settings, TASK)
    meta = mteb.get_model_meta(E5_NAME).model_copy(update={"name": str(e5_small), "revision": None})
    with reporting_hub_errors("mteb", offline=True, advice=""):  # which it would ask the Hub about
        expected = mteb_predictions(meta.load_model(device="cpu"), mteb_task(TASK), tmp_path, TASK)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    own = score_task(prepared("torch", e5_small, tmp_path, **E5), model_settings({"name": "made"} | E5), TASK).scores
    np.testing.assert_allclose(found, own, atol=1e-5, rtol=0)


def test_instructions_are_the_tasks(e5_small: Path) -> None:
    """A model that mteb instructs has another prompt on a task with one of its own, and its scores are stored apart."""
    settings = settings_of("intfloat/multilingual-e5-large-instruct", path=str(e5_small))
    model = prepare_model("mteb", settings, Runtime(device="cpu"))
    assert model.for_task is not None
    known, unknown = (model.for_task(evalkit_task(name)) for name in ("T2Reranking", "Mine"))
    assert known.way["task"]["prompt"] == "Given a Chinese search query, retrieve web passages that answer the question"
    assert unknown.way["task"]["prompt"] == "Retrieve text based on user query."
    assert known.way != unknown.way
    vectors = [embed(one, "query") for one in (known, unknown)]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    np.testing.assert_array_equal(*(embed(one, "document") for one in (known, unknown)))


def evalkit_task(name: str) -> Task:
    return make_task((["q"], [("d", 1), ("e", 0)]), name=name)


def embed(model: Any, role: Any) -> Any:
    assert isinstance(model.scorer, TextEmbedder)
    return model.scorer.embed(["感冒了怎么办？", "苹果"], role)


def test_a_cross_encoder_gives_raw_logits(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    settings = settings_of("cross-encoder/ms-marco-MiniLM-L6-v2", path=str(tiny_bert_reranker))
    assert settings.kind == "cross-encoder"
    found = scores_of(settings, TASK)
    expected = score_task(
        prepared("torch", tiny_bert_reranker, tmp_path), model_settings({"name": "made"}), TASK
    ).scores
    assert expected.min() < 0 or expected.max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    scorer = prepare_model("mteb", settings, Runtime(device="cpu")).scorer
    assert isinstance(scorer, PairScorer)


def test_names_and_revisions_are_mtebs() -> None:
    """On the Hub: no weights are needed to know what a result will be called."""
    settings = settings_of(E5_NAME)
    model = prepare_model("mteb", settings, Runtime())
    identity = model.identity
    assert (identity.name, identity.hub_id) == (E5_NAME, E5_NAME)
    assert identity.revision == "fd1525a9fd15316a2d503bf26ab031a61d056e98"
    assert model.way is not None
    assert model.way["revision"] == identity.revision
    assert "mteb" in json.dumps(model.description)


REFUSALS = {
    "mteb": "model=mteb needs model.name=ORGANISATION/NAME",
    "intfloat/multilingual-e5-smal": "there is no model of mteb's 'intfloat/multilingual-e5-smal'; did you mean intfloat/",
    "colbert-ir/colbertv2.0": "is a late-interaction model of text, similarity MaxSim; of mteb's models evalkit runs dense",
    "nomic-ai/nomic-embed-text-v1.5": "mteb runs nomic-ai/nomic-embed-text-v1.5 with code from the model's repository; if",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_models_that_it_does_not_run(name: str) -> None:
    with pytest.raises(EvalkitError) as caught:
        settings_of(name)
    assert REFUSALS[name] in str(caught.value)


def test_settings_that_mteb_decides() -> None:
    with pytest.raises(EvalkitError, match=r"model.pooling says nothing to"):
        evalkit.load_model("mteb", name=E5_NAME, pooling="cls")


def test_the_hub_out_of_reach() -> None:
    model = prepare_model("mteb", settings_of("intfloat/e5-base"), Runtime(device="cpu", offline=True))
    with pytest.raises(EvalkitError, match=r"^mteb can't load intfloat/e5-base: .*model.path=FOLDER$") as caught:
        _ = model.scorer
    assert "\n" not in str(caught.value)


def test_from_the_command_line(e5_small: Path, tmp_path: Path) -> None:
    done = run_here("task=demo-zh2en", "limit=2", "model=mteb", f"model.name={E5_NAME}", f"model.path={e5_small}",
                    f"results_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}")  # fmt: skip
    assert done.code == 0, done.stderr
    (path,) = tmp_path.rglob("EvalkitDemoZh2En.json")
    assert "experiments/backend-mteb_limit-2" in str(path)  # beside evalkit's own results of these weights
    block = json.loads(path.read_text(encoding="utf-8"))["evalkit"]
    assert block["backend"]["name"] == "mteb"
    assert block["model"]["name"] == E5_NAME
