"""Figures beside known ones: what is published for the same model and task, and what known mistakes leave behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from evalkit.audit.figures import AuditedFigures, AuditFinding, Figure, fraction_decimals, is_equal, is_sound, shown
from evalkit.audit.names import task_size
from evalkit.metrics.measures import PROTOCOLS, leading_like, leading_with, protocol_of
from evalkit.results.published import HEADLESS, NOISE_POINTS, RANDOM_HEAD, SUITES

_TELLING_DECIMALS = 5
_FEWEST_AGREEING = 3
# what rounds to the mistakes' figures
_HALF_A_PLACE = 0.00005 + 1e-12
_NOISE_MAP = (0.0055, 0.0065)


def published_beside(figure: Figure, evidence: AuditedFigures) -> tuple[Figure, ...]:
    """List what is published for a figure's model, task, metric and protocol."""
    return evidence.registry.by_key.get((figure.model, figure.task, figure.metric, figure.protocol), ())


def is_published(figure: Figure, evidence: AuditedFigures) -> bool:
    """Tell whether a figure is one that is published for its model and task."""
    return any(is_equal(figure, other) for other in published_beside(figure, evidence))


def changed_figures(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find figures that differ from what is published where their neighbours are the published ones.

    Of a suite's mean, which is one figure of each model, the neighbours are those of the table's other models. A new measurement
    changes them all; one that differs alone was misprinted or changed. In a card, which states all its
    digits, that is an error; elsewhere a warning, in a table that is no further off than runs of one model are apart a note.
    """
    groups: dict[tuple[str, str, str], list[Figure]] = defaultdict(list)
    for figure in evidence.figures:
        if is_sound(figure) and published_beside(figure, evidence):
            own = figure.task if figure.task in SUITES else figure.model
            groups[figure.file, own, figure.kind].append(figure)
    for group in groups.values():
        changed = [figure for figure in group if not is_published(figure, evidence)]
        agreeing = len(group) - len(changed)
        if agreeing >= max(_FEWEST_AGREEING, len(changed) + 1):
            yield from (_changed(figure, agreeing, evidence) for figure in changed)


def _changed(figure: Figure, agreeing: int, evidence: AuditedFigures) -> AuditFinding:
    nearest = min(published_beside(figure, evidence), key=lambda other: abs(other.value - figure.value))
    within_noise = abs(nearest.value - figure.value) * 100 <= NOISE_POINTS + 1e-9
    return AuditFinding(
        "error" if figure.kind == "card" else "note" if within_noise and figure.kind == "table" else "warning",
        "changed",
        f"{figure.metric} of {shown(figure.task)} is not what was published for {shown(figure.model)}",
        figure.file,
        figure.place,
        "one figure that differs among published ones was misprinted or changed, or its source was not named",
        f"{figure.printed} here; the nearest published is {nearest.printed} ({nearest.place}); {agreeing} others of this "
        f"{'table' if figure.task in SUITES else 'model'} agree",
    )


def mixed_protocols(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find figures under another protocol's name: mteb-v2's map_at_1000 as cmteb-v1's map, or the reverse."""
    for figure in evidence.figures:
        if figure.metric not in _leading():
            continue
        if not _is_of_its_protocol(figure):
            yield _named_wrongly(figure)
        elif is_sound(figure):
            others = _of_other_protocol(figure, evidence)
            own = published_beside(figure, evidence)
            hits = [other for other in others if _is_hit(figure, other, exactly=not own)]
            if hits and not is_published(figure, evidence):
                yield _of_another_protocol(figure, hits[0], own)


def wrong_main_scores(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find results of the published tasks whose main score is not their MAP."""
    rows: dict[tuple[str, str], dict[str, Figure]] = defaultdict(dict)
    for figure in evidence.figures:
        if is_sound(figure) and task_size(figure.task):
            rows[figure.file, figure.row][figure.metric] = figure
    for row in rows.values():
        main = row.get("main_score")
        maps = [row[metric] for metric in leading_with("MAP") if metric in row]
        if main and maps and not any(is_equal(main, figure) for figure in maps):
            same = [name for name, figure in row.items() if figure is not main and is_equal(main, figure)]
            yield AuditFinding(
                "warning",
                "protocol",
                f"main_score of {shown(main.task)} is not its {maps[0].metric}",
                main.file,
                main.place,
                "leaderboards rank by main_score, which for reranking is MAP",
                f"{main.printed}, {maps[0].metric} {maps[0].printed}" + (f"; it is {same[0]}" if same else ""),
            )


def _of_other_protocol(figure: Figure, evidence: AuditedFigures) -> tuple[Figure, ...]:
    others = {protocol: leading_like(figure.metric, protocol) for protocol in PROTOCOLS if protocol != figure.protocol}
    return tuple(
        published
        for protocol, metric in others.items()
        if metric != figure.metric
        for published in evidence.registry.by_key.get((figure.model, figure.task, metric, protocol), ())
    )


def _leading() -> frozenset[str]:
    return frozenset(name for protocol in PROTOCOLS.values() for name in protocol.leading_names)


def _is_of_its_protocol(figure: Figure) -> bool:
    """Tell whether a figure's protocol has a measure of that name."""
    protocol = PROTOCOLS.get(figure.protocol)
    return protocol is not None and any(measure.name == figure.metric for measure in protocol.measures)


def _is_hit(figure: Figure, other: Figure, exactly: bool) -> bool:
    """Tell whether a figure is the other protocol's; without a figure of its own protocol, to the last digit."""
    decimals = fraction_decimals(figure), fraction_decimals(other)
    return (
        min(decimals) >= _TELLING_DECIMALS and is_equal(figure, other) and (not exactly or decimals[0] == decimals[1])
    )


def _of_another_protocol(figure: Figure, hit: Figure, own: tuple[Figure, ...]) -> AuditFinding:
    beside = f"; under {figure.protocol} it has {own[0].printed}" if own else ""
    return AuditFinding(
        "warning",
        "protocol",
        f"{figure.metric} of {shown(figure.task)} is the figure of {hit.protocol}",
        figure.file,
        figure.place,
        f"{figure.metric} belongs to {figure.protocol}, and the two protocols treat ties and missed documents differently",
        f"{figure.printed} is {shown(figure.model)}'s published {hit.metric} ({hit.place}){beside}",
    )


def _named_wrongly(figure: Figure) -> AuditFinding:
    return AuditFinding(
        "warning",
        "protocol",
        f"{figure.metric} of {shown(figure.task)} stands in a result of {figure.protocol}",
        figure.file,
        figure.place,
        f"{figure.metric} is {protocol_of(figure.metric)}'s name; {figure.protocol} calls its own "
        f"{leading_like(figure.metric, figure.protocol)}",
        f"{figure.metric} = {figure.printed}",
    )


def known_mistakes(evidence: AuditedFigures) -> Iterator[AuditFinding]:
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


def _rows(evidence: AuditedFigures) -> Iterator[list[Figure]]:
    rows: dict[tuple[str, str, str], list[Figure]] = defaultdict(list)
    for figure in evidence.figures:
        if is_sound(figure):
            rows[figure.file, figure.row, figure.task].append(figure)
    yield from rows.values()


def _headless(hits: list[Figure]) -> AuditFinding:
    return AuditFinding(
        "error" if len(hits) > 1 else "warning",
        "fingerprint",
        "T2Reranking has the figures of a reranker without its scoring head",
        hits[0].file,
        hits[0].place,
        f"{HEADLESS.cause}, gets precisely these",
        f"{', '.join(f'{figure.metric} {figure.printed}' for figure in hits)}; the mistake gives map {HEADLESS.map}, mrr "
        f"{HEADLESS.mrr}",
    )


def _noise(figure: Figure) -> AuditFinding:
    return AuditFinding(
        "error",
        "fingerprint",
        "MMarcoReranking has the figure of a random ranking",
        figure.file,
        figure.place,
        f"{RANDOM_HEAD.cause}, leaves this figure",
        f"{figure.metric} {figure.printed}; the mistake gives {RANDOM_HEAD.map}",
    )
