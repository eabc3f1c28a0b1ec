"""Figures that known mistakes leave behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from evalkit.audit.figures import Evidence, Figure, Finding, is_sound
from evalkit.metrics.measures import leading_with
from evalkit.results.published import HEADLESS, RANDOM_HEAD

# what rounds to the mistakes' figures
_HALF_A_PLACE = 0.00005 + 1e-12
_NOISE_MAP = (0.0055, 0.0065)


def known_mistakes(evidence: Evidence) -> Iterator[Finding]:
    """Find the figures of a reranker without its head on T2Reranking, and of noise on MMarcoReranking."""
    for row in _rows(evidence):
        by_metric = {figure.metric: figure for figure in row}
        hits = [
            figure
            for metrics, value in ((leading_with("MAP"), HEADLESS.map), (leading_with("MRR"), HEADLESS.mrr))
            for metric in metrics
            if value is not None and (figure := by_metric.get(metric)) and abs(figure.value - value) <= _HALF_A_PLACE
        ]
        if row[0].task == "T2Reranking" and hits:
            yield _headless(hits)
        for figure in row:
            is_map = figure.metric in leading_with("MAP")
            if figure.task == "MMarcoReranking" and is_map and _NOISE_MAP[0] <= figure.value < _NOISE_MAP[1]:
                yield _noise(figure)


def _rows(evidence: Evidence) -> Iterator[list[Figure]]:
    rows: dict[tuple[str, str, str], list[Figure]] = defaultdict(list)
    for figure in evidence.figures:
        if is_sound(figure):
            rows[figure.file, figure.row, figure.task].append(figure)
    yield from rows.values()


def _headless(hits: list[Figure]) -> Finding:
    return Finding(
        "error" if len(hits) > 1 else "warning",
        "fingerprint",
        "T2Reranking has the figures of a reranker without its scoring head",
        hits[0].file,
        hits[0].place,
        f"{HEADLESS.cause}, gets precisely these",
        f"{', '.join(f'{figure.metric} {figure.printed}' for figure in hits)}; the mistake gives map {HEADLESS.map}, mrr "
        f"{HEADLESS.mrr}",
    )


def _noise(figure: Figure) -> Finding:
    return Finding(
        "error",
        "fingerprint",
        "MMarcoReranking has the figure of a random ranking",
        figure.file,
        figure.place,
        f"{RANDOM_HEAD.cause}, leaves this figure",
        f"{figure.metric} {figure.printed}; the mistake gives {RANDOM_HEAD.map}",
    )
