"""What mteb's loaders heed, held against the calls that they make; and the standing of every model of mteb's registry."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers
from made_tasks import make_task, scored
from mteb.models.model_implementations import MODEL_REGISTRY
from scoring.fakes import Lists, listed

from evalkit.backends import complete_settings, prepare_model
from evalkit.backends import mteb as backend
from evalkit.backends.mteb_loaders import LISTWISE, LOADERS, REFUSED, Heeded, loader_name, standing
from evalkit.errors import EvalkitError
from evalkit.models.findings import collecting
from evalkit.models.interfaces import PairScorer, Runtime, TextEmbedder
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.scoring.engine import score_task

STANDINGS = Path(__file__).with_name("mteb_standings.json")
REVISION = "0123456789012345678901234567890123456789"
DEVICE = "cuda:7"
FOLDER = "/nowhere/a-folder"
AUTO_CLASSES = (
    *("AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification"),
    *("AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer"),
)
E5 = "intfloat/multilingual-e5-small"


def settings_of(name: str, **fields: Any) -> ModelSettings:
    given = {"name": "mteb", "kind": "embedder", "backends": ["mteb"]}
    return complete_settings(model_settings(given, {"name": name, **fields}), "mteb")


def runnable_by_kind(meta: Any) -> bool:
    """Whether evalkit would run the model, were its loader known."""
    kinds = [kind for kind in meta.model_type if kind in backend.KINDS]
    return bool(
        len(meta.model_type) == 1
        and kinds
        and "text" in meta.modalities
        and meta.similarity_fn_name in backend.SIMILARITIES
        and meta.loader is not None
    )


def standings() -> dict[str, dict[str, int]]:
    """Count the models of the registry, by their standing and their loader."""
    counts: dict[str, Counter[str]] = {}
    for meta in MODEL_REGISTRY.values():
        stands, loader = (
            (standing(meta), loader_name(meta)) if runnable_by_kind(meta) else ("of other kinds", "of any loader")
        )
        counts.setdefault(stands, Counter())[loader] += 1
    return {stands: dict(sorted(loaders.items())) for stands, loaders in sorted(counts.items())}


def test_every_model_of_the_registry_has_a_standing() -> None:
    """A loader that mteb adds, or a model that changes its loader, fails here: read the loader, then write the file anew.

    python -c 'import json, test_mteb_loaders as t; t.STANDINGS.write_text(json.dumps(t.standings(), indent=1) + "\\n")'
    """
    found = standings()
    totals = {stands: sum(loaders.values()) for stands, loaders in found.items()}
    assert sum(totals.values()) == len(MODEL_REGISTRY)
    assert totals == {"verified": 474, "unverified": 233, "API": 57, "refused": 1, "of other kinds": 204}
    assert found == json.loads(STANDINGS.read_text("utf-8"))
    assert set(REFUSED) == set(found["refused"])
    assert set(LISTWISE) <= set(LOADERS)
    assert set(found["verified"]) <= set(LOADERS) <= set(found["verified"]) | set(found["unverified"])


def runs(name: str, *, said: bool) -> bool:
    try:
        settings_of(name, trust_remote_code=True, unverified_loader=said)
    except EvalkitError:
        return False
    return True


@pytest.mark.parametrize("said", [False, True])
def test_a_model_runs_by_its_standing(said: bool) -> None:
    """Without the user's word a verified loader alone; with it all but listwise models."""
    admitted = {"verified", "unverified", "API"} if said else {"verified"}
    expected = [name for name, meta in MODEL_REGISTRY.items() if runnable_by_kind(meta) and standing(meta) in admitted]
    assert [name for name in MODEL_REGISTRY if runs(name, said=said)] == expected


def new_loader(name: str, **_: Any) -> Any:
    raise AssertionError(name)


def test_a_loader_that_is_not_in_the_table_is_unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass of a verified one too: it may load otherwise."""
    subclass = type("Newer", (MODEL_REGISTRY[E5].loader,), {})
    for loader in (new_loader, subclass):
        meta = MODEL_REGISTRY[E5].model_copy(update={"loader": loader})
        monkeypatch.setitem(MODEL_REGISTRY, E5, meta)
        assert standing(meta) == "unverified"
        with pytest.raises(
            EvalkitError, match="is not verified: it may ignore revision, device, dtype, prompts, consent"
        ):
            settings_of(E5)
        model = prepare_model("mteb", settings_of(E5, unverified_loader=True), Runtime(device="cpu"))
        assert (model.identity.revision, model.way) == ("", None)


# the calls of a loader


class Fakes:
    """Stand-ins for what loaders call to load a model; they note each call, and what is done with what they return."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.loaded = MagicMock()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        return self.loaded

    from_pretrained = __call__


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes()
    fakes.loaded.prompts = {}
    fakes.loaded.encode.return_value = [3, 1]
    fakes.loaded.tokenizer.model_max_length = fakes.loaded.model_max_length = 512
    fakes.loaded.get_vocab.return_value.__contains__.return_value = True
    fake_cross_encoder = type("CrossEncoder", (), {"__new__": lambda cls, *a, **k: fakes(*a, **k)})
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", fakes)
    monkeypatch.setattr(sentence_transformers, "CrossEncoder", fake_cross_encoder)
    for name in AUTO_CLASSES:
        monkeypatch.setattr(transformers, name, fakes)
    for module, name in (("FlagEmbedding", "FlagReranker"), ("model2vec", "StaticModel")):
        made = ModuleType(module)
        setattr(made, name, fakes)
        monkeypatch.setitem(sys.modules, module, made)
    monkeypatch.setattr("mteb.models.sentence_transformer_wrapper._run_scoring_head_in_fp32", lambda model: None)
    return fakes


def values_of(given: Any) -> list[Any]:
    """All values in nested arguments."""
    if isinstance(given, dict):
        return [inner for value in given.values() for inner in values_of(value)]
    if isinstance(given, list | tuple):
        return [inner for value in given for inner in values_of(value)]
    return [given]


def precision(value: Any) -> str:
    return str(getattr(value, "value", value)).removeprefix("torch.")


def dtypes(given: Any) -> set[str]:
    """The precisions in nested arguments."""
    return {precision(value) for value in values_of(given)} & {"float16", "bfloat16", "float32", "auto"}


def watch(meta: Any, fakes: Fakes) -> Heeded:
    """Load a model with the fakes, and say what its calls heeded; prompts are looked at elsewhere."""
    fakes.calls.clear()
    fakes.loaded.reset_mock()
    meta.loader(meta.name, revision=REVISION, **meta.loader_kwargs | {"device": DEVICE})
    moved = str(fakes.loaded.mock_calls)
    named = [named for _, named in fakes.calls]
    assert named, f"{meta.name}: no call was noted"
    trusts = any("trust_remote_code" in one and one["trust_remote_code"] for one in named)
    heeded = {
        "revision": all(REVISION in values_of(call) for call in fakes.calls),
        "device": DEVICE in moved or any(DEVICE in values_of(one) for one in named),
        "dtype": dtypes(fakes.calls) == dtypes(meta.loader_kwargs) and "use_fp16" not in named[0],
        "consent": not trusts or bool(meta.loader_kwargs.get("trust_remote_code")),
        "path": all(arguments[:1] == (meta.name,) or meta.name in values_of(one) for arguments, one in fakes.calls),
    }
    return Heeded(**heeded)


@pytest.mark.parametrize("loader", sorted(LOADERS))
def test_calls_are_as_the_table_says(loader: str, fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every model of the registry with a loader of the table, loaded by its name."""
    # by its name these look up tokens or repositories, as the table's `path` says of them
    by_name = {name for name, heeded in LOADERS.items() if not heeded.path}
    monkeypatch.setattr("mteb.models.model_meta.ModelMeta._check_requirements", lambda self: None)
    metas = [meta for meta in MODEL_REGISTRY.values() if meta.loader is not None and loader_name(meta) == loader]
    assert metas
    for meta in metas:
        found, said = watch(meta, fakes), LOADERS[loader]
        for field in ("revision", "device", "dtype", "consent"):
            assert getattr(found, field) == getattr(said, field), (meta.name, field, fakes.calls)
        if loader not in by_name:
            assert found.path, (meta.name, fakes.calls)


def test_loaders_that_go_by_a_models_name(fakes: Fakes) -> None:
    meta = MODEL_REGISTRY["mongodb/voyage-4-nano"]
    meta.loader(FOLDER, revision=None)
    assert FOLDER not in values_of(fakes.calls)

    with pytest.raises(Exception, match="We don't know the indexes"):
        MODEL_REGISTRY["castorini/monot5-base-msmarco-10k"].loader(FOLDER)

    fakes.loaded.encode.side_effect = lambda texts, **_: np.arange(4, dtype=np.float32)[None] ** 2
    name = "nomic-ai/nomic-embed-text-v1.5"
    place = backend.TaskPlace(backend._metadata(backend.UNKNOWN_TASK, ()), "test", "default")
    prompts = MODEL_REGISTRY[name].loader_kwargs["model_prompts"]
    by_name, by_folder = (
        backend.MtebEmbedder(MODEL_REGISTRY[name].loader(called, REVISION, model_prompts=prompts), place)
        for called in (name, FOLDER)
    )
    assert np.abs(by_name.embed(["a"], "query") - by_folder.embed(["a"], "query")).max() > 1


@pytest.mark.parametrize("name", ["mongodb/voyage-4-nano", "nomic-ai/nomic-embed-text-v1.5", "google/flan-t5-base"])
def test_a_folder_is_refused_where_the_name_decides(name: str, e5_small: Path) -> None:
    with pytest.raises(EvalkitError, match=rf"^model\.path=.*goes by the name {name}"):
        settings_of(name, path=str(e5_small), trust_remote_code=True, unverified_loader=True)


def test_consent_is_asked_for_before_anything_loads() -> None:
    """Where the registry hides it in arguments that the loader hands on; a loader's own is refused when code would run."""
    with pytest.raises(EvalkitError, match=r"if you trust its author: model\.trust_remote_code=true"):
        settings_of("infgrad/Jasper-Token-Compression-600M")


# real folders

PROMPTS = {  # of each loader of embedders, a model of the registry whose queries have a prompt, or none
    "sentence_transformer_wrapper.SentenceTransformerEncoderWrapper": (E5, True),
    "sentence_transformer_wrapper.sentence_transformers_loader": ("zeroentropy/zembed-1", False),
    "instruct_wrapper.InstructSentenceTransformerModel": ("intfloat/multilingual-e5-large-instruct", True),
    "bekko_models.BekkoEncoderWrapper": ("hotchpotch/bekko-embedding-v1-a25m", False),
    "jasper_models.JasperModel": ("NovaSearch/jasper_en_vision_language_v1", True),
    "kalm_models.KALMWrapper": ("HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v1", True),
    "qwen3_models.q3e_instruct_loader": ("Qwen/Qwen3-Embedding-0.6B", True),
    "samilpwc_models.instruct_loader": ("SamilPwC-AXNode-GenAI/PwC-Embedding_expr", True),
    "uae_models.UAEWrapper": ("WhereIsAI/UAE-Large-V1", True),
    "ultrabert_models.ultrabert_embed_loader": ("dmis-lab/UltraBERT-Embed-150M", True),
}


@pytest.mark.parametrize("loader", PROMPTS)
def test_an_embedders_loader_on_a_folder(
    loader: str, e5_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads the folder, in the registry's precision, and puts the registry's prompts before queries."""
    name, prompted = PROMPTS[loader]
    meta = MODEL_REGISTRY[name]
    assert loader_name(meta) == loader
    monkeypatch.setattr("mteb.models.model_meta.ModelMeta._check_requirements", lambda self: None)
    own = {key: value for key, value in meta.loader_kwargs.items() if key not in ("config_kwargs",)}
    monkeypatch.setitem(MODEL_REGISTRY, name, meta.model_copy(update={"loader_kwargs": own}))
    settings = settings_of(name, path=str(e5_small), trust_remote_code=True)
    model = prepare_model("mteb", settings, Runtime(device="cpu", cache_dir=tmp_path))
    assert isinstance(model.scorer, TextEmbedder)
    queries, documents = (model.scorer.embed(["感冒了怎么办？", "苹果"], role) for role in ("query", "document"))
    assert np.isfinite(queries).all()
    assert (np.abs(queries - documents).max() > 1e-3) == prompted
    low = dtypes(own) - {"auto", "float32"}
    assert [f"runs it in {one}" in "".join(model.findings or ()) for one in low] == [True] * len(low)
    assert model.way is not None
    assert model.identity.revision != ""


def test_an_unverified_loader_on_a_folder(tiny_bert_reranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlagEmbedding's fp16 and sigmoids of whatever revision: refused, or run with the user's word, and said beside the figure."""
    name = "BAAI/bge-reranker-v2-m3"
    with pytest.raises(EvalkitError) as caught:
        settings_of(name)
    assert str(caught.value) == (
        f"{name}: mteb's loader rerankers_custom.BGEReranker ignores revision, device and dtype; to run it all the same, without "
        "stored scores: model.unverified_loader=true"
    )
    made = ModuleType("FlagEmbedding")
    made.FlagReranker = lambda *_, **__: MagicMock(  # type: ignore[attr-defined]
        compute_score=lambda pairs, normalize: [len(document) / 100 for _, document in pairs]
    )
    monkeypatch.setitem(sys.modules, "FlagEmbedding", made)
    monkeypatch.setattr("mteb.models.model_meta.ModelMeta._check_requirements", lambda self: None)
    fields = {"path": str(tiny_bert_reranker), "unverified_loader": True}
    model = prepare_model("mteb", settings_of(name, **fields), Runtime(device="cpu"))
    assert isinstance(model.scorer, PairScorer)
    assert "ignores revision, device and dtype; its scores are not stored" in "".join(model.findings or ())
    assert model.way is None
    assert (model.identity.revision, model.identity.hub_id) == ("", "local/tiny-bert-reranker")
    assert model.description["device"] == "the loader's choice"


@pytest.mark.parametrize("name", ["mteb/baseline-random-cross-encoder", "mteb/baseline-random-encoder"])
def test_a_model_that_knows_no_neighbours_runs(name: str) -> None:
    model = prepare_model("mteb", settings_of(name, unverified_loader=True), Runtime(device="cpu"))
    assert model.scorer is not None


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
def test_a_listwise_model_is_found_by_what_it_scores(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that nobody has read, whose scores are ranks, or whose vectors are centred within a batch."""

    class Lists:
        def predict(self, queries: Any, documents: Any, **_: Any) -> Any:
            return np.argsort(np.argsort([text for batch in documents for text in batch["text"]])).astype(np.float32)

        def encode(self, texts: Any, **_: Any) -> Any:
            vectors = np.array([[len(text), 1.0] for batch in texts for text in batch["text"]], np.float32)
            return vectors - vectors.mean(0)

    name = f"mteb/baseline-random-{'encoder' if kind == 'embedder' else 'cross-encoder'}"
    monkeypatch.setitem(
        MODEL_REGISTRY, name, MODEL_REGISTRY[name].model_copy(update={"loader": lambda *_, **__: Lists()})
    )
    monkeypatch.setattr(backend, "_refuse_other_similarity", lambda model, settings: None)
    model = prepare_model("mteb", settings_of(name, unverified_loader=True), Runtime(device="cpu"))
    with pytest.raises(EvalkitError, match="gives a text other scores beside other texts than alone"):
        _ = model.scorer


def test_what_scores_by_the_place_in_the_list_is_refused_by_name() -> None:
    with pytest.raises(
        EvalkitError, match=r"^mteb/baseline-no-reranking: .* by its place in the list, which evalkit shuffles"
    ):
        settings_of("mteb/baseline-no-reranking", trust_remote_code=True, unverified_loader=True)


LISTS = [name for name, meta in MODEL_REGISTRY.items() if runnable_by_kind(meta) and loader_name(meta) in LISTWISE]
TASK = make_task(*(([f"问题{q}"], [(f"答案{q}之{d}", int(d < 2)) for d in range(6)]) for q in range(5)))


@pytest.mark.parametrize("name", LISTS)
def test_listwise_models_need_the_users_word(name: str) -> None:
    with pytest.raises(EvalkitError, match=r"unverified_loader=true|trust_remote_code=true"):
        settings_of(name)
    with pytest.raises(EvalkitError, match=r"model\.unverified_loader=true"):
        settings_of(name, trust_remote_code=True)
    settings = settings_of(name, trust_remote_code=True, unverified_loader=True, permutations=3)
    assert (settings.kind, settings.hub_id, settings.permutations) == ("listwise", name, 3)


class Ranked:
    """What each loader's model has: it scores a whole list by its overlap with the query, less the list's mean and the place."""

    def __init__(self) -> None:
        self.lists: list[tuple[str, tuple[str, ...]]] = []

    def scores(self, query: str, documents: list[str]) -> list[float]:
        self.lists.append((query, tuple(documents)))
        return listed(query, documents)

    def rerank(self, query: str, documents: list[str]) -> list[dict[str, float]]:
        found = self.scores(query, documents)
        return [{"index": number, "relevance_score": found[number]} for number in np.argsort(found)]

    def multi_passage_in_iterative_inference(self, texts: list[str]) -> list[float]:
        return self.scores(texts[0], texts[1:])


@pytest.mark.parametrize("name", ["jinaai/jina-reranker-v3", "ByteDance/ListConRanker"])
def test_a_loader_gets_whole_lists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """mteb's own `predict`, around a model that notes what it is asked for."""
    ranked = Ranked()
    loader = type(
        "Loader", (MODEL_REGISTRY[name].loader,), {"__init__": lambda self, *_, **__: setattr(self, "model", ranked)}
    )
    loader.__module__, loader.__qualname__ = (
        MODEL_REGISTRY[name].loader.__module__,
        MODEL_REGISTRY[name].loader.__qualname__,
    )
    monkeypatch.setitem(MODEL_REGISTRY, name, MODEL_REGISTRY[name].model_copy(update={"loader": loader}))
    monkeypatch.setattr("mteb.models.model_meta.ModelMeta._check_requirements", lambda self: None)
    settings = settings_of(name, trust_remote_code=True, unverified_loader=True)
    model = prepare_model("mteb", settings, Runtime(device="cpu"))
    run = score_task(model, settings, TASK)
    assert run.scores.tobytes() == scored(Lists(), TASK, kind="listwise").scores.tobytes()
    assert len(ranked.lists) == len(TASK.requests)
    assert model.way is None


def test_generated_rankings_are_of_whole_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightOn's own sliding window, over a model that generates the order of the documents' characters."""
    name = "lightonai/LightOn-rerank-LW-0.8B"
    own = MODEL_REGISTRY[name].loader

    def load(self: Any, *_: Any, **__: Any) -> None:
        self.window_size, self.stride, self.parse_stats = 4, 2, {"calls": 0, "fallbacks": 0}

    def rank(self: Any, windows: Any, batch_size: Any = None) -> Any:
        return [sorted(range(len(documents)), key=lambda at: documents[at]) for _, documents in windows]

    loader = type("Loader", (own,), {"__init__": load, "_rank_windows_batched": rank})
    loader.__module__, loader.__qualname__ = own.__module__, own.__qualname__
    monkeypatch.setitem(MODEL_REGISTRY, name, MODEL_REGISTRY[name].model_copy(update={"loader": loader}))
    monkeypatch.setattr("mteb.models.model_meta.ModelMeta._check_requirements", lambda self: None)
    settings = settings_of(name, unverified_loader=True)
    model = prepare_model("mteb", settings, Runtime(device="cpu"))
    run = score_task(model, settings, TASK)
    best = [int(np.argmax(run.scores[start : start + 6])) for start in range(0, 30, 6)]
    assert best == [0] * 5  # the first in the alphabet has come up from wherever it was shown
    assert sorted(run.scores[:6].tolist()) == [*np.sort(run.scores[6:12]).tolist()]
    assert any("where one is malformed mteb's loader keeps the order shown" in one for one in model.findings or ())


API = [name for name, meta in MODEL_REGISTRY.items() if runnable_by_kind(meta) and standing(meta) == "API"]


def test_services_are_refused_offline() -> None:
    assert {name.partition("/")[0].lower() for name in API} >= {"openai", "cohere", "google", "bedrock", "mongodb"}
    for name in API:
        with pytest.raises(
            EvalkitError, match=r"asks a service, .*: model\.unverified_loader=true, and no offline=true$"
        ):
            settings_of(name)
        settings = settings_of(name, unverified_loader=True)
        with pytest.raises(EvalkitError, match="is run by a service, and this run is offline"):
            prepare_model("mteb", settings, Runtime(offline=True))
        assert prepare_model("mteb", settings, Runtime()).way is None


def test_another_device_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MagicMock(spec=["model"])
    model.model = torch.nn.Linear(2, 2)
    with collecting() as found:
        backend._report_how_it_runs(model, settings_of(E5), torch.device("cuda"))
        backend._report_how_it_runs(model, settings_of(E5), torch.device("cpu"))
        model.model.half()
        backend._report_how_it_runs(model, settings_of(E5), torch.device("cpu"))
    assert found == [
        "mteb's loader runs it on cpu, not on cuda",
        "mteb's loader runs it in float16, where evalkit's own backends run fp32",
    ]
