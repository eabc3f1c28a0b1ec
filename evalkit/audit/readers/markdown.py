"""Model cards and other Markdown: the model-index in the YAML at the top, and the tables below it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from evalkit.audit.figures import Figure, Unit, decimals_of, parse_number, value_of
from evalkit.audit.names import (
    full_model_name,
    is_metric,
    model_of_path,
    query_count,
    task_name,
    usual_metric,
    usual_protocol,
)
from evalkit.configuration.files import is_nested_deep, parse_yaml
from evalkit.errors import EvalkitError
from evalkit.metrics.measures import protocol_of
from evalkit.results.published import AVERAGE_TASK

# as huggingface_hub finds it; its ModelCard refuses a card whose figures are wrong, and here these are to be reported
_FRONT_MATTER = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\r|\n|$))")

_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.\-]+/[\w.\-]+)/?")
_METRIC_WORD = re.compile(r"[\s(,_\-]*\b(map|mrr)(?:[@_](?:at_)?(\d+))?\b[\s)]*$", re.IGNORECASE)
_NO_NUMBERS = {"nan", "inf", "-inf"}
_BLANK = "-‐‑‒–—―− "
# what stands behind a figure and leaves it as it is: 37.01*, 37.01 ↑, 37.01 [1], 37.01 (2nd), 37.01±0.2
_MARK = r"[*†‡↑↓]|\[\^?\w{1,3}\]|\(\d{1,3}(?:st|nd|rd|th)\)|±\s?\d{1,20}(?:\.\d{1,20})?%?"
_MARKED = re.compile(rf"([\d.eE+-]{{1,66}})\s?%?(?:\s?(?:{_MARK}))*")
# how a figure begins that could not be read (37,01, ~37.01); 1.5B and 24,000 are sizes
_FIGURE_LIKE = re.compile(r"\W{0,9}\d{1,20}(?:\.\d{1,40}|,\d{1,2})(?!\w)")


class _Metric(NamedTuple):
    """A metric as a model-index states it."""

    model: str
    task: str
    split: str
    metric: str
    printed: str
    place: str


def card_figures(text: str, path: Path, model: str = "") -> list[Figure]:
    """Read the figures of a card's model-index and of its tables.

    A card's figures are its model's: that which `model` names, else that of the path (`…/owner/name/README.md`), else
    that of the model-index. Raises EvalkitError where the YAML is broken.
    """
    front = _FRONT_MATTER.match(text)
    owner = model or model_of_path(path.absolute())
    metrics = list(_metrics(_parse_yaml(front[2], path))) if front else []
    body = text[front.end() :] if front else text
    first_line = text[: front.end()].count("\n") if front else 0
    return _index_figures(metrics, owner, str(path)) + table_figures(body, first_line, path, owner)


def _parse_yaml(text: str, path: Path) -> object:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise EvalkitError(f"{path}: the YAML at its top is broken ({error}); mend it") from error


def _index_figures(metrics: list[_Metric], owner: str, file: str) -> list[Figure]:
    unit = unit_of([metric.printed for metric in metrics])
    return [
        Figure(
            model=owner or full_model_name(metric.model),
            task=metric.task,
            metric=metric.metric,
            value=value_of(metric.printed, unit),
            printed=metric.printed,
            decimals=decimals_of(metric.printed),
            unit=unit,
            protocol=protocol_of(metric.metric),
            file=file,
            place=metric.place,
            row=f"model-index of {metric.model}",
            kind="card",
            queries=query_count(metric.task, metric.split),
        )
        for metric in metrics
    ]


def unit_of(printed: list[str]) -> Unit:
    """Tell percentages from fractions: what most of the numbers can only be."""
    numbers = [number for number in map(parse_number, printed) if number is not None]
    return "percent" if 2 * sum(number > 1 for number in numbers) >= max(1, len(numbers)) else "fraction"


def _metrics(front_matter: object) -> Iterator[_Metric]:
    """Yield the reranking metrics of a model-index, whatever else it holds."""
    for number, entry in enumerate(_items(_get(front_matter, "model-index"))):
        for result_number, result in enumerate(_items(_get(entry, "results"))):
            dataset = _get(result, "dataset")
            names = [_text(_get(dataset, key)) for key in ("type", "name")]
            task = next(filter(None, map(task_name, names)), "")
            if not task and _text(_get(_get(result, "task"), "type")).casefold() != "reranking":
                continue
            for metric_number, metric in enumerate(_items(_get(result, "metrics"))):
                name = _text(_get(metric, "type")).casefold()
                if is_metric(name):
                    yield _Metric(
                        model=_text(_get(entry, "name")),
                        task=task or names[1] or names[0],
                        split=_text(_get(dataset, "split")),
                        metric=name,
                        printed=_printed(_get(metric, "value")),
                        place=f"model-index[{number}].results[{result_number}].metrics[{metric_number}] ({task} {name})",
                    )


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _get(holder: object, key: str) -> object:
    return holder.get(key) if isinstance(holder, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _printed(value: object) -> str:
    """Give a YAML value's digits: a float's repr is the shortest that is the same float."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return "null" if value is None else type(value).__name__
    if isinstance(value, int) and abs(value) > 10**18:
        return "a very large number"
    return str(value) if isinstance(value, str | int) else repr(value)


@dataclass(frozen=True, slots=True)
class MarkdownCell:
    """A cell's text, and where its first link leads."""

    text: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class MarkdownTable:
    """A table of a Markdown file: `line` counts from 1, rows are as long as the header."""

    line: int
    header: tuple[MarkdownCell, ...]
    rows: tuple[tuple[MarkdownCell, ...], ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cell that states a figure."""

    model: str
    task: str
    metric: str
    text: str
    row: str
    column: str


def table_figures(text: str, first_line: int, path: Path, owner: str = "") -> list[Figure]:
    """Read the figures of every table that names reranking tasks; `first_line` lines stand before the text.

    A row that names no model is about `owner`. Cells that hold no number state nothing; where they are not blank, the other
    figures of the row name them as `unread`.
    """
    figures: list[Figure] = []
    for number, table in enumerate(parse_tables(text), start=1):
        entries: list[_Entry] = []
        unread: dict[str, list[str]] = defaultdict(list)
        for entry in _entries(table, owner):
            if _states_something(entry.text):
                entries.append(entry)
            elif entry.text.strip(_BLANK):
                unread[entry.row].append(f"{entry.column}: {entry.text}")
        place = f"table {number} (line {first_line + table.line})"
        units = {
            row: unit_of([_digits(entry.text) for entry in entries if entry.row == row])
            for row in {e.row for e in entries}
        }
        figures += [
            _table_figure(entry, units[entry.row], place, path, tuple(unread.get(entry.row, ()))) for entry in entries
        ]
    return figures


def parse_tables(text: str) -> Iterator[MarkdownTable]:
    """Find the tables of a Markdown text; code is no table."""
    # cells alone are read for links and the like: elsewhere brackets that nest deep would take a parser long
    markdown = MarkdownIt("commonmark").enable("table").disable("inline")
    references: dict[str, Any] = {}
    tokens = markdown.parse(text, references)
    start = 0
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            start = number
        elif token.type == "table_close":
            rows = list(_rows(tokens[start:number], lambda cell: _inside(markdown, cell, references)))
            if rows and rows[0]:
                yield MarkdownTable(line=(tokens[start].map or [0])[0] + 1, header=rows[0], rows=tuple(rows[1:]))


def _inside(markdown: MarkdownIt, cell: str, references: dict[str, Any]) -> list[Token]:
    children: list[Token] = []
    if is_nested_deep(cell):
        return [Token("text", "", 0, content=cell)]
    markdown.inline.parse(cell, markdown, references, children)
    return children


def _rows(tokens: Sequence[Token], inside: Callable[[str], list[Token]]) -> Iterator[tuple[MarkdownCell, ...]]:
    cells: list[MarkdownCell] = []
    for token in tokens:
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline":
            cells.append(_cell(inside(token.content)))
        elif token.type == "tr_close":
            yield tuple(cells)


def _cell(children: Sequence[Token]) -> MarkdownCell:
    whole, plain, aside = "", "", 0
    for child in children:
        tag = child.content.casefold() if child.type == "html_inline" else ""
        aside += child.type == "link_open" or tag.startswith(("<sup", "<sub"))
        aside -= child.type == "link_close" or tag.startswith(("</sup", "</sub"))
        text = child.content if child.type in ("text", "text_special", "code_inline") else " " * tag.startswith("<br")
        whole += text
        plain += "" if aside else text
    links = [str(child.attrs.get("href", "")) for child in children if child.type == "link_open"]
    # a note's number, raised or linked, is no digit of the figure before it
    return MarkdownCell((plain if not aside and _states_something(plain) else whole).strip(), links[0] if links else "")


def _entries(table: MarkdownTable, owner: str) -> Iterator[_Entry]:
    """Yield what the cells state, whichever way the table lies."""
    columns = [_task_and_metric(cell.text) for cell in table.header]
    if any(task and task != AVERAGE_TASK for task, _ in columns[1:]):
        yield from _models_by_tasks(table, columns, owner)
    elif "task" in (titles := [cell.text.strip().casefold() for cell in table.header]):
        yield from _long_form(table, titles, owner)
    elif any(_task_and_metric(row[0].text)[0] not in ("", AVERAGE_TASK) for row in table.rows if row):
        yield from _tasks_by_columns(table, owner)


def _models_by_tasks(table: MarkdownTable, columns: Sequence[tuple[str, str]], owner: str) -> Iterator[_Entry]:
    # an average over columns that are not read (other tasks, other abilities) is not the mean of those that are
    unread = any(
        not task and (_states_something(row[place].text) or _FIGURE_LIKE.match(row[place].text))
        for row in table.rows
        for place, (task, _) in enumerate(columns[: len(row)])
        if place
    )
    for number, row in enumerate(table.rows, start=1):
        model = _model(row[0], owner)
        for cell, (task, metric) in zip(row[1:], columns[1:], strict=False):
            if task and not (task == AVERAGE_TASK and unread):
                yield _Entry(model, task, metric, cell.text, f"row {number}", task)


def _long_form(table: MarkdownTable, titles: Sequence[str], owner: str) -> Iterator[_Entry]:
    task_place = titles.index("task")
    model_place = titles.index("model") if "model" in titles else None
    for number, row in enumerate(table.rows, start=1):
        task = task_name(row[task_place].text)
        model = owner if model_place is None else _model(row[model_place], owner)
        for cell, title in zip(row, titles, strict=False):
            metric = _metric_of(title)
            if task and task != AVERAGE_TASK and metric:
                yield _Entry(model, task, metric, cell.text, f"row {number}", metric)


def _tasks_by_columns(table: MarkdownTable, owner: str) -> Iterator[_Entry]:
    rows = [row for row in table.rows if task_name(row[0].text)]
    # a table that describes the tasks has numbers too, of samples and the like, beside texts
    holds_only_figures = all(
        len(cell.text) < 4 or _states_something(cell.text) or _FIGURE_LIKE.match(cell.text)
        for row in rows
        for cell in row[1:]
    )
    for place, title in enumerate(table.header[1:], start=1):
        metric = _metric_of(title.text)
        if not metric and not holds_only_figures:
            continue
        model = owner if metric else _model(title, owner)
        for row in table.rows:
            task, task_metric = _task_and_metric(row[0].text)
            if task:
                yield _Entry(model, task, metric or task_metric, row[place].text, f"column {place}", task)


def _task_and_metric(title: str) -> tuple[str, str]:
    """Tell what a title like `CMedQAv1`, `T2RerankingZh2En*` or `CMedQAv1 (mrr)` stands for; unless said, the usual metric."""
    plain = title.strip().rstrip("*†‡ ").strip()
    match = _METRIC_WORD.search(plain)
    if match and (task := task_name(plain[: match.start()])):
        return task, _metric_of(match[0].strip(" (),_-"))
    task = task_name(plain)
    return task, usual_metric(task)


def _metric_of(title: str) -> str:
    """Name the metric of a column title (`MAP`, `MRR@10`, `map_at_1000`), empty for none."""
    name = title.strip().casefold().replace("@", "_at_")
    # on C-MTEB's pages MRR@10 is what its script calls mrr
    name = "mrr" if name == "mrr_at_10" and "@" in title else name
    return name if is_metric(name) and name != "main_score" else ""


def _model(cell: MarkdownCell, owner: str) -> str:
    link = _HUB.match(cell.link)
    return link[1] if link else full_model_name(cell.text) or owner


def _digits(text: str) -> str:
    """Give a cell's number without its percent sign and the marks behind it; a text that is more than that, as it is."""
    plain = text.strip()
    marked = _MARKED.fullmatch(plain)
    return marked[1] if marked else plain.removesuffix("%").strip()


def _states_something(text: str) -> bool:
    plain = _digits(text)
    return parse_number(plain) is not None or plain.casefold() in _NO_NUMBERS


def _table_figure(entry: _Entry, unit: Unit, table: str, path: Path, unread: tuple[str, ...]) -> Figure:
    printed = _digits(entry.text)
    return Figure(
        model=entry.model,
        task=entry.task,
        metric=entry.metric,
        value=value_of(printed, unit),
        printed=printed,
        decimals=decimals_of(printed),
        unit=unit,
        protocol=usual_protocol(entry.task, entry.metric),
        file=str(path),
        place=f"{table}, {entry.row}, {entry.column}",
        row=f"{table}, {entry.row}",
        kind="table",
        queries=query_count(entry.task),
        unread=unread,
    )
