"""Published tables: the registry's CSV, tables in Markdown and mteb's results; each figure is the one that stands there."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from judging import command, fuzzed
from mutations import DEEP, NASTY, NUMBERS, TEXTS, TREES, damaged, deep_json, json_bytes, mutated

from evalkit.audit.readers import read_figures

KIND = "published tables"
COLUMNS = ["model", "model_revision", "task", "metric", "value", "unit", "protocol", "source", "reference", "note"]
REGISTRY: list[list[Any]] = [
    [
        "BAAI/bge-reranker-base",
        "",
        "T2Reranking",
        "map",
        "67.28",
        "percent",
        "cmteb-v1",
        "table",
        "C_MTEB/README.md",
        "",
    ],
    [
        "BAAI/bge-reranker-base",
        "2cfc",
        "CMedQAv1",
        "mrr",
        "84.1423",
        "percent",
        "cmteb-v1",
        "model-index",
        "card",
        "note",
    ],
    [
        "BAAI/bge-m3",
        "",
        "MMarcoReranking",
        "map",
        "0.3512",
        "fraction",
        "mteb-v2",
        "results",
        "mteb/results",
        "mteb 2.1",
    ],
]
TABLE = [
    ["Model", "T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2", "Avg"],
    ["bge-reranker-base", "67.28", "35.46", "81.27", "84.10", "67.03"],
    ["bge-reranker-large", "67.60", "37.17", "82.14", "84.18", "67.77"],
]
MTEB: dict[str, Any] = {
    "dataset_revision": "76631901a18387f85eaa53e5450019b87ad58ef9",
    "task_name": "T2Reranking",
    "mteb_version": "1.14.15",
    "evaluation_time": 12.5,
    "scores": {
        "dev": [{"hf_subset": "default", "languages": ["cmn-Hans"], "map": 0.6728, "mrr": 0.7772, "main_score": 0.6728}]
    },
}
VALUES = (
    st.decimals(0, 100, places=2).map(str)
    | st.sampled_from(["", "1e2", "٣", "0x1f", "1,5", "--1", "1e999999999", "9" * 400])
    | TEXTS
)


def read(name: str, content: bytes) -> list[Any]:
    """The figures of a file that `audit` accepts; it prints them first, for people and as JSON."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / name
        path.write_bytes(content)
        command("audit", path)
        json.loads(command("audit", path, "--json"))
        return list(read_figures(path).figures)


def is_stated(figure: Any, printed: str) -> bool:
    """Whether the figure is what is printed; a text that is no number (a short decimal one) is NaN."""
    try:
        value = float(Decimal(printed.strip()) / (100 if figure.unit == "percent" else 1))
    except ArithmeticError:
        return math.isnan(figure.value)
    return math.isnan(figure.value) or math.isclose(figure.value, value, rel_tol=1e-12, abs_tol=1e-300)


def csv_text(rows: list[Any], separator: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(row if isinstance(row, list) else [row] for row in rows)
    return stream.getvalue()


@st.composite
def registries(draw: st.DrawFn) -> bytes:
    rows = [list(row) for row in REGISTRY]
    for row in rows:
        if draw(st.booleans()):
            row[4] = draw(VALUES)
    changed = draw(mutated([list(COLUMNS), *rows], 2))
    content = csv_text(changed if isinstance(changed, list) else [changed]).encode("utf-8", "surrogatepass")
    return draw(damaged(content)) if draw(st.integers(0, 4)) == 0 else content


@fuzzed(KIND, 0.35, content=registries())
def test_registries(content: bytes) -> None:
    figures = read("figures.csv", content)
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert len(figures) == len(rows)
    for figure, row in zip(figures, rows, strict=True):
        assert figure.model == (row["model"] or "").strip()
        assert figure.task == (row["task"] or "").strip()
        assert is_stated(figure, row["value"] or "")


@st.composite
def markdown(draw: st.DrawFn) -> list[list[str]]:
    rows = [list(row) for row in TABLE]
    for row in rows[1:]:
        for place in range(1, len(row)):
            if draw(st.integers(0, 3)) == 0:
                row[place] = draw(VALUES)
    changed = draw(mutated(rows, 2))
    rows = (
        [[str(cell) for cell in row] for row in changed if isinstance(row, list) and row]
        if isinstance(changed, list)
        else []
    )
    return rows or TABLE


@fuzzed(KIND, 0.3, rows=markdown(), above=st.sampled_from(["", "# Title", "```", "> ", "<!--", *NASTY]))
def test_tables(rows: list[list[str]], above: str) -> None:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "--|" * len(rows[0]))
    figures = read("table.md", "\n".join([above, "", *lines, ""]).encode("utf-8", "surrogatepass"))
    written = [" ".join(cell.split()).removesuffix("%") for row in rows for cell in row]
    for figure in figures:
        # a cell may hold markup; what is read of it stands there
        assert (
            any(figure.printed in cell for cell in (*written, *" ".join(written).split("|")))
            or not figure.printed.isascii()
        )
        assert is_stated(figure, figure.printed)


@st.composite
def mteb_results(draw: st.DrawFn) -> bytes:
    content = json.loads(json.dumps(MTEB))
    if draw(st.booleans()):
        content["scores"]["dev"][0]["map"] = draw(NUMBERS | TREES)
    if draw(st.integers(0, 3)) == 0:
        content = {"mteb_dataset_name": "T2Reranking", "dev": content["scores"]["dev"][0]}
    encoded = json_bytes(draw(mutated(content)))
    return draw(damaged(encoded) | DEEP.map(deep_json)) if draw(st.integers(0, 5)) == 0 else encoded


@fuzzed(KIND, 0.35, content=mteb_results())
def test_results_of_mteb(content: bytes) -> None:
    figures = read("T2Reranking.json", content)
    numbers = set(_numbers(json.loads(content, parse_float=str, parse_int=str, parse_constant=str)))
    for figure in figures:
        if not math.isnan(figure.value):
            assert figure.printed in numbers
            assert math.isclose(figure.value, float(figure.printed), rel_tol=1e-12, abs_tol=1e-300)


def _numbers(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for part in value.values() for found in _numbers(part)]
    if isinstance(value, list):
        return [found for part in value for found in _numbers(part)]
    return [value] if isinstance(value, str) else []
