"""Metrics: pure functions on arrays, the catalogue of measures, and the protocols that say which of them count and how."""

from evalkit.metrics.lists import CandidateLists, lists_of_task, with_noise
from evalkit.metrics.measures import PROTOCOLS, Measure, Protocol, find_measure, find_protocol, read_measures
from evalkit.metrics.query_scores import query_table, score_lists
from evalkit.metrics.runs import RunScores, lists_of_run, score_run

__all__ = [
    "PROTOCOLS",
    "CandidateLists",
    "Measure",
    "Protocol",
    "RunScores",
    "find_measure",
    "find_protocol",
    "lists_of_run",
    "lists_of_task",
    "query_table",
    "read_measures",
    "score_lists",
    "score_run",
    "with_noise",
]
