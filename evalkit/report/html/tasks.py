"""A task's part of the page: each query's values, how systems differ on them, distributions of scores, and details."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from evalkit.compare.pairs import SAME_VALUE
from evalkit.compare.shared_queries import SharedQueries, metric_title
from evalkit.compare.systems import System
from evalkit.report.board_titles import data_note
from evalkit.report.content import Report
from evalkit.report.html.candidates import cut_text, query_details
from evalkit.report.html.distributions import score_distribution
from evalkit.statistics import bootstrap_intervals, holm, paired_randomisation_test, pairs_of, resamples_needed

DRILL_DOWN = 200
_VALUE_DECIMALS = 6
_SCORE_DIGITS = 5


def task_data(report: Report, shared: SharedQueries, numbers: Mapping[System, int]) -> dict[str, Any]:
    """Give what the page's scripts draw of one task; systems stand in the order of `systems`, their numbers."""
    of, choices = shared.of, report.choices
    most = DRILL_DOWN if choices.drill_down is None else choices.drill_down
    details = query_details(shared, most, choices.texts)
    queries = shared.column("query") if choices.texts else None
    return {
        "name": of.task + data_note(report, of.task, of.protocol, of.fingerprint, of.limit),
        "protocol": of.protocol,
        "metric": metric_title(shared.metric),
        "lang": _language(shared),
        "systems": [numbers[system] for system in of.systems],
        "queryIds": shared.query_ids,
        "queries": None if queries is None else [cut_text(str(text)) for text in queries],
        "values": np.round(shared.values.T, _VALUE_DECIMALS).tolist(),
        "pairs": _pairs(shared, choices.seed, choices.alpha),
        "distributions": [_distribution(shared, place) for place in range(len(of.systems))],
        "hasTexts": any(detail.texts for detail in details),
        "details": [_detail(asdict(detail)) for detail in details],
    }


def _pairs(shared: SharedQueries, seed: int, alpha: float) -> list[dict[str, Any]]:
    """Compare all pairs of systems as `compare` does, without what takes long and is not shown."""
    firsts, seconds = pairs_of(len(shared.of.systems))
    if not len(firsts):
        return []
    differences = shared.values[:, firsts] - shared.values[:, seconds]
    intervals = bootstrap_intervals(differences, seed=seed)
    n_resamples = resamples_needed(len(firsts), alpha)
    adjusted = holm(paired_randomisation_test(differences, seed=seed, n_resamples=n_resamples))
    wins, losses = (differences > SAME_VALUE).sum(axis=0), (differences < -SAME_VALUE).sum(axis=0)
    return [
        {
            "first": int(first),
            "second": int(second),
            "difference": float(differences[:, pair].mean()),
            "interval": intervals[pair].tolist(),
            "p": float(adjusted[pair]),
            "wins": int(wins[pair]),
            "losses": int(losses[pair]),
            "ties": int(len(differences) - wins[pair] - losses[pair]),
        }
        for pair, (first, second) in enumerate(zip(firsts, seconds, strict=True))
    ]


def _distribution(shared: SharedQueries, place: int) -> dict[str, Any]:
    table = shared.of.results[place].candidates
    found = score_distribution(table["score"].to_numpy(), table["label"].to_numpy())
    return {
        **asdict(found),
        "relevant": np.round(found.relevant, 5).tolist(),
        "irrelevant": np.round(found.irrelevant, 5).tolist(),
    }


def _detail(detail: dict[str, Any]) -> dict[str, Any]:
    """Shorten a detail's names and numbers: there are many of them."""
    scores = [[float(f"{score:.{_SCORE_DIGITS}g}") for score in row] for row in detail["scores"]]
    names = {"n_candidates": "count", "doc_ids": "docIds"}
    del detail["places"]
    return {names.get(name, name): value for name, value in detail.items()} | {"scores": scores}


def _language(shared: SharedQueries) -> str:
    """Say which language's glyphs suit the texts, as HTML's `lang`; empty where the task does not say."""
    languages = shared.of.results[0].task.languages
    if any(language.startswith("cmn-Hant") for language in languages):
        return "zh-Hant"
    return "zh-Hans" if any(language.startswith(("cmn", "zho")) for language in languages) else ""
