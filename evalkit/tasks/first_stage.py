"""Retrieve, then rerank: the corpus that a first stage searches, and a task's candidates taken from its run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.errors import EvalkitError
from evalkit.output.numbers import counted
from evalkit.records import FirstStage
from evalkit.run_files import RunFile, read_run
from evalkit.tasks.findings import Cell, FindingLog
from evalkit.tasks.settings import TaskSettings

_SETTING = "task.candidates"


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a first stage searches: the texts of each query that is judged, and each document's text, by id, in the task's order.

    `own_ids` say, by query, how that query calls documents that others call otherwise.
    """

    queries: Mapping[str, tuple[str, ...]]
    documents: Mapping[str, str]
    own_ids: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """The SHA-256, in hex, of all ids and texts in their order."""
        digest = hashlib.sha256()
        for part in (self.queries.items(), self.documents.items(), self.own_ids.items()):
            for entry in part:
                written = repr(entry).encode("utf-8", "surrogatepass")
                digest.update(b"%d:%b" % (len(written), written))
            digest.update(b";")
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class FirstStageRun:
    """A first stage's run, and how many of its best documents per query are handed on (None: all).

    Of a run that evalkit made itself, `name` says which models retrieved, and `made` how (see `records.FirstStage`).
    """

    file: RunFile
    top_k: int | None
    name: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def ranked(self) -> Mapping[str, list[str]]:
        """The documents handed on, best first.

        They stand in trec_eval's order: by score in float32, tied ones by id, descending; so which of several tied documents
        at the end are handed on does not depend on the file's order.
        """
        return {query_id: [doc_id for _, doc_id in found[: self.top_k]] for query_id, found in self._ordered.items()}

    @cached_property
    def _ordered(self) -> Mapping[str, list[tuple[float, str]]]:
        return {query_id: best_first(scores) for query_id, scores in self.file.run.items()}

    def scores(self, query_id: str, doc_ids: list[str]) -> tuple[float, ...]:
        """Return the first stage's scores of documents of a query."""
        return tuple(float(self.file.run[query_id][doc_id]) for doc_id in doc_ids)

    def check(self, queries: Container[str], scored: Collection[str], corpus: Container[str], log: FindingLog) -> None:
        """Note an error for each document that the task does not have, and what is odd.

        `queries` are the ids that the task knows, `scored` those of them that it scores. Further queries of the run are left out,
        with a warning, where it has at least half of those that are scored; else they are errors, as another task's ids.
        """
        file = str(self.file.path)
        self._check_queries(queries, scored, log)
        known = {query_id: found for query_id, found in self.file.run.items() if query_id in queries}
        for query_id, found in known.items():
            for doc_id in found:
                if doc_id not in corpus:
                    place = Cell(file, self.file.row_of(query_id, doc_id), "doc_id")
                    problem = f"{doc_id!r} of query {query_id!r} names no document of the task"
                    log.add("error", f"{problem}; take it out, or give the task's own ids", place)
            if self.top_k is not None and len(found) < self.top_k:
                log.add("note", f"query with fewer than task.top_k={self.top_k} documents: all are taken", Cell(file))
        if cut := self.made.get("tied_at_cut", 0) if self.made else self._queries_cut_in_a_tie(known):
            log.add(
                "warning",
                f"{cut:,} of {counted(len(known), 'query')} have tied scores on both sides of task.top_k={self.top_k}: "
                "which of these documents are handed on is decided by their ids, descending, as trec_eval does, not by the "
                "file's order or ranks; give scores that differ, or another task.top_k",
                Cell(file),
            )

    def _check_queries(self, queries: Container[str], scored: Collection[str], log: FindingLog) -> None:
        run, file = self.file.run, str(self.file.path)
        others = [query_id for query_id in run if query_id not in queries]
        if not others:
            return
        matched = sum(query_id in run for query_id in scored)
        share = f"{len(others):,} of the run's {counted(len(run), 'query')} are not the task's, and it has {matched:,} of the "
        share += f"{counted(len(scored), 'query')} of the task"
        if 2 * matched < len(scored):
            place = Cell(file, self.file.row_of(others[0]), "query_id")
            problem = f"{others[0]!r} names no query of the task"
            log.add("error", f"{problem}; take it out, or give the task's own ids: {share}", place)
        else:
            log.add("warning", f"{share}: the others are left out, first {others[0]!r}", Cell(file))

    def _queries_cut_in_a_tie(self, query_ids: Iterable[str]) -> int:
        k = self.top_k
        orders = (self._ordered[query_id] for query_id in query_ids)
        return sum(k is not None and len(found) > k and found[k - 1][0] == found[k][0] for found in orders)

    def describe(self) -> FirstStage:
        """Return what the task says of the first stage."""
        name = self.name or self.file.path.stem
        return FirstStage(name, str(self.file.path), self.file.digest, self.top_k, self.made)


Retriever = Callable[[tuple[str, ...], Corpus, int], FirstStageRun]
"""Lets the models of these names search the corpus for so many documents per query."""


def read_first_stage(settings: TaskSettings) -> FirstStageRun | None:
    """Read the run that the settings name, if they name one. Raises EvalkitError where it can't be read."""
    if settings.first_stages and settings.candidates is not None:
        raise EvalkitError(
            f"task.first_stage={settings.first_stage} retrieves candidates, and {_SETTING}={settings.candidates} names those of a "
            "run; give one of the two"
        )
    if settings.candidates is None:
        if settings.top_k is not None and not settings.first_stages:
            raise EvalkitError(
                f"task.top_k={settings.top_k} says how much of a first stage's run is reranked; name the run with "
                f"{_SETTING}=FILE, or who retrieves with task.first_stage=MODEL"
            )
        return None
    return FirstStageRun(read_run(Path(settings.candidates).expanduser(), _SETTING), settings.top_k)


def best_first(scores: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return (score in float32, id) in trec_eval's order."""
    with np.errstate(over="ignore"):
        as_compared = np.array(list(scores.values()), np.float64).astype(np.float32)
    pairs = zip(as_compared.tolist(), scores, strict=True)
    return sorted(pairs, reverse=True)
