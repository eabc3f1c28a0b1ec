"""Metrics: pure functions on arrays, and the protocols that say which of them count and how."""

from evalkit.metrics.lists import CandidateLists, lists_of_task
from evalkit.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from evalkit.metrics.query_scores import query_table, score_lists
from evalkit.metrics.runs import RunScores, lists_of_run, score_run

__all__ = [
    "PROTOCOLS",
    "CandidateLists",
    "Protocol",
    "RunScores",
    "find_protocol",
    "lists_of_run",
    "lists_of_task",
    "query_table",
    "score_lists",
    "score_run",
]
