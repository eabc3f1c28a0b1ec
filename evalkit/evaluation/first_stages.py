"""A first stage of evalkit's own: models search a task's corpus; what they find is kept as a TREC run, its recipe beside it.

A run lies in the cache folder, named by all that decides it: so every reranker gets the same candidates. It is then taken as any
other first stage's run is (tasks/first_stage.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalkit.cache import cache_folder, read_entries
from evalkit.errors import EvalkitError, NonFiniteError
from evalkit.evaluation.model_recipes import findings_of, recipe_fields
from evalkit.evaluation.score_memory import Cache, score_memory, stored_under
from evalkit.models.interfaces import RunnableModel, name_text
from evalkit.output.files import write_bytes
from evalkit.output.json import plain_json
from evalkit.output.numbers import counted
from evalkit.output.progress import progress
from evalkit.records import RunDict
from evalkit.results.folders import file_name
from evalkit.run_files import RunFile
from evalkit.scoring.engine import embed
from evalkit.scoring.outputs import NOT_COUNTED, OutputTable
from evalkit.scoring.search import nearest_documents
from evalkit.tasks.first_stage import Corpus, FirstStageRun, best_first

if TYPE_CHECKING:
    from evalkit.evaluation.evaluate import Model

FOLDER = "first_stages"
FORMAT = 3
"""The version of how runs are made: another one has other files."""
RANK_CONSTANT = 60
"""Reciprocal rank fusion's: that of Cormack, Clarke and Büttcher (2009), as ranx takes it."""
_SPACE = re.compile(r"\s")
_HALF = re.compile("[\ud800-\udfff]")
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""The numbers of documents, and their scores."""
logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class FirstStages:
    """Makes the runs of first stages. `load` gives the model of a name; runs lie in `cache_dir`, if `cache` lets them be kept."""

    load: Callable[[str], Model]
    cache_dir: Path | None
    cache: Cache

    def retrieve(self, names: Sequence[str], corpus: Corpus, top_k: int) -> FirstStageRun:
        """Return each query's `top_k` best documents by the models of these names, several fused by reciprocal rank.

        Raises EvalkitError for a model that can't search a corpus, and for ids that a TREC run can't hold.
        """
        _refuse_ids(corpus)
        runs = [self._search(self.load(name), corpus, top_k) for name in names]
        return runs[0] if len(runs) == 1 else self._fuse(runs, corpus, top_k)

    def _search(self, model: Model, corpus: Corpus, top_k: int) -> FirstStageRun:
        """Return the run of one model."""
        name = model.settings.name
        is_lexical = model.settings.kind == "lexical"
        if not (is_lexical or model.settings.makes_vectors):
            raise EvalkitError(
                f"task.first_stage={name}: its kind is {model.settings.kind}, and a first stage searches a whole corpus: name an "
                f"embedder of one vector a text, or bm25; to rerank with it, say model={name}"
            )
        runnable = model.runnable
        if runnable.for_task is not None:
            raise EvalkitError(
                f"task.first_stage={name}: backend {runnable.description.get('name')} runs it in another way on each task, which "
                "a first stage can't; retrieve with mteb itself, and give its predictions with task.candidates=FILE"
            )
        way = runnable.description if is_lexical else stored_under(runnable)
        similarity = None if is_lexical else model.settings.similarity
        decisive = (
            None if way is None else {"revision": runnable.identity.revision, "way": way, "similarity": similarity}
        )

        def make() -> tuple[RunDict, Mapping[str, Any]]:
            started = time.monotonic()
            searched, truncated = self._found(model, runnable, corpus, top_k)
            run, tied = _cut_all(zip(corpus.queries, searched, strict=True), top_k)
            seconds = time.monotonic() - started
            queries, documents = counted(len(corpus.queries), "query"), counted(len(corpus.documents), "document")
            logger.info("first stage %s: %s searched %s in %.0f s", name, queries, documents, seconds)
            return run, {
                "stages": [
                    _described(model, runnable)
                ],  # the same on every task, since a suite's results are kept under it
                "truncated": {name: truncated} if truncated else {},
                "tied_at_cut": tied,
                "findings": findings_of(model.recipe, runnable, model.backend, model.runtime, self.cache),
            }

        return self._kept(name, decisive, corpus, top_k, make)

    def _found(
        self, model: Model, runnable: RunnableModel, corpus: Corpus, top_k: int
    ) -> tuple[Iterator[dict[str, float]], Mapping[str, Any]]:
        """Give per query what may be among its best documents, by id, and say what the model cut off."""
        texts: dict[str, list[str]] = {}
        for doc_id, text in corpus.documents.items():
            texts.setdefault(text, []).append(doc_id)
        documents = tuple(texts)
        queries = tuple(dict.fromkeys(text for variants in corpus.queries.values() for text in variants))
        found: Iterable[Found]
        if model.settings.kind == "lexical":
            found = runnable.scorer.search(queries, documents, top_k)  # type: ignore[union-attr]
            truncated: Mapping[str, Any] = {}
        else:
            with runnable.guard(), score_memory(self.cache_dir, runnable, self.cache) as kept:
                tables = embed(runnable, queries, documents, kept)
            vectors = [table.values.reshape(len(table.values), -1) for table in tables]
            if model.settings.similarity == "cosine":
                _refuse_empty_vectors(vectors[0], "query", queries)
                _refuse_empty_vectors(vectors[1], "document", documents)
            found = nearest_documents(vectors[0], vectors[1], model.settings.similarity, top_k)
            truncated = _truncated(*tables)
        by_text = dict(zip(queries, _with_progress(found, len(queries)), strict=True))
        ids = list(texts.values())
        return (_of_query(query_id, corpus, by_text, ids) for query_id in corpus.queries), truncated

    def _fuse(self, runs: Sequence[FirstStageRun], corpus: Corpus, top_k: int) -> FirstStageRun:
        """Return the runs fused: a document's score is the sum of 1 / (60 + rank) over the runs that found it."""
        name = "+".join(run.name for run in runs)
        fusion = {"method": "reciprocal rank fusion", "k": RANK_CONSTANT}

        def make() -> tuple[RunDict, Mapping[str, Any]]:
            scores: dict[str, dict[str, float]] = {}
            for query_id in corpus.queries:
                parts: dict[str, list[float]] = {}
                for run in runs:
                    for rank, doc_id in enumerate(run.ranked.get(query_id, ()), 1):
                        parts.setdefault(doc_id, []).append(1 / (RANK_CONSTANT + rank))
                scores[query_id] = {doc_id: math.fsum(own) for doc_id, own in parts.items()}
            fused, tied = _cut_all(scores.items(), top_k)
            return fused, {
                "tied_at_cut": tied,
                "stages": [stage for run in runs for stage in run.made["stages"]],
                "truncated": {name: said for run in runs for name, said in run.made["truncated"].items()},
                "findings": list(dict.fromkeys(found for run in runs for found in run.made["findings"])),
                "fusion": fusion,
            }

        return self._kept(name, {"fusion": fusion, "runs": [run.file.digest for run in runs]}, corpus, top_k, make)

    def _kept(
        self,
        name: str,
        decisive: Mapping[str, Any] | None,
        corpus: Corpus,
        top_k: int,
        make: Callable[[], tuple[RunDict, Mapping[str, Any]]],
    ) -> FirstStageRun:
        """Return the run that is kept under all that decides it; make it where there is none, or where it was changed since.

        `decisive` is None where not all that decides it is known: then it is made each time.
        """
        said = plain_json({"format": FORMAT, "corpus": corpus.digest, "top_k": top_k, "decided_by": decisive})
        key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        shown = Path(FOLDER) / f"{file_name(name)}-{key[:16]}.trec"
        path = cache_folder(self.cache_dir) / shown
        recipe = path.with_suffix(".json")
        if self.cache == "on" and decisive is not None and path.is_file():
            content, made = path.read_bytes(), read_entries(recipe)
            if made.get("key") == key and made.get("run") == hashlib.sha256(content).hexdigest():
                logger.info("first stage %s: the run that is kept as %s is taken", name, path)
                return _run_of(shown, content, top_k, name, made)
            logger.warning("first stage %s: %s is not what was written there: it is made anew", name, path)
        run, facts = make()
        content = "".join(_lines(run)).encode()
        del run  # millions of entries, which are read again in a moment
        corpus_facts = {"queries": len(corpus.queries), "documents": len(corpus.documents), "digest": corpus.digest}
        made = plain_json({"name": name, "top_k": top_k, "corpus": corpus_facts, **facts})
        made |= {"run": hashlib.sha256(content).hexdigest(), "key": key}
        if self.cache != "off" and decisive is not None:
            write_bytes(content, path)
            write_bytes((json.dumps(made, indent=1, ensure_ascii=False) + "\n").encode(), recipe)
        return _run_of(shown, content, top_k, name, made)


def _refuse_ids(corpus: Corpus) -> None:
    """Raise EvalkitError for ids that a TREC run can't hold, before anything is embedded."""
    own = (doc_id for ids in corpus.own_ids.values() for doc_id in ids.values())
    for what, ids in (("query", corpus.queries), ("document", corpus.documents), ("document", own)):
        for one in ids:
            if not one or _SPACE.search(one) or _HALF.search(one):
                raise EvalkitError(
                    f"task.first_stage: the {what} id {one!r} has white space or half a character in it, or is empty, which the "
                    "first stage's TREC run can't hold; give the data other ids"
                )
    if not corpus.documents:
        raise EvalkitError("task.first_stage: the task has no documents to search")


def _refuse_empty_vectors(vectors: NDArray[np.float32], role: Any, texts: Sequence[str]) -> None:
    empty = ~vectors.any(axis=1)
    if empty.any():
        raise NonFiniteError(
            f"the vector of {name_text(role, texts[int(np.argmax(empty))])} has length zero, so it has no cosine; are the weights "
            "whole?"
        )


def _with_progress(found: Iterable[Found], queries: int) -> Iterator[Found]:
    with progress("searching", queries, "query") as advance:
        for one in found:
            yield one
            advance(1)


def _of_query(
    query_id: str, corpus: Corpus, by_text: Mapping[str, Found], ids: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return the scores of the documents that any of a query's texts found, by the query's own ids: the best one counts."""
    scores: dict[str, float] = {}
    own = corpus.own_ids.get(query_id, {})
    for text in corpus.queries[query_id]:
        numbers, values = by_text[text]
        for number, value in zip(numbers.tolist(), values.tolist(), strict=True):
            for doc_id in ids[number]:
                doc_id = own.get(doc_id, doc_id)
                scores[doc_id] = max(value, scores.get(doc_id, value))
    return scores


def _cut_all(found: Iterable[tuple[str, Mapping[str, float]]], top_k: int) -> tuple[dict[str, dict[str, float]], int]:
    """Return each query's best documents, best first, in trec_eval's order, and of how many queries the cut goes through a tie."""
    run, tied = {}, 0
    for query_id, scores in found:
        order = best_first(scores)
        run[query_id] = {doc_id: scores[doc_id] for _, doc_id in order[:top_k]}
        tied += len(order) > top_k and order[top_k - 1][0] == order[top_k][0]
    return run, tied


def _truncated(queries: OutputTable, documents: OutputTable) -> dict[str, Any]:
    """Say how many texts the model cut, where it counts."""
    tables = {"queries": queries, "documents": documents}
    if any((table.tokens == NOT_COUNTED).any() for table in tables.values()):
        return {}
    return {name: int(table.truncated.sum()) for name, table in tables.items()}


def _described(model: Model, runnable: RunnableModel) -> dict[str, Any]:
    """Say which model searched, by which recipe, and what ran it."""
    identity = runnable.identity
    recipe = {} if model.recipe is None else recipe_fields(model.recipe)
    return {
        **{field: getattr(identity, field) for field in ("name", "hub_id", "revision", "kind", "weights_hash")},
        "backend": dict(runnable.description),
        "dtype": model.runtime.dtype,
        "recipe": {field: {"value": one.value, "origin": one.origin} for field, one in recipe.items()},
    }


def _lines(run: RunDict) -> Iterator[str]:
    for query_id, found in run.items():
        for rank, (doc_id, score) in enumerate(found.items(), 1):
            yield f"{query_id} Q0 {doc_id} {rank} {score!r} evalkit\n"


def _run_of(shown: Path, content: bytes, top_k: int, name: str, made: Mapping[str, Any]) -> FirstStageRun:
    """Read a run that evalkit wrote; a query for which nothing was found has no lines."""
    run: dict[str, dict[str, float]] = {}
    ids: dict[str, str] = {}  # a document's name is held once, however many queries find it
    for line in io.BytesIO(content):
        query_id, _, doc_id, _, score, _ = line.decode().split(" ")
        run.setdefault(query_id, {})[ids.setdefault(doc_id, doc_id)] = float(score)
    return FirstStageRun(RunFile(shown, run, hashlib.sha256(content).hexdigest()), top_k, name, made)
