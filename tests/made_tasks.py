"""Small tasks, made in memory, and the engine's run of them."""

from __future__ import annotations

import string
from collections.abc import Sequence

from evalkit.models.interfaces import RunnableModel, Scorer
from evalkit.models.settings import model_settings
from evalkit.records import Candidate, ModelIdentity, Query, Request, Run, Task, TaskStatistics
from evalkit.scoring.engine import score_task

Group = tuple[Sequence[str], Sequence[tuple[str, int]]]  # a query's texts, and its candidates' texts with their gains


def make_task(*groups: Group, name: str = "made") -> Task:
    """A task of these queries; ids are q0, q1, … and q0-a, q0-b, …"""
    requests = tuple(
        Request(
            Query(f"q{number}", tuple(texts)),
            tuple(
                Candidate(f"q{number}-{doc_name(place)}", text, gain) for place, (text, gain) in enumerate(candidates)
            ),
        )
        for number, (texts, candidates) in enumerate(groups)
    )
    gains = [[candidate.gain for candidate in request.candidates] for request in requests]
    statistics = TaskStatistics(
        queries=len(requests),
        pairs=sum(map(len, gains)),
        positives=sum(gain > 0 for one in gains for gain in one),
        queries_without_positives=sum(max(one, default=0) <= 0 for one in gains),
        queries_without_negatives=sum(min(one, default=1) > 0 for one in gains),
        query_characters=sum(len(text) for texts, _ in groups for text in texts),
        document_characters=sum(len(text) for _, candidates in groups for text, _ in candidates),
        unique_queries=len({text for texts, _ in groups for text in texts}),
        unique_documents=len({text for _, candidates in groups for text, _ in candidates}),
    )
    return Task(name, name, "test", ("zho-Hans",), "cmteb", "made", "", "0" * 64, statistics, requests=requests)


def doc_name(place: int) -> str:
    """a, b, …, z, 26, 27, …"""
    return string.ascii_lowercase[place] if place < 26 else str(place)


def scored(
    scorer: Scorer, task: Task, *, kind: str = "cross-encoder", similarity: str = "cosine", **recipe: object
) -> Run:
    """The scorer's run of the task, through the engine."""
    model = RunnableModel(ModelIdentity("made", "local/made", "made", kind), {}, None, lambda: scorer)
    return score_task(model, model_settings({"name": "made", "kind": kind, "similarity": similarity, **recipe}), task)
