"""A task's part of the page: each query's values, how systems differ on them, distributions of scores, and details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.pairs import pair_tests
from evalkit.compare.shared_queries import SharedQueries, metric_title
from evalkit.compare.systems import System
from evalkit.report.content import Report
from evalkit.report.tables import board_data_note
from evalkit.results.result import Result

DRILL_DOWN = 200
_VALUE_DECIMALS = 6
_SCORE_DIGITS = 5
SHOWN = 30
TEXT_LENGTH = 200
BINS = 40
_OUTER = 0.001


@dataclass(frozen=True, slots=True)
class QueryDetail:
    """One query's candidates: each system's first SHOWN and all relevant ones, in the task's order.

    `query` is the query's place in `SharedQueries.query_ids`, `n_candidates` how many candidates there are in all and `places`
    which of them are here. Per system, by the candidates' order here: `scores`; `ranks`, one more than the number of higher
    scores; `tied`, the numbers of those that share their score; `truncated`, the numbers of those that the model read cut
    (None: not counted). `texts` are cut, and `lengths` are the characters of those that were; both are empty where there are
    no texts.
    """

    query: int
    n_candidates: int
    places: tuple[int, ...]
    doc_ids: tuple[str, ...]
    gains: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    ranks: tuple[tuple[int, ...], ...]
    tied: tuple[tuple[int, ...], ...]
    truncated: tuple[tuple[int, ...] | None, ...]
    texts: tuple[str, ...] = ()
    lengths: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Columns:
    """A system's candidates as arrays, and which of them are a query's."""

    result: Result
    doc_ids: NDArray[np.object_]
    gains: NDArray[np.int64]
    scores: NDArray[np.float64]
    truncated: NDArray[np.bool_] | None
    places: Mapping[str, slice]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Shares of the relevant and of the irrelevant candidates per bin of scores, `low` to `high` in BINS equal bins.

    The outermost scores (a thousandth at either end) count in the bins at the ends. `separation` is the chance that a
    relevant candidate of any query scores above an irrelevant one of any query, ties counting half (the area under the ROC
    curve); None where one of the two is missing.
    """

    low: float
    high: float
    relevant: tuple[float, ...]
    irrelevant: tuple[float, ...]
    separation: float | None


def task_data(report: Report, shared: SharedQueries, numbers: Mapping[System, int]) -> dict[str, Any]:
    """Give what the page's scripts draw of one task; systems stand in the order of `systems`, their numbers."""
    of, choices = shared.of, report.choices
    most = DRILL_DOWN if choices.drill_down is None else choices.drill_down
    details = query_details(shared, most, choices.texts)
    queries = shared.column("query") if choices.texts else None
    return {
        "name": of.task + board_data_note(report, of.task, of.protocol, of.fingerprint, of.part),
        "protocol": of.protocol,
        "metric": metric_title(shared.metric),
        "lang": _language(shared),
        "systems": [numbers[system] for system in of.systems],
        "queryIds": shared.query_ids,
        "queries": None if queries is None else [cut_text(str(text)) for text in queries],
        "values": np.round(shared.values.T, _VALUE_DECIMALS).tolist(),
        "pairs": _pairs(shared, choices.seed, choices.alpha),
        "distributions": [_distribution_data(shared, place) for place in range(len(of.systems))],
        "hasTexts": any(detail.texts for detail in details),
        "details": [_detail_data(asdict(detail)) for detail in details],
    }


def worst_queries(values: NDArray[np.float64], most: int) -> list[int]:
    """Choose at most so many queries: each system's worst in turn, then each one's second worst, and so on.

    `values` is float64[n_queries, n_systems]; the places come in the order in which they are chosen.
    """
    # rounding must not decide the order of equal values
    orders = np.argsort(np.round(values, 9), axis=0, kind="stable")
    return list(dict.fromkeys(orders.ravel().tolist()))[:most]


def query_details(shared: SharedQueries, most: int, with_texts: bool) -> list[QueryDetail]:
    """Show the worst queries of a task in detail, at most so many. Its results have the same candidates with the same labels."""
    chosen = worst_queries(shared.values, most)
    systems = [_columns(result) for result in shared.of.results] if chosen else []
    details = [_query_detail(query, shared.query_ids[query], systems) for query in chosen]
    return _with_texts(details, shared, systems) if with_texts and chosen else details


def cut_text(text: str) -> str:
    """Give a text's beginning, on one line; with an ellipsis where something was left out."""
    if len(text) > TEXT_LENGTH:
        return " ".join(text[:TEXT_LENGTH].split()) + "…"
    return " ".join(text.split())


def score_distribution(scores: NDArray[np.floating], gains: NDArray[np.integer]) -> Distribution:
    """Count finite scores by label: both arrays are of one length, [n_candidates]."""
    values = scores.astype(np.float64)
    low, high = (float(end) for end in np.quantile(values, (_OUTER, 1 - _OUTER)))
    if not low < high:
        low, high = low - 0.5, low + 0.5
    relevant, irrelevant = values[gains > 0], values[gains <= 0]
    return Distribution(
        low, high, _shares(relevant, low, high), _shares(irrelevant, low, high), _separation(relevant, irrelevant)
    )


def _pairs(shared: SharedQueries, seed: int, alpha: float) -> list[dict[str, Any]]:
    """Compare all pairs of systems as `compare` does, without what takes long and is not shown."""
    if len(shared.of.systems) < 2:
        return []
    tests = pair_tests(shared.values, seed=seed, alpha=alpha)
    return [
        {
            "first": int(first),
            "second": int(second),
            "difference": float(tests.differences[:, pair].mean()),
            "interval": tests.intervals[pair].tolist(),
            "p": float(tests.adjusted[pair]),
            "wins": int(tests.wins[pair]),
            "losses": int(tests.losses[pair]),
            "ties": int(len(tests.differences) - tests.wins[pair] - tests.losses[pair]),
        }
        for pair, (first, second) in enumerate(zip(tests.first, tests.second, strict=True))
    ]


def _distribution_data(shared: SharedQueries, place: int) -> dict[str, Any]:
    table = shared.of.results[place].candidates
    found = score_distribution(table["score"].to_numpy(), table["label"].to_numpy())
    return {
        **asdict(found),
        "relevant": np.round(found.relevant, 5).tolist(),
        "irrelevant": np.round(found.irrelevant, 5).tolist(),
    }


def _detail_data(detail: dict[str, Any]) -> dict[str, Any]:
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
    return "zh-Hans" if any(str(language).startswith(("cmn", "zho")) for language in languages) else ""


def _columns(result: Result) -> _Columns:
    table = result.candidates
    counts = result.queries["n_candidates"].to_numpy()
    ends = np.cumsum(counts)
    places = {
        query_id: slice(int(end - count), int(end))
        for query_id, count, end in zip(result.queries["query_id"].tolist(), counts, ends, strict=True)
    }
    counted = "truncated" in table and table["truncated"].notna().all()
    return _Columns(
        result=result,
        doc_ids=table["doc_id"].to_numpy(object),
        gains=table["label"].to_numpy(np.int64),
        scores=table["score"].to_numpy(np.float64),
        truncated=table["truncated"].to_numpy(np.bool_) if counted else None,
        places=places,
    )


def _query_detail(query: int, query_id: str, systems: Sequence[_Columns]) -> QueryDetail:
    first, own = systems[0], systems[0].places[query_id]
    gains = first.gains[own]
    scores = np.array([one.scores[one.places[query_id]] for one in systems])
    shown = np.flatnonzero((gains > 0) | (_positions(scores) < SHOWN).any(axis=0))
    ranks, tied = _ranks(scores)
    return QueryDetail(
        query=query,
        n_candidates=len(gains),
        places=tuple(shown.tolist()),
        doc_ids=tuple(map(str, first.doc_ids[own][shown])),
        gains=tuple(gains[shown].tolist()),
        scores=tuple(map(tuple, scores[:, shown].tolist())),
        ranks=tuple(map(tuple, ranks[:, shown].tolist())),
        tied=tuple(tuple(np.flatnonzero(row).tolist()) for row in tied[:, shown]),
        truncated=tuple(
            None
            if one.truncated is None
            else tuple(np.flatnonzero(one.truncated[one.places[query_id]][shown]).tolist())
            for one in systems
        ),
    )


def _with_texts(
    details: Sequence[QueryDetail], shared: SharedQueries, systems: Sequence[_Columns]
) -> list[QueryDetail]:
    """Add the texts that the first result with texts holds; where none does, the details stay as they are."""
    ends = np.cumsum([len(detail.places) for detail in details])[:-1]
    for one in systems:
        starts = [one.places[shared.query_ids[detail.query]].start for detail in details]
        rows = [start + place for start, detail in zip(starts, details, strict=True) for place in detail.places]
        texts = one.result.candidate_texts(rows)
        if texts is not None:
            parts = np.split(np.array(texts, dtype=object), ends)
            return [_with_own_texts(detail, part.tolist()) for detail, part in zip(details, parts, strict=True)]
    return list(details)


def _with_own_texts(detail: QueryDetail, texts: Sequence[str]) -> QueryDetail:
    lengths = {number: len(text) for number, text in enumerate(texts) if len(text) > TEXT_LENGTH}
    return replace(detail, texts=tuple(map(cut_text, texts)), lengths=lengths)


def _positions(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give each candidate's position in each system's order, 0 the first: of tied ones the earlier in the task first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def _ranks(scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give ranks and whether they are shared, both [n_systems, n_candidates]."""
    ranks, tied = np.empty(scores.shape, np.int64), np.empty(scores.shape, np.bool_)
    for row, values in enumerate(-scores):
        ordered = np.sort(values)
        before, until = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
        ranks[row], tied[row] = before + 1, until - before > 1
    return ranks, tied


def _shares(values: NDArray[np.float64], low: float, high: float) -> tuple[float, ...]:
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    return tuple((counts / max(1, len(values))).tolist())


def _separation(relevant: NDArray[np.float64], irrelevant: NDArray[np.float64]) -> float | None:
    if not len(relevant) or not len(irrelevant):
        return None
    ordered = np.sort(irrelevant)
    below = np.searchsorted(ordered, relevant, "left") + np.searchsorted(ordered, relevant, "right")
    return float(below.mean() / 2 / len(ordered))
