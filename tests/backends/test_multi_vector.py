"""Multi-vector models against sentence-transformers' own similarity; each layout of folder is a row of docs/models.md."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import demo_pairs
from command import Outcome, run_here
from folder_shapes import oddities as odd
from folder_shapes.comparison import pairs, task
from folder_shapes.layouts import write_embedder
from folder_shapes.networks import write_network
from made_tasks import make_task
from model_folders import edit_json, edit_weights
from numpy.typing import NDArray
from real_models import write_json

import evalkit
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.settings import model_settings
from evalkit.results.writing import model_meta

TOLERANCE = 1e-5
JINA = "jina-colbert-v2"


def scores(tmp_path: Path, name: str = "auto", **settings: Any) -> NDArray[np.float32]:
    model = evalkit.load_model(name, device="cpu", offline=True, cache_dir=tmp_path / "cache", **settings)
    return np.asarray(evalkit.evaluate(model, task()).candidates["score"], np.float32)


def run(tmp_path: Path, *arguments: str) -> Outcome:
    return run_here(
        "task=demo-zh", "device=cpu", f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path}", *arguments
    )


def library(folder: Path, adjust: Any = None) -> NDArray[np.float32]:
    """sentence-transformers' similarity, after a change to what it has loaded."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    if adjust:
        adjust(model)
    queries, documents = (list(texts) for texts in zip(*pairs(), strict=True))
    similarity = model.similarity_pairwise(model.encode_query(queries), model.encode_document(documents))
    return np.asarray(similarity, np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "multi"
    odd.write_multi_vector_with_settings(made)
    return made


def _shorter(model: Any) -> None:
    model[0].document_length = 12


def _bare(model: Any) -> None:
    model.prompts = {"query": "", "document": ""}


def _unexpanded(model: Any) -> None:
    model[0].query_expansion = None


def _with_every_token(model: Any) -> None:
    model[2].skiplist_words = []
    model[2].resolve_with_tokenizer(model.tokenizer)


def _summed(model: Any) -> None:
    model.similarity_fn_name = "maxsim"


@pytest.mark.parametrize(
    ("said", "adjust"),
    [
        ({}, None),
        ({"document_length": 12}, _shorter),
        ({"query_prompt": "", "document_prompt": ""}, _bare),
        ({"query_expansion": None}, _unexpanded),
        ({"skiplist": []}, _with_every_token),
        ({"interaction": "maxsim"}, _summed),
    ],
    ids=["folder", "document_length", "prompts", "query_expansion", "skiplist", "interaction"],
)
def test_what_the_user_says_leads_as_in_sentence_transformers(
    said: dict[str, Any], adjust: Any, folder: Path, tmp_path: Path
) -> None:
    expected = library(folder, adjust)
    np.testing.assert_allclose(scores(tmp_path, path=folder, **said), expected, atol=TOLERANCE, rtol=0)
    if said:
        assert np.abs(expected - library(folder)).max() > 100 * TOLERANCE


def test_the_recipe_says_all_that_decides_and_where_it_is_from(folder: Path, tmp_path: Path) -> None:
    model = evalkit.load_model("auto", path=folder, device="cpu", query_prompt="q: ", cache_dir=tmp_path / "cache")
    recipe = evalkit.evaluate(model, task()).recipe
    shown = {name: (field.value, field.origin) for name, field in recipe.items()}
    mask, encoder = "2_MultiVectorMask/config.json", "sentence_bert_config.json"
    assert (
        shown
        | {
            "kind": ("multi-vector", "config_sentence_transformers.json"),
            "query_prompt": ("q: ", "you"),
            "document_prompt": ("passage: ", "config_sentence_transformers.json"),
            "query_length": (40, encoder),
            "document_length": (50, encoder),
            "query_expansion": ({"strategy": "min", "length": 20, "attend": True}, encoder),
            "skiplist": (["[CLS]", "?"], mask),
            "skiplist_roles": (["query", "document"], mask),
            "interaction": ("meanmaxsim", "config_sentence_transformers.json"),
            "modules": (["Dense", "MultiVectorMask", "Normalize"], "modules.json"),
        }
        == shown
    )


def test_scores_are_stored_by_pair_and_the_rest_is_scored_alone(folder: Path, tmp_path: Path) -> None:
    def evaluate(*groups: Any) -> Any:
        model = evalkit.load_model("auto", path=folder, device="cpu", cache_dir=tmp_path / "cache")
        return evalkit.evaluate(model, make_task(*groups))

    first = (["感冒"], [("多喝水", 1), ("股票", 0)])
    alone = evaluate(first)
    assert (alone.usage.items, alone.timing.items_from_store) == (2, 0)
    again = evaluate(first)
    assert again.timing.items_from_store == again.usage.items == 2
    assert list(again.candidates["score"]) == list(alone.candidates["score"])
    assert model_meta(again.model, "")["model_type"] == ["late-interaction"]


def write_m3_as_library(m3: Path, folder: Path) -> None:
    """bge-m3's colbert score in sentence-transformers' words: the head, no first token, and the mean."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    head = torch.load(m3 / "colbert_linear.pt", weights_only=True)
    projection = Dense(
        64, 64, activation_function=torch.nn.Identity(), init_weight=head["weight"], init_bias=head["bias"],
        module_input_name="token_embeddings",
    )  # fmt: skip
    mask = MultiVectorMask(["<s>"], skiplist_tasks=["query", "document"])
    modules = [Transformer(str(m3)), projection, mask, Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu", similarity_fn_name="meanmaxsim").save(str(folder))


def test_bge_m3s_own_colbert_score_agrees(tiny_m3: Path, tmp_path: Path) -> None:
    write_m3_as_library(tiny_m3, tmp_path / "as-library")
    made = make_task(*(([query], [(document, 1), ("股票涨了", 0)]) for query, document in demo_pairs(8)))
    found = {}
    for name, said in (
        ("auto", {"path": tmp_path / "as-library"}),
        ("bge-m3", {"path": tiny_m3, "recipe": "colbert", "max_length": 512, "backend": "torch"}),
    ):
        model = evalkit.load_model(name, device="cpu", cache_dir=tmp_path / "cache", **said)
        found[name] = np.asarray(evalkit.evaluate(model, made).candidates["score"])
    assert np.ptp(found["bge-m3"]) > 0.01
    np.testing.assert_allclose(found["auto"], found["bge-m3"], atol=TOLERANCE, rtol=0)


def test_jina_colbert_has_mtebs_revision_and_recipe() -> None:
    import mteb

    meta = mteb.get_model_meta("jinaai/jina-colbert-v2")
    settings = model_settings(read_option("model", JINA))
    assert (settings.hub_id, settings.revision) == (meta.name, meta.revision)
    assert settings.query_prompt.strip() == meta.loader_kwargs["query_prefix"]
    assert settings.document_prompt.strip() == meta.loader_kwargs["document_prefix"]
    assert settings.query_expansion is not None
    assert settings.query_expansion["attend"] is meta.loader_kwargs["attend_to_expansion_tokens"] is True
    assert settings.document_length == meta.max_tokens
    assert settings.skiplist == tuple(string.punctuation)


def test_jina_colbert_runs_a_folder_of_its_layout_and_wants_consent(tmp_path: Path) -> None:
    folder = tmp_path / "stand-in"
    write_network(folder, "xlm-r")
    edit_weights(folder, odd.with_projection)
    edit_json(folder / "config.json", lambda config: config.update(architectures=["HF_ColBERT"]))
    said = {
        "query_token_id": "[QueryMarker]",
        "doc_token_id": "[DocumentMarker]",
        "doc_maxlen": 100,
        "query_maxlen": 32,
    }
    write_json(folder / "artifact.metadata", said | {"attend_to_mask_tokens": True})
    with pytest.raises(EvalkitError, match="trust_remote_code=true"):
        scores(tmp_path, JINA, path=folder, document_length=100)
    with pytest.raises(EvalkitError, match=r"document_length=8192.*can read 128 tokens"):
        scores(tmp_path, JINA, path=folder, max_length=128, trust_remote_code=True)
    found = scores(tmp_path, JINA, path=folder, max_length=128, document_length=100, trust_remote_code=True)
    np.testing.assert_allclose(found, library(folder), atol=TOLERANCE, rtol=0)


def _without_projection(folder: Path) -> None:
    odd.write_pylate(folder)
    shutil.rmtree(folder / "1_Dense")
    rows = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    write_json(folder / "modules.json", rows)


def _foreign(folder: Path) -> None:
    odd.write_multi_vector(folder)
    rows = json.loads((folder / "modules.json").read_text("utf-8"))
    rows[1]["type"] = "mine.Dense"
    write_json(folder / "modules.json", rows)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_embedder, "is an embedder by its modules.json"),
        (lambda folder: write_network(folder, "bert"), "would get a random projection"),
        (odd.write_splade, "is a sparse encoder"),
        (lambda folder: write_network(folder, "bert", "ForMaskedLM"), "would get a random projection"),
        (_without_projection, "what it lacks would be random"),
        (_foreign, "names mine.Dense, a module of Python code of its own"),
    ],
    ids=["embedder", "bare", "splade", "splade-bare", "no-projection", "foreign"],
)
def test_what_is_no_multi_vector_model_is_refused_by_name(write: Any, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder)
    done = run(tmp_path, "model=auto", f"model.path={folder}", "model.kind=multi-vector")
    assert done.code == 2
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("file", ["2_MultiVectorMask/config.json", "sentence_bert_config.json"])
def test_an_unknown_key_of_a_module_is_named(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    odd.write_multi_vector(folder)
    write_json(folder / file, {**json.loads((folder / file).read_text("utf-8")), "made_up": 1})
    done = run(tmp_path, "model=auto", f"model.path={folder}", "model.kind=multi-vector")
    assert done.code == 2, done.stderr
    assert "made_up" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.document_length=4000", "can read 128 tokens"),
        ("model.pooling=cls", "says nothing to"),
        ("model.interaction=cosine", "maxsim"),
        ("model.query_expansion={strategy:longest,length:9}", "strategy"),
    ],
)
def test_a_setting_that_can_not_be_is_refused(setting: str, said: str, folder: Path, tmp_path: Path) -> None:
    done = run(tmp_path, f"model={folder}", setting)
    assert done.code == 2
    assert said in done.stderr.splitlines()[-1]
