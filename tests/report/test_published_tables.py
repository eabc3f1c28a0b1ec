"""The published tables, cell by cell, and runs among their rows."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import run_here
from rich.console import Console

from evalkit.output.json import json_bytes
from evalkit.output.sheets import print_notes, print_sheets, sheets_as_markdown
from evalkit.records import FirstStage, ModelIdentity, TaskIdentity, TaskStatistics
from evalkit.report.published_tables import PublishedRow, left_out, published_notes, published_sheets, published_tables
from evalkit.report.reproduction import verdict_cells
from evalkit.results import published
from evalkit.results.published import SUITES
from evalkit.results.result import Result, TablesInMemory
from evalkit.results.writing import result_json

QWEN_STAGE = "Qwen3-Embedding-0.6B@100"
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
        tables=TablesInMemory(pd.DataFrame({"ap": [value], "ndcg_at_10": [value]}), pd.DataFrame()),
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
    printed = []
    for name in ("cmteb-reranking.csv", "cmteb-retrieval.csv"):
        with (ROOT / "evalkit/results/data" / name).open(encoding="utf-8", newline="") as file:
            printed += [row for row in csv.DictReader(file) if row["source"] == "table"]
    tables = card, cmteb, qwen, nano = published_tables()
    assert card.columns == (*SIX, "Avg")
    assert cmteb.columns == (*FOUR, "Avg")
    assert qwen.columns == ("CMTEB-R",)
    assert len(nano.columns) == 8
    cells = [
        (row.model, task, cell, table.reference)
        for table in tables
        for row in table.rows
        for task, cell in zip(table.columns, row.cells, strict=True)
    ]
    assert cells == [(row["model"], row["task"], row["value"], row["reference"]) for row in printed]
    assert len(cells) == 135 + 7 + 24


def test_the_rows_that_everyone_knows() -> None:
    card, cmteb, qwen, _ = published_tables()
    assert [row.cells for row in qwen.rows] == [
        *(("71.02",), ("63.37",), ("74.08",), ("72.16",), ("71.31",), ("75.94",), ("77.45",))
    ]
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
        "bge-reranker-base on demo-zh is left out: no table has this task",
    ]


QWEN = FirstStage(
    "Qwen3-Embedding-0.6B",
    "cache/run.trec",
    "d" * 64,
    100,
    {"stages": [{"hub_id": "Qwen/Qwen3-Embedding-0.6B", "kind": "embedder"}]},
)


def retrieved(first: FirstStage | None, value: float = 0.7, model: str = "me/mine") -> list[Result]:
    """Results on the eight retrieval tasks, on the candidates of a first stage."""
    return [
        replace(
            stored(task, 0.1, model=model, first_stage=first),
            protocol="mteb-retrieval",
            main_score="ndcg_at_10",
            scores={"map": 0.1, "mrr": 0.2, "ndcg_at_10": value},
        )
        for task in sorted(SUITES["CMTEB-R"])
    ]


def test_a_mean_of_retrieval_tasks_stands_among_qwens_rows() -> None:
    found = rows(retrieved(QWEN, 0.7216), table=2)
    assert (found[0].model, found[0].cells) == ("Qwen/Qwen3-Embedding-0.6B", ("71.02",))
    (place,) = [number for number, row in enumerate(found) if row.is_run]
    assert (found[place].cells, found[place].differences, found[place + 1].cells) == (("72.16",), ("",), ("74.08",))
    (run,) = [row for row in rows(retrieved(QWEN, 0.7, "BAAI/bge-reranker-v2-m3"), table=2) if row.is_run]
    assert (run.cells, run.differences) == (("70.00",), ("-2.16",))
    assert not any(row.is_run for row in rows(retrieved(QWEN)[1:], table=2))  # the mean of seven is another
    assert not any(row.is_run for table in (0, 1, 3) for row in rows(retrieved(QWEN), table=table))


@pytest.mark.parametrize(
    "first",
    [
        replace(QWEN, name="bm25"),
        replace(QWEN, top_k=50),
        replace(QWEN, made={}),  # a file that is called so
        None,
    ],
)
def test_other_first_stages_are_not_compared(first: FirstStage | None) -> None:
    results = retrieved(first, model="BAAI/bge-reranker-v2-m3")
    assert not any(row.is_run for row in rows(results, table=2))
    tasks = [result.task.name for result in results]
    wanted = published.find_average("BAAI/bge-reranker-v2-m3", tasks, "ndcg_at_10", "mteb-retrieval", QWEN_STAGE)
    assert wanted is not None
    assert wanted.printed == "72.16"
    assert not [cell for cell in verdict_cells(results) if cell.figure]
    (mean,) = [cell for cell in verdict_cells(retrieved(QWEN, 0.7216, "BAAI/bge-reranker-v2-m3")) if cell.figure]
    assert (mean.task, mean.metric, mean.verdict) == ("CMTEB-R", "ndcg_at_10", "match")
    (off,) = [cell for cell in verdict_cells(retrieved(QWEN, 0.72, "BAAI/bge-reranker-v2-m3")) if cell.figure]
    assert (off.verdict, off.fails) == ("mismatch", True)
    assert f"{off.points:.2f}" == "-0.16"


def test_the_first_stage_alone_is_no_figure_of_a_reranked_run() -> None:
    """Qwen3-Embedding-0.6B as a reranker of its own candidates has another figure than as a retriever."""
    tasks = sorted(SUITES["CMTEB-R"])
    model = "Qwen/Qwen3-Embedding-0.6B"
    assert published.find_average(model, tasks, "ndcg_at_10", "mteb-retrieval", QWEN_STAGE) is None
    alone = published.find_average(model, tasks, "ndcg_at_10", "mteb-retrieval")
    assert alone is not None
    assert alone.printed == "71.02"


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
            assert [cell.strip().replace("\\", "") for cell in line.strip("| ").split("|")] in [
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
