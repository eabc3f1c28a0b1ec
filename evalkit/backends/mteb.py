"""mteb's own loaders, with the prompts that mteb gives them on each task.

They are of dense embedders, cross-encoders and listwise rerankers of its registry.

mteb chooses prompts and instructions by a task's name, type and own prompt; a task that it does not know is one of reranking
without a prompt of its own. A cross-encoder of sentence-transformers ranks by raw logits here, without mteb's sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.types import PromptType
from numpy.typing import NDArray

from evalkit.backends.libraries import as_scores, quiet, within_memory
from evalkit.backends.mteb_loaders import LISTWISE, LOADERS, loader_name, refuse_by_standing, standing, what_is_open
from evalkit.backends.probes import influence_of_neighbours
from evalkit.backends.torch import choose_device, device_name
from evalkit.errors import EvalkitError, unknown_name
from evalkit.hub_access import reporting_hub_errors
from evalkit.machine import installed_version
from evalkit.models.findings import report_once
from evalkit.models.interfaces import OutOfMemoryError, RunnableModel, Runtime, ScoredList
from evalkit.models.local import is_out_of_memory
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import find_model, opening, who_scores
from evalkit.records import ModelIdentity, Role, Task

NAME = "mteb"
BATCH_SIZE = 32
KINDS = {"dense": "embedder", "cross-encoder": "cross-encoder"}
SIMILARITIES = {None: "cosine", "cosine": "cosine", "dot": "dot"}
PROBE_TEXTS = ("感冒了应该吃什么药？", "Boil the noodles for four minutes.")
UNKNOWN_TASK = "EvalkitReranking"
TOLERANCE = 1e-3
_UNKNOWN = ("date", "domains", "task_subtypes", "license", "annotations_creators", "dialect", "sample_creation")


@dataclass(frozen=True)
class TaskPlace:
    """What mteb tells a model of the task that it works on."""

    metadata: Any
    split: str
    subset: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What `encode` and `predict` take of it: the task, its split and subset."""
        return {"task_metadata": self.metadata, "hf_split": self.split, "hf_subset": self.subset}

    @property
    def decisive(self) -> dict[str, object]:
        """What can change a prompt, and so a score."""
        metadata = self.metadata
        return {"name": metadata.name, "type": metadata.type, "prompt": metadata.prompt, "subset": self.subset}


class MtebEmbedder:
    """A TextEmbedder: an mteb encoder on one task."""

    def __init__(self, model: Any, place: TaskPlace) -> None:
        self._model = model
        self._place = place

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        def call(batch_size: int) -> NDArray[np.float32]:
            vectors = self._model.encode(
                _loader(texts, role, batch_size),
                **self._place.arguments,
                prompt_type=PromptType(role),
                batch_size=batch_size,
                show_progress_bar=False,
            )
            return _array(vectors)

        with quiet(NAME):
            return within_memory(call, BATCH_SIZE)


class MtebScorer:
    """A PairScorer: an mteb cross-encoder on one task."""

    def __init__(self, model: Any, place: TaskPlace) -> None:
        self._model = model
        self._place = place

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        def call(batch_size: int) -> NDArray[np.float32]:
            scores = self._model.predict(
                _loader([query for query, _ in pairs], "query", batch_size),
                _loader([document for _, document in pairs], "document", batch_size),
                **self._place.arguments,
                batch_size=batch_size,
                show_progress_bar=False,
            )
            return as_scores(_array(scores))

        with quiet(NAME):
            return within_memory(call, BATCH_SIZE)


class MtebListScorer:
    """A ListScorer: an mteb loader that scores all candidates of a query together, on one task."""

    def __init__(self, model: Any, place: TaskPlace) -> None:
        self._model = model
        self._place = place

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList:
        queries, texts = [query] * len(documents), _Texts(documents)
        try:
            with quiet(NAME):
                scores = self._model.predict(
                    [{"text": queries, "query": queries}],
                    [{"text": texts, "body": texts}],
                    **self._place.arguments,
                    batch_size=len(documents),
                    show_progress_bar=False,
                )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(str(error)) from error
        return ScoredList(as_scores(_array(scores)))


class _Texts(list[str]):
    """A batch's texts, which are also found under "text" in themselves: ListConRanker's loader in mteb looks for them there."""

    def __getitem__(self, key: Any) -> Any:
        return list(self) if key == "text" else super().__getitem__(key)


def complete(settings: ModelSettings) -> ModelSettings:
    """Return the settings of a model of mteb's registry: its name there, its revision, kind and similarity.

    Raises EvalkitError where mteb does not know it, for what gives no vector of a text and no score of a pair, and for a loader
    that the user's settings do not admit.
    """
    if settings.name == NAME:
        raise EvalkitError("model=mteb needs model.name=ORGANISATION/NAME, a name of mteb's registry")
    name = _registered(settings)
    if name not in MODEL_REGISTRY:
        raise unknown_name("model of mteb's", name, MODEL_REGISTRY)
    meta = MODEL_REGISTRY[name]
    kinds = [KINDS[kind] for kind in meta.model_type if kind in KINDS]
    if (
        len(meta.model_type) != 1
        or not kinds
        or "text" not in meta.modalities
        or meta.similarity_fn_name not in SIMILARITIES
    ):
        what = (
            f"{', '.join(meta.model_type)} model of {', '.join(meta.modalities)}, similarity {meta.similarity_fn_name}"
        )
        raise EvalkitError(
            f"{settings.name} is a {what}; of mteb's models evalkit runs dense embedders and cross-encoders of text"
        )
    if meta.loader is None:
        raise EvalkitError(f"mteb knows {settings.name} by name only: it has no code to run it")
    refuse_by_standing(meta, settings)
    if loader_name(meta) in LISTWISE:
        kinds = ["listwise"]
    prompts = meta.loader_kwargs.get("model_prompts") or {}
    return settings.model_copy(
        update={
            "hub_id": meta.name,
            "revision": meta.revision,
            "kind": kinds[0],
            "similarity": SIMILARITIES[meta.similarity_fn_name],
            # mteb puts them there itself; these are for whoever asks what the model's prompts are
            "query_prompt": prompts.get("query", ""),
            "document_prompt": prompts.get("document", ""),
        }
    )


def _registered(settings: ModelSettings) -> str:
    """Return the model's name in the registry: its Hub id, where a file of evalkit's names it otherwise."""
    return settings.hub_id if settings.hub_id and settings.hub_id in MODEL_REGISTRY else settings.name


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model in the registry, and in its folder where `model.path` names one; mteb loads it when it is first used.

    Raises EvalkitError for a model that a service runs where the run is offline.
    """
    meta = MODEL_REGISTRY[_registered(settings)]
    if runtime.offline and standing(meta) == "API":
        raise EvalkitError(f"{settings.name} is run by a service, and this run is offline: leave offline=true out")
    identity, who, load = _found(meta, settings, runtime)
    heeded = LOADERS.get(loader_name(meta))
    description: dict[str, object] = {
        "name": NAME,
        "device": device_name(choose_device(runtime.device)) if heeded and heeded.device else "the loader's choice",
        "dtype": "mteb's choice",
        "version": installed_version("mteb"),
        "loader": loader_name(meta),
        "libraries": {name: installed_version(name) for name in ("sentence-transformers", "transformers", "torch")},
    }

    loaded = cache(load)

    def on(place: TaskPlace) -> RunnableModel:
        way = {**who, "name": meta.name, "kind": settings.kind, "backend": description, "task": place.decisive}
        return RunnableModel(
            identity=identity,
            description=description,
            way=way if identity.revision else None,  # a model without a revision may be another one tomorrow
            open=lambda: _scorer(loaded(), settings, place),
            for_task=lambda task: on(_place_of(task)),
        )

    return on(TaskPlace(_metadata(UNKNOWN_TASK, ()), "test", "default"))


def _found(
    meta: Any, settings: ModelSettings, runtime: Runtime
) -> tuple[ModelIdentity, dict[str, object], Callable[[], Any]]:
    """Return who the model is, what its scores are stored under, and how to load it.

    What an unverified loader has loaded is not known: it has no revision.
    """
    if settings.path:
        files = find_model(settings, offline=True, cache_dir=runtime.cache_dir)
        identity, who = files.identity, who_scores(files)
        load = opening(files, partial(_load, meta, settings, files.folder, runtime))
    else:
        identity = ModelIdentity(settings.name, meta.name, settings.revision or "", settings.kind)
        who = {"model": identity.hub_id, "revision": identity.revision, "weights_hash": identity.weights_hash}
        load = partial(_load, meta, settings, None, runtime)
    if standing(meta) != "verified":
        identity = replace(identity, revision="", weights_hash="")
    return identity, who, load


def _scorer(model: Any, settings: ModelSettings, place: TaskPlace) -> MtebEmbedder | MtebScorer | MtebListScorer:
    if settings.kind == "listwise":
        return MtebListScorer(model, place)
    return MtebEmbedder(model, place) if settings.kind == "embedder" else MtebScorer(model, place)


def _load(meta: Any, settings: ModelSettings, folder: Path | None, runtime: Runtime) -> Any:
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    if folder:
        meta = meta.model_copy(update={"name": str(folder), "revision": None})
    advice = (
        "run it on a machine that reaches the Hub, set HF_ENDPOINT to a mirror, or name a folder: model.path=FOLDER"
    )
    device = choose_device(runtime.device)
    with (
        reporting_hub_errors(
            f"mteb can't load {settings.name}", offline=runtime.offline or bool(folder), advice=advice
        ),
        quiet(NAME),
    ):
        model = meta.load_model(device=str(device))
    _report_other_tokens(model, settings, folder)
    _report_how_it_runs(model, settings, device)
    if settings.kind == "listwise":
        report_once(settings.name, LISTWISE[loader_name(meta)])
    elif settings.kind == "cross-encoder":
        _rank_by_logits(model)
    else:
        _refuse_other_similarity(model, settings)
    if standing(meta) != "verified":
        report_once(settings.name, [f"{what_is_open(meta)}; its scores are not stored"])
        if settings.kind != "listwise":
            _refuse_influence_of_neighbours(model, settings)
    return model


def _report_how_it_runs(model: Any, settings: ModelSettings, device: torch.device) -> None:
    """Report another device than the one asked for, and a lower precision than evalkit's backends have unasked."""
    held = [model, *vars(model).values()]
    held += [inner for one in held[1:] for inner in getattr(one, "__dict__", {}).values()]
    networks = [one for one in held if isinstance(one, torch.nn.Module)]
    weights = [weight for network in networks for weight in network.parameters() if weight.is_floating_point()]
    for weight in weights[:1]:
        if weight.device.type != device.type:
            report_once(settings.name, [f"mteb's loader runs it on {weight.device.type}, not on {device.type}"])
    low = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights} - {"float32", "float64"})
    if low:
        report_once(
            settings.name, [f"mteb's loader runs it in {', '.join(low)}, where evalkit's own backends run fp32"]
        )


def _refuse_influence_of_neighbours(model: Any, settings: ModelSettings) -> None:
    """Refuse a model whose output for an item depends on what is scored beside it: evalkit scores batches of any items."""
    place = TaskPlace(_metadata(UNKNOWN_TASK, ()), "test", "default")
    scorer = MtebEmbedder(model, place) if settings.kind == "embedder" else MtebScorer(model, place)
    if isinstance(scorer, MtebScorer):
        pairs = [(query, document) for query in PROBE_TEXTS for document in PROBE_TEXTS]
        difference, allowed = influence_of_neighbours(scorer.score, pairs, least=1.0)
    else:
        difference, allowed = influence_of_neighbours(
            lambda texts: scorer.embed(texts, "query"), PROBE_TEXTS, least=1.0
        )
    if not difference <= allowed:
        raise EvalkitError(
            f"{settings.name} gives a text other scores beside other texts than alone (by {difference:.3g}): a listwise model, or "
            "one that is not deterministic; evalkit can't run it through mteb"
        )


def _report_other_tokens(model: Any, settings: ModelSettings, folder: Path | None) -> None:
    """Report tokens that are not tokenizer.json's: mteb's loaders set up their tokenizers themselves, and it is these that run."""
    from huggingface_hub import try_to_load_from_cache
    from transformers import PreTrainedTokenizerBase

    from evalkit.models.tokenizers import FILE, tokens_besides_file

    inner = getattr(model, "model", model)
    first = inner._first_module() if hasattr(inner, "_first_module") else inner
    tokenizer = getattr(first, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    if folder is None:
        cached = try_to_load_from_cache(settings.name, FILE, revision=settings.revision)
        folder = Path(cached).parent if isinstance(cached, str) else None
    finding = tokens_besides_file(tokenizer, folder) if folder else None
    if finding:
        report_once(settings.name, [f"{finding}; mteb's loader is run as it is"])


def _rank_by_logits(model: Any) -> None:
    """Take away the sigmoid that sentence-transformers puts on a single label, which makes ties of the highest scores."""
    inner: Any = getattr(model, "model", None)
    if hasattr(inner, "activation_fn") and getattr(inner, "num_labels", None) == 1:
        inner.activation_fn = torch.nn.Identity()


def _refuse_other_similarity(model: Any, settings: ModelSettings) -> None:
    """Compare how the loaded model compares vectors with what the registry says; they come from different files."""
    embedder = MtebEmbedder(model, TaskPlace(_metadata(UNKNOWN_TASK, ()), "test", "default"))
    vectors = embedder.embed(PROBE_TEXTS, "document").astype(np.float64)
    with quiet(NAME):
        found = float(_array(model.similarity(vectors[:1].astype(np.float32), vectors[1:].astype(np.float32))).item())
    expected = vectors[0] @ vectors[1]
    if settings.similarity == "cosine":
        expected /= np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])
    if abs(found - expected) > TOLERANCE * max(1, abs(expected)):
        raise EvalkitError(
            f"mteb compares the vectors of {settings.name} in a way of their own ({found:.4f}, where {settings.similarity} gives "
            f"{expected:.4f}); evalkit can't run it through mteb"
        )


def _place_of(task: Task) -> TaskPlace:
    try:
        with quiet(NAME):
            metadata = mteb.get_task(task.mteb_name).metadata
    except KeyError:
        metadata = _metadata(UNKNOWN_TASK, task.languages)
    return TaskPlace(metadata, task.split, task.subset)


def _metadata(name: str, languages: Sequence[str]) -> Any:
    """Return a reranking task that mteb does not know. Its prompt is what mteb gives instructed models where a task has none."""
    try:
        return TaskMetadata(
            name=name,
            description="candidates to rerank",
            reference=None,
            type="Reranking",
            category="t2t",
            modalities=["text"],
            dataset={"path": "local/none", "revision": "none"},
            eval_splits=["test"],
            eval_langs=list(languages) or ["cmn-Hans"],
            main_score="map_at_1000",
            bibtex_citation=None,
            prompt=AbsTaskRetrieval.abstask_prompt,
            **dict.fromkeys(_UNKNOWN),
        )
    except ValueError as error:
        raise EvalkitError(
            f"task.languages={list(languages)}: mteb wants a language and a script in each, such as cmn-Hans"
        ) from error


def _loader(texts: Sequence[str], role: Role, batch_size: int) -> Any:
    """Return texts with the columns that mteb gives queries and documents."""
    from datasets import Dataset
    from torch.utils.data import DataLoader

    columns = {"text": list(texts), "query" if role == "query" else "body": list(texts)}
    return DataLoader(Dataset.from_dict(columns), batch_size=batch_size)


def _array(values: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = torch.as_tensor(values).detach().float().cpu().numpy()
    return array
