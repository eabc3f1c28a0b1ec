"""The published tables, cell by cell, and runs among their rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import run_here
from rich.console import Console

from evalkit.output.json import json_bytes
from evalkit.output.sheets import print_notes, print_sheets, sheets_as_markdown
from evalkit.records import ModelIdentity, TaskIdentity, TaskStatistics
from evalkit.report.published_tables import PublishedRow, left_out, published_notes, published_sheets, published_tables
from evalkit.results.result import Result, TablesInMemory
from evalkit.results.writing import result_json

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests/golden"
SIX = ("T2Reranking", "T2RerankingZh2En", "T2RerankingEn2Zh", "MMarcoReranking", "CMedQAv1", "CMedQAv2")
FOUR = ("T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2")
BASE_RUN = dict(zip(SIX, (0.67277, 0.64001, 0.60449, 0.35459, 0.81271, 0.84104), strict=True))


def stored(
    task: str,
    value: float,
    model: str = "BAAI/bge-reranker-base",
    deviations: dict[str, Any] | None = None,
    **data: Any,
) -> Result:
    """A result as far as these tables read it; `data` are fields of its task."""
    name = model.rpartition("/")[2]
    statistics = TaskStatistics(4, 8, 4, 0, 1, 40, 400, 4, 8)
    return Result(
        model=ModelIdentity(name, model, "rev", "cross-encoder"),
        task=TaskIdentity(task, task, "test", (), "cmteb", "hand", "", "f" * 64, statistics, **data),
        protocol="cmteb-v1",
        main_score="map",
        scores={"map": value, "mrr": 0.5},
        tables=TablesInMemory(pd.DataFrame({"ap": [value]}), pd.DataFrame()),
        config={},
        backend={"name": "torch"},
        deviations=deviations or {},
        path=Path("results") / model.replace("/", "__") / "rev" / f"{task}.json",
    )


def suite(values: dict[str, float], **arguments: Any) -> list[Result]:
    return [stored(task, value, **arguments) for task, value in values.items()]


def rows(results: list[Result], table: int = 0) -> list[PublishedRow]:
    return list(published_tables(results)[table].rows)


def rendered(results: list[Result], width: int | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width or 80, force_terminal=width is not None, color_system=None, markup=False)
    print_sheets(published_sheets(results), console)
    print_notes(published_notes(results), console)
    return file.getvalue()


def test_both_tables_are_the_printed_ones() -> None:
    assert sheets_as_markdown(published_sheets()) == (GOLDEN / "published-tables.md").read_text(encoding="utf-8")


def test_every_printed_cell_of_the_source_is_there_once_and_in_order() -> None:
    with (ROOT / "evalkit/results/data/cmteb-reranking.csv").open(encoding="utf-8", newline="") as file:
        printed = [row for row in csv.DictReader(file) if row["source"] == "table"]
    card, cmteb = published_tables()
    assert card.columns == (*SIX, "Avg")
    assert cmteb.columns == (*FOUR, "Avg")
    cells = [
        (row.model, task, cell, table.reference)
        for table in (card, cmteb)
        for row in table.rows
        for task, cell in zip(table.columns, row.cells, strict=True)
    ]
    assert cells == [(row["model"], row["task"], row["value"], row["reference"]) for row in printed]
    assert len(cells) == 135


def test_the_rows_that_everyone_knows() -> None:
    card, cmteb = published_tables()
    assert dict(zip(card.columns, card.rows[-1].cells, strict=True)) == {
        "T2Reranking": "67.6",
        "T2RerankingZh2En": "64.03",
        "T2RerankingEn2Zh": "61.44",
        "MMarcoReranking": "37.16",
        "CMedQAv1": "82.15",
        "CMedQAv2": "84.18",
        "Avg": "66.09",
    }
    small = next(row for row in cmteb.rows if row.model == "intfloat/multilingual-e5-small")
    assert small.cells == ("65.24", "24.33", "63.44", "62.41", "53.86")


def test_a_run_stands_below_its_models_row_with_its_differences() -> None:
    found = rows(suite(BASE_RUN))
    place = next(number for number, row in enumerate(found) if row.is_run)
    assert found[place - 1].model == found[place].model == "BAAI/bge-reranker-base"
    assert found[place].cells == ("67.28", "64.00", "60.45", "35.46", "81.27", "84.10", "65.43")
    assert found[place].differences == ("+0.00", "+0.05", "+0.00", "+0.00", "+0.01", "+0.00", "+0.01")
    assert [row for row in found if not row.is_run] == rows([])


def test_a_run_of_a_model_that_the_table_lacks_stands_where_its_average_belongs() -> None:
    found = rows(suite({task: BASE_RUN[task] for task in FOUR}), table=1)
    assert (found[-1].is_run, found[-1].label, found[-1].cells[-1]) == (True, "bge-reranker-base", "67.03")
    assert set(found[-1].differences) == {""}
    middling = rows(suite(dict.fromkeys(FOUR, 0.6), model="me/mine"), table=1)
    place = next(number for number, row in enumerate(middling) if row.is_run)
    assert middling[place + 1].cells[-1] == "61.48"


def test_an_average_is_over_precisely_the_tables_tasks() -> None:
    four = suite({task: BASE_RUN[task] for task in FOUR})
    card_row = next(row for row in rows(four) if row.is_run)
    assert (card_row.cells[1], card_row.cells[-1], card_row.average) == ("", "", None)
    cmteb_row = next(row for row in rows(four, table=1) if row.is_run)
    assert cmteb_row.average == pytest.approx((0.67277 + 0.35459 + 0.81271 + 0.84104) / 4)
    cmteb_row = next(row for row in rows(suite(BASE_RUN), table=1) if row.is_run)
    assert cmteb_row.average == pytest.approx((0.67277 + 0.35459 + 0.81271 + 0.84104) / 4)


def test_parts_of_tasks_other_data_and_other_tasks_stay_out_and_it_is_said() -> None:
    results = [
        stored("CMedQAv1", 0.9, limit=5),
        stored("CMedQAv2", 0.9, differences=("999 queries, published are 1000",)),
        stored("demo-zh", 0.9),
    ]
    assert not any(row.is_run for table in published_tables(results) for row in table.rows)
    assert left_out(results) == [
        "bge-reranker-base on CMedQAv1 is left out: it is of 5 queries only",
        "bge-reranker-base on CMedQAv2 is left out: its data differ from the published: 999 queries, published are 1000",
        "bge-reranker-base on demo-zh is left out: neither table has this task",
    ]


def test_runs_with_other_settings_are_rows_of_their_own() -> None:
    plain, bf16 = stored("CMedQAv1", 0.81), stored("CMedQAv1", 0.80, deviations={"dtype": "bf16"})
    found = [row for row in rows([plain, bf16]) if row.is_run]
    assert [(row.label, row.cells[4]) for row in found] == [
        ("bge-reranker-base", "81.00"),
        ("bge-reranker-base (dtype=bf16)", "80.00"),
    ]


def test_a_run_alone_says_which_settings_are_not_the_published_ones() -> None:
    (row,) = [row for row in rows([stored("CMedQAv1", 0.81, deviations={"max_length": 64})]) if row.is_run]
    assert row.label == "bge-reranker-base (max_length=64)"


@pytest.mark.parametrize("width", [None, 60])
def test_tables_are_printed_whole_and_names_as_they_are(width: int | None) -> None:
    mine = suite(dict.fromkeys(SIX, 0.5), model="me/[bold]mine")
    text = rendered(mine, width)
    for row in rows(mine):
        for cell in filter(None, row.cells):
            assert cell in text
    assert width or "› [bold]mine" in text
    assert "…" not in text


def test_markdown_takes_a_name_literally() -> None:
    text = sheets_as_markdown(published_sheets(suite(dict.fromkeys(SIX, 0.5), model="me/a|*b*")))
    assert "| › a\\|\\*b\\* | 50.00 |" in text


def test_the_command_shows_the_tables_and_a_result_among_them(tmp_path: Path) -> None:
    done = run_here("report", "--published")
    assert done.code == 0
    assert done.stdout.count("\n") > 25
    for line in (GOLDEN / "published-tables.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| model", "| ---")):
            assert [cell.strip() for cell in line.strip("| ").split("|")] in [
                row.split() for row in done.stdout.splitlines()
            ]
    assert run_here("report", "--published", str(tmp_path)).code == 2
    assert run_here("report", "--published", "--format", "csv").stderr.endswith(
        "leave --format out, or give markdown\n"
    )
    done = run_here("report", "--published", "-o", str(tmp_path / "tables.md"))
    assert (done.code, done.stdout) == (0, "")
    assert (tmp_path / "tables.md").read_text("utf-8") == (GOLDEN / "published-tables.md").read_text("utf-8")
    path = tmp_path / "CMedQAv1.json"
    path.write_bytes(json_bytes(result_json(stored("CMedQAv1", 0.5))))
    done = run_here("report", "--published", str(path))
    assert done.code == 0, done.stderr
    assert "› bge-reranker-base" in done.stdout
    assert "50.00 (-31.26)" in done.stdout
