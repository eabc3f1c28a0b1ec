"""The verdict of a run that was to reproduce published figures: the source's own table, a verdict per cell, and where to look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console

from evalkit.compare.shared_queries import metric_title
from evalkit.configuration.files import option_names, read_option
from evalkit.metrics.measures import CARD_PROTOCOL, PROTOCOLS, RETRIEVAL_PROTOCOL
from evalkit.output.console import Tone, print_lines
from evalkit.output.numbers import listed, percent, points, signed
from evalkit.output.sheets import Sheet, SheetCell, SheetRow, print_sheets
from evalkit.results import published
from evalkit.results.published import HEADLESS, NOISE_POINTS, RANDOM_HEAD, KnownMistake, PublishedFigure
from evalkit.results.result import Result, stage_of

MAP, MRR = METRICS = PROTOCOLS[CARD_PROTOCOL].leading_names
NDCG = PROTOCOLS[RETRIEVAL_PROTOCOL].main_score
ReproductionVerdict = Literal["match", "mismatch", "not comparable"]
Find = Callable[[str, str, str, str, str], PublishedFigure | None]
TONES: Mapping[ReproductionVerdict, Tone] = {"match": "good", "mismatch": "bad", "not comparable": "warning"}

FINGERPRINT_WIDTH = 0.002
RECIPE = ("recipe", "revision", "max_length", "truncation", "query_prompt", "document_prompt", "pooling", "similarity")


@dataclass(frozen=True, slots=True)
class ReproducedFigure:
    """One figure of the source's table and the run's value beside it (a fraction), both of `metric`.

    `why` says why the two can't be compared; `chosen` whether the user asked for that (limit=, sample=), or whether it is a failure
    of its own (other data, other weights).
    """

    task: str
    metric: str
    value: float
    figure: PublishedFigure | None
    bound: float
    why: str = ""
    chosen: bool = True

    @property
    def points(self) -> float:
        """The run's value less the published one, in percentage points; NaN without a figure."""
        return math.nan if self.figure is None else self.figure.points(self.value)

    @property
    def verdict(self) -> ReproductionVerdict:
        """Whether the figure was reproduced. What can't be compared is never a match."""
        if self.why:
            return "not comparable"
        return "match" if abs(self.points) <= self.bound + 1e-9 else "mismatch"

    @property
    def fails(self) -> bool:
        """Whether the figure was to be reproduced and was not."""
        return self.verdict == "mismatch" or (self.verdict == "not comparable" and not self.chosen)


def verdict_cells(results: Sequence[Result], find: Find = published.preferred) -> list[ReproducedFigure]:
    """Return a cell per result and metric, and the average's where one was published over precisely these tasks.

    `find` gives the figure published for a Hub id, task, metric, protocol and first stage. The figures are cards' MAP and MRR, or
    retrieval tasks' nDCG@10. MAP and nDCG may differ by NOISE_POINTS; MRR also by what one query makes whose first relevant
    document moves between ranks 1 and 2.
    """
    cells = [_cell(result, metric, find) for result in results for metric in _metrics(result)]
    average = _average_cell(results, [cell for cell in cells if cell.metric in (MAP, NDCG)])
    return cells + ([average] if average else [])


def _metrics(result: Result) -> tuple[str, ...]:
    return (NDCG,) if _protocol(result) == RETRIEVAL_PROTOCOL else METRICS


def _protocol(result: Result) -> str:
    """Name the protocol whose published figures a result is held against: that of cards, whatever leads, or of retrieval tasks."""
    return result.protocol if result.protocol == RETRIEVAL_PROTOCOL else CARD_PROTOCOL


def print_reproduction(results: Sequence[Result], console: Console) -> bool:
    """Print the verdicts, per model, and on a failure what to look at first. Tells whether nothing failed."""
    succeeded = True
    for hub_id in dict.fromkeys(map(claimed_model, results)):
        own = [result for result in results if claimed_model(result) == hub_id]
        cells = verdict_cells(own)
        failed = any(cell.fails for cell in cells)
        console.print()
        print_sheets([verdict_sheet(hub_id, cells)], console)
        print_lines(
            (_summary_line(cells), *(first_looks(own) if failed else what_matches_rest_on(own, cells))), console
        )
        succeeded = succeeded and not failed
    return succeeded


def verdict_sheet(hub_id: str, cells: Sequence[ReproducedFigure]) -> Sheet:
    """Return the cells as a table: the published digits, the run's own to as many decimals, and the verdict."""
    rows: list[SheetRow] = []
    for cell in cells:
        verdict = f"{cell.verdict} ({cell.why})" if cell.why else cell.verdict
        rows.append(
            (cell.task, _title(cell.metric), *_figure_texts(cell), SheetCell(verdict, TONES[cell.verdict])),
        )
    titles = [one for one in ("MAP", "nDCG@10") if one in {_title(cell.metric) for cell in cells}]
    of_mrr = "; MRR also within what one query makes whose first relevant document moves between ranks 1 and 2"
    of_mrr = of_mrr if any(cell.metric == MRR for cell in cells) else ""
    return Sheet(
        title=f"{hub_id}: published and reproduced",
        columns=(
            *(("task", "text"), ("metric", "text"), ("published", "number"), ("source", "text")),
            *(("this run", "number"), ("difference", "number"), ("verdict", "text")),
        ),
        rows=tuple(rows),
        below=(f"match: {listed(titles)} within {NOISE_POINTS} points, the noise between honest runs{of_mrr}",),
        keys=("task", "metric"),
    )


def first_looks(results: Sequence[Result]) -> list[str]:
    """Return what to look at first, the likeliest cause first: what is known to differ, then what known mistakes give."""
    known = list(dict.fromkeys(look for result in results for look in _looks(result)))
    general = [
        "evalkit doctor with the same settings, which examines weights, truncation and order on a sample",
        "backend=torch dtype=fp32 cache=refresh, which leaves out conversion, rounding and stored scores",
        "the versions of torch, transformers and tokenizers in the result's provenance",
    ]
    return ["look first at:", *(f"  {number}. {look}" for number, look in enumerate([*known, *general], 1))]


def what_matches_rest_on(results: Sequence[Result], cells: Sequence[ReproducedFigure]) -> list[str]:
    """Say what figures match with, where the published ones may have been made otherwise; nothing where that is not known."""
    matched = {cell.task for cell in cells if cell.verdict == "match"}
    own = [result for result in results if result.task.name in matched]
    found = list(dict.fromkeys(look for result in own for look in (*_recipe_looks(result), *_tie_looks(result))))
    return ["the figures match, but with:", *(f"  {look}" for look in found)] if found else []


def claimed_model(result: Result) -> str:
    """Return the Hub id of the model that the run says it is, whatever folder its weights come from."""
    model: Any = result.config.get("model") or {}
    return str(model.get("hub_id") or result.model.hub_id)


def _cell(result: Result, metric: str, find: Find) -> ReproducedFigure:
    protocol = _protocol(result)
    figure = find(claimed_model(result), result.task.name, metric, protocol, result.stage)
    why, chosen = _obstacle(result, figure)
    scored = int(result.queries[PROTOCOLS[protocol].leading[0].column].notna().sum())
    bound = max(NOISE_POINTS, 50 / max(scored, 1)) if metric == MRR else NOISE_POINTS
    return ReproducedFigure(result.task.name, metric, result.scores[metric], figure, bound, why, chosen)


def _obstacle(result: Result, figure: PublishedFigure | None) -> tuple[str, bool]:
    """Why a result can't be compared with a figure, and whether the user asked for that; an empty reason where it can."""
    if result.incomparable == "limit":
        return f"limit={result.limit}", True
    if result.incomparable == "sample":
        return result.task.part, True
    if figure is None:
        return "nothing published", True
    if _other_weights(result):
        return "other weights", False
    return result.incomparable, not result.incomparable


def _other_weights(result: Result) -> bool:
    """Whether the weights are not known to be the claimed model's: not from the Hub, and without its golden scores."""
    checks: Any = result.provenance.get("golden_scores") or ()
    return result.model.hub_id != claimed_model(result) and not (checks and all(check["matches"] for check in checks))


def _average_cell(results: Sequence[Result], cells: Sequence[ReproducedFigure]) -> ReproducedFigure | None:
    tasks = [result.task.name for result in results]
    if len(set(tasks)) < max(len(tasks), 2):
        return None
    protocol, metric = _protocol(results[0]), cells[0].metric
    figure = published.find_average(claimed_model(results[0]), tasks, metric, protocol, stage_of(results))
    if figure is None:
        return None
    obstacles = [_obstacle(result, figure) for result in results]
    reasons = [obstacle for obstacle in obstacles if obstacle[0]]
    value = math.fsum(cell.value for cell in cells) / len(cells)
    why, chosen = reasons[0] if reasons else ("", True)
    return ReproducedFigure(figure.task, metric, value, figure, NOISE_POINTS, why, chosen)


def _title(metric: str) -> str:
    return metric_title(metric) if metric == NDCG else metric.upper()


def _figure_texts(cell: ReproducedFigure) -> list[str]:
    figure = cell.figure
    if figure is None:
        return ["", "", percent(cell.value), ""]
    scale = 100 if figure.unit == "percent" else 1
    difference = signed(cell.points, 3) if math.isfinite(cell.points) else ""
    return [figure.printed, published.origin(figure), f"{cell.value * scale:.{figure.decimals}f}", difference]


def _summary_line(cells: Sequence[ReproducedFigure]) -> str:
    counts = [f"{sum(cell.verdict == verdict for cell in cells)} {verdict}" for verdict in TONES]
    return f"verdict: {', '.join(counts)}"


def _looks(result: Result) -> Iterator[str]:
    """Yield what is known to differ between this run and the published one."""
    if _other_weights(result):
        yield f"the weights: {result.model.hub_id} at {result.model.revision}, which are not known to be {claimed_model(result)}'s"
    if result.task.differences:
        yield f"the data: {result.task.name} has {', '.join(result.task.differences)}"
    for mistake in (HEADLESS, RANDOM_HEAD):
        if mistake.task == result.task.name and _shows(result, mistake):
            yield f"{mistake.task}: MAP {percent(result.scores['map'])} is the print of a known mistake: {mistake.cause}"
    yield from _recipe_looks(result)
    if result.config.get("dtype", "fp32") != "fp32" and result.precision is not None:
        moved = points(result.precision.map_difference)
        yield f"dtype={result.precision.dtype}: on a sample of {result.task.name} MAP moved by {moved} against fp32"
    if result.refinement is not None:
        yield f"dtype={result.refinement.dtype}, of which {result.refinement.again:,} pairs were scored again in fp32"
    yield from _tie_looks(result)


def _tie_looks(result: Result) -> Iterator[str]:
    """Yield what ties can make of a result, where that is more than honest runs differ by."""
    metric = _metrics(result)[0]
    ties = result.ties.get(metric)
    if ties is not None and (ties.high - ties.low) * 100 > NOISE_POINTS:
        made = f"{_title(metric)} {percent(ties.low)} to {percent(ties.high)}"
        yield f"ties: their order alone can make {result.task.name} {made}"


def _recipe_looks(result: Result) -> Iterator[str]:
    """Yield what the user said of the model against its file, which is at hand only where it is one of evalkit's."""
    model: Any = result.config.get("model") or {}
    own = read_option("model", model["name"]) if model.get("name") in option_names("model") else {}
    deviations = result.deviations or {}
    for name in RECIPE:
        if name in deviations:
            says = (
                f"the model's own file says {own[name]!r}" if name in own else "which the model's own file does not say"
            )
            yield f"the recipe: model.{name} is {deviations[name]!r}, {says}"
    source: Any = result.config.get("task") or {}
    if _protocol(result) == CARD_PROTOCOL and source.get("source", "cmteb") != "cmteb":
        yield f"the layout: task.source={source['source']}, cards were made with task.source=cmteb"


def _shows(result: Result, mistake: KnownMistake) -> bool:
    pairs = [(MAP, mistake.map), (MRR, mistake.mrr)]
    return all(abs(result.scores[name] - value) <= FINGERPRINT_WIDTH for name, value in pairs if value is not None)
