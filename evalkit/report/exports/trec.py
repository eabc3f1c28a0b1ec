"""TREC files: per task its qrels, and per system a run; for trec_eval, pytrec_eval, ir_measures and ranx.

A run's lines stand in trec_eval's own order: by score in float32, tied documents by id, descending. Scores have the fewest
digits that give the same float again, so that a tie stays a tie and nothing else becomes one. Fields are separated by
spaces, so ids that hold white space are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from evalkit.compare.shared_queries import TaskResults, group_by_task
from evalkit.compare.systems import system_labels
from evalkit.errors import EvalkitError
from evalkit.results.folders import file_name
from evalkit.results.result import Result
from evalkit.results.tables import unretrieved_documents

QRELS_SUFFIX, RUN_SUFFIX = ".qrels.trec", ".run.trec"
_SPACE = re.compile(r"\s")
_QRELS_LINE = re.compile(rb"\S+ 0 \S+ -?\d+(\n|$)")
_RUN_LINE = re.compile(rb"\S+ Q0 \S+ \d+ \S+ \S+(\n|$)")


def trec_files(results: Sequence[Result]) -> dict[PurePosixPath, bytes]:
    """Write `<Task>.qrels.trec`, and `<Task>.<system>.run.trec` for each system.

    The run tag is the system's name. Relevant documents that were no candidates stand in the qrels. Raises EvalkitError for a
    missing table, for ids that hold white space, for two tasks whose files would have one name, where systems have other qrels for
    the same data, and for refined runs, whose scores are of two precisions.
    """
    for result in results:
        if result.refinement is not None:
            raise EvalkitError(
                f"{result.path}: its scores are of two precisions (refine=fp32), which is no run to rerank or to fuse; leave it out"
            )
    groups = group_by_task(results)
    labels = system_labels([system for group in groups for system in group.systems])
    files: dict[PurePosixPath, bytes] = {}
    for group in groups:
        task = _task_name(group, groups)
        judged = _qrels(group)
        qrels = PurePosixPath(f"{task}{QRELS_SUFFIX}")
        if qrels in files:
            raise EvalkitError(
                f"{group.results[0].path}: another task's qrels would be written to {qrels}, too; give one of them"
            )
        files[qrels] = judged.encode()
        for system, result in zip(group.systems, group.results, strict=True):
            path = PurePosixPath(f"{task}.{_tag(labels[system])}{RUN_SUFFIX}")
            if path in files:
                raise EvalkitError(
                    f"{result.path}: another system's run would be written to {path}, too; give one of them"
                )
            files[path] = "".join(_run_lines(result, _tag(labels[system]))).encode()
    return files


def is_trec_file(content: bytes) -> bool:
    """Whether a file begins with a line of qrels or of a run."""
    return bool(_QRELS_LINE.match(content) or _RUN_LINE.match(content))


def _task_name(group: TaskResults, groups: Sequence[TaskResults]) -> str:
    """Return the file's name of a task; where there are several, with what tells its data apart."""
    name = file_name(group.results[0].task.mteb_name)
    namesakes = [one for one in groups if one.task == group.task]
    if len({one.fingerprint for one in namesakes}) > 1:
        name += f".{group.fingerprint[:12]}"
    if len({one.protocol for one in namesakes if one.fingerprint == group.fingerprint}) > 1:
        name += f".{group.protocol}"
    return name


def _tag(label: str) -> str:
    return re.sub(r"\s+", "_", file_name(label))


def _qrels(group: TaskResults) -> str:
    first, *others = group.results
    text = "".join(_qrels_lines(first))
    for other in others:
        if "".join(_qrels_lines(other)) != text:
            raise EvalkitError(
                f"{first.path} and {other.path} judge the documents of {group.task} differently, or name others; write one at "
                "a time"
            )
    return text


def _qrels_lines(result: Result) -> Iterator[str]:
    """Every candidate with its gain, and the relevant documents that were none; in the tables' order."""
    table = result.candidates
    missed = unretrieved_documents(result.queries)
    gains = zip(table["doc_id"], table["label"], strict=True)
    for place, (query_id, count) in enumerate(
        zip(result.queries["query_id"], result.queries["n_candidates"], strict=True)
    ):
        judged = [next(gains) for _ in range(int(count))]
        for doc_id, gain in [*judged, *missed[place]]:
            yield f"{_plain(query_id, 'query', result)} 0 {_plain(doc_id, 'document', result)} {int(gain)}\n"


def _run_lines(result: Result, tag: str) -> Iterator[str]:
    table, queries = result.candidates, result.queries
    doc_ids = table["doc_id"].to_numpy(object)
    scores = table["score"].to_numpy()
    with np.errstate(over="ignore"):
        as_read = scores.astype(np.float32)
    _, places = np.unique(doc_ids.astype(str), return_inverse=True)
    ends = np.cumsum(queries["n_candidates"].to_numpy(np.int64))
    for query_id, start, end in zip(queries["query_id"], [0, *ends[:-1]], ends, strict=True):
        order = start + np.lexsort((-places[start:end], -as_read[start:end]))
        _refuse_repetition(doc_ids[order].tolist(), str(query_id), result)
        for rank, place in enumerate(order, start=1):
            yield f"{query_id} Q0 {doc_ids[place]} {rank} {scores[place]!s} {tag}\n"


def _refuse_repetition(doc_ids: Sequence[str], query_id: str, result: Result) -> None:
    if len(set(doc_ids)) < len(doc_ids):
        twice = next(doc_id for doc_id in doc_ids if doc_ids.count(doc_id) > 1)
        raise EvalkitError(
            f"{result.path}: document {twice!r} is a candidate of query {query_id!r} twice, which a TREC run can't hold"
        )


def _plain(identifier: str, what: str, result: Result) -> str:
    if not identifier or _SPACE.search(identifier):
        raise EvalkitError(
            f"{result.path}: the {what} id {identifier!r} has white space in it or is empty, which TREC files can't hold; "
            "give the data other ids"
        )
    return identifier
