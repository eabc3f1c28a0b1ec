"""Markdown tables, whichever way they lie, and their averages."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.audit.command import audit_files
from evalkit.audit.figures import AuditFinding, Figure
from evalkit.audit.readers.markdown import table_figures
from evalkit.output.sheets import sheets_as_markdown
from evalkit.report.published_tables import published_sheets, published_tables

HEADER = (
    "| Model | T2Reranking | T2RerankingZh2En* | T2RerankingEn2Zh* | MMarcoReranking | CMedQAv1 | CMedQAv2 | Avg |\n"
)
RULE = "|:---|---|---|---|---|---|---|---|\n"


def read(text: str, owner: str = "me/mine") -> list[Figure]:
    return table_figures(text, 0, Path("t.md"), owner)


def cells(figures: list[Figure]) -> list[tuple[str, str, str, str]]:
    return [(figure.model, figure.task, figure.metric, figure.printed) for figure in figures]


def findings(folder: Path, text: str) -> list[AuditFinding]:
    path = folder / "table.md"
    path.write_text(text, encoding="utf-8")
    return list(audit_files([path])[0].findings)


def test_both_published_tables_are_read_and_clean(tmp_path: Path) -> None:
    tables = published_tables()
    path = tmp_path / "tables.md"
    path.write_text(sheets_as_markdown(published_sheets()), encoding="utf-8")
    (report,) = audit_files([path])
    assert report.findings == ()
    assert [figure.printed for figure in report.figures] == [
        cell for table in tables[:3] for row in table.rows for cell in row.cells
    ]
    retrieval = [figure for figure in report.figures if figure.task == "CMTEB-R"]
    assert {(figure.metric, figure.protocol) for figure in retrieval} == {("ndcg_at_10", "mteb-retrieval")}


QWEN = """
| Model | Param | MTEB-R | CMTEB-R | MMTEB-R | MLDR |
|---|---|---|---|---|---|
| **Qwen3-Embedding-0.6B** | 0.6B | 61.82 | 71.02 | 64.64 | 50.26 |
| gte-multilingual-reranker-base | 0.3B | 59.51 | 74.08 | 59.44 | 66.33 |
| BGE-reranker-v2-m3 | 0.6B | 57.03 | 72.16 | 58.36 | 59.51 |
| **Qwen3-Reranker-0.6B** | 0.6B | 65.80 | 71.31 | 66.36 | 67.28 |
| **Qwen3-Reranker-8B** | 8B | 69.02 | **77.45** | **72.94** | **70.19** |
"""


def test_cmteb_r_is_no_reranking_of_c_mteb(tmp_path: Path) -> None:
    """Of Qwen's table the mean over retrieval tasks alone is read, as nDCG@10; no rule holds it against MAP."""
    assert findings(tmp_path, QWEN) == []
    assert cells(read(QWEN)) == [
        (model, "CMTEB-R", "ndcg_at_10", printed)
        for model, printed in (
            ("Qwen/Qwen3-Embedding-0.6B", "71.02"),
            ("Alibaba-NLP/gte-multilingual-reranker-base", "74.08"),
            ("BAAI/bge-reranker-v2-m3", "72.16"),
            ("Qwen/Qwen3-Reranker-0.6B", "71.31"),
            ("Qwen/Qwen3-Reranker-8B", "77.45"),
        )
    ]
    assert {figure.protocol for figure in read(QWEN)} == {"mteb-retrieval"}
    both = QWEN.replace("MTEB-R | CMTEB-R", "T2Reranking | CMTEB-R").replace("61.82", "67.28")
    by_task = {(figure.task, figure.metric, figure.protocol) for figure in read(both)}
    assert by_task == {("T2Reranking", "map", "cmteb-v1"), ("CMTEB-R", "ndcg_at_10", "mteb-retrieval")}


@pytest.mark.parametrize(("printed", "changed"), [("72.16", "72.61"), ("71.31", "73.11"), ("77.45", "74.75")])
def test_a_changed_mean_of_retrieval_tasks_is_found(printed: str, changed: str, tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, QWEN.replace(printed, changed))
    assert (finding.rule, finding.severity) == ("changed", "warning")
    assert "ndcg_at_10 of CMTEB-R" in finding.what
    assert f"{changed} here; the nearest published is {printed}" in finding.evidence
    assert "4 others of this table agree" in finding.evidence


@pytest.mark.parametrize("measure", ["map", "MRR@10"])
def test_a_mean_of_retrieval_tasks_under_another_measure_is_its_own(measure: str, tmp_path: Path) -> None:
    """A card that states MAP of the same tasks is not held against nDCG@10."""
    text = QWEN.replace("CMTEB-R", f"CMTEB-R ({measure})")
    assert {figure.metric for figure in read(text)} == {"map" if measure == "map" else "mrr"}
    assert not [one for one in findings(tmp_path, text) if one.rule == "changed"]


def test_a_row_as_cards_write_it() -> None:
    row = (
        "| [bge-reranker-base](https://huggingface.co/BAAI/bge-reranker-base) | 67.28 | 63.95 | 60.45 | 35.46 | 81.26 "
        "| 84.1 | **65.42** |\n"
    )
    figures = read(HEADER + RULE + row)
    tasks = ("T2Reranking", "T2RerankingZh2En", "T2RerankingEn2Zh", "MMarcoReranking", "CMedQAv1", "CMedQAv2", "Avg")
    values = ("67.28", "63.95", "60.45", "35.46", "81.26", "84.1", "65.42")
    assert cells(figures) == [
        ("BAAI/bge-reranker-base", task, "map", value) for task, value in zip(tasks, values, strict=True)
    ]
    assert {figure.unit for figure in figures} == {"percent"}
    assert figures[0].place == "table 1 (line 1), row 1, T2Reranking"


def test_tasks_as_rows_with_metrics_or_models_as_columns() -> None:
    by_metric = "| Task | MAP | MRR@10 |\n|---|---|---|\n| CMedQAv1-reranking | 81.27 | 84.14 |\n| other | 1 | 2 |\n"
    assert cells(read(by_metric)) == [("me/mine", "CMedQAv1", "map", "81.27"), ("me/mine", "CMedQAv1", "mrr", "84.14")]
    by_model = "| | m3e-base | my-model |\n|---|---|---|\n| T2Reranking | 66.03 | 0.5 |\n| Average | 59.34 | - |\n"
    assert cells(read(by_model)) == [
        ("moka-ai/m3e-base", "T2Reranking", "map", "66.03"),
        ("moka-ai/m3e-base", "Avg", "map", "59.34"),
        ("my-model", "T2Reranking", "map", "0.5"),
    ]


def test_a_row_per_model_and_task() -> None:
    header = "| model | task | MAP | MRR | interval |\n|-|-|-|-|-|\n"
    text = f"{header}| a | CMedQAv2 | 84.1% | 86.79 | 1-2 |\n| a | average of 2 | 1 | 2 | |\n"
    assert cells(read(text)) == [("a", "CMedQAv2", "map", "84.1"), ("a", "CMedQAv2", "mrr", "86.79")]


def test_columns_that_name_their_metric() -> None:
    text = "| model | CMedQAv1 (mrr) | CMedQAv1 map_at_1000 | CMedQAv2 MAP |\n|-|-|-|-|\n| a | 1.5 | 2.5 | 3.5 |\n"
    assert [(figure.task, figure.metric) for figure in read(text)] == [
        ("CMedQAv1", "mrr"),
        ("CMedQAv1", "map_at_1000"),
        ("CMedQAv2", "map"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no table | here\n",
        "```\n" + HEADER + RULE + "| a | 1 | 2 | 3 | 4 | 5 | 6 | 3.5 |\n```\n",
        "| Model | Avg | Retrieval | STS | Reranking |\n|-|-|-|-|-|\n| bge-large-zh | 64.2 | 71.53 | 54.98 | 65.11 |\n",
        HEADER + RULE + "| soon | - | | tbd | n/a | — | ? | … |\n",
        "|\n|-\n",
    ],
)
def test_what_states_no_reranking_figure_is_left_alone(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("average", "is_wrong"), [("65.42", False), ("65.41", False), ("65.44", True), ("65.4", False), ("66.42", True)]
)
def test_an_average_is_the_mean_of_its_row_to_within_rounding(tmp_path: Path, average: str, is_wrong: bool) -> None:
    # the mean is 65.4167; parts with one decimal leave 0.0125 of room, the average itself 0.005
    found = findings(tmp_path, f"{HEADER}{RULE}| mine | 67.28 | 63.95 | 60.45 | 35.46 | 81.26 | 84.1 | {average} |\n")
    assert [(finding.severity, finding.rule) for finding in found if finding.rule != "copy"] == [
        ("error", "average")
    ] * is_wrong


def test_an_average_of_the_four_tasks_among_six_is_named(tmp_path: Path) -> None:
    row = "| mine | 67.28 | 63.95 | 60.45 | 35.46 | 81.26 | 84.10 | 67.03 |\n"
    (average,) = [finding for finding in findings(tmp_path, HEADER + RULE + row) if finding.rule == "average"]
    assert "65.4167" in average.evidence
    assert "the mean of the four Chinese tasks is 67.0250" in average.evidence


def test_an_average_beside_columns_that_are_not_read_or_cells_that_are_missing_is_not_judged(tmp_path: Path) -> None:
    with_others = "| Model | T2Reranking | CMedQAv1 | T2Retrieval | Avg |\n|-|-|-|-|-|\n| mine | 60.00 | 70.00 | 95.00 | 75.00 |\n"
    assert findings(tmp_path, with_others) == []


MARKED_HEADER = "| Model | T2Reranking | MMarcoReranking | CMedQAv1 | CMedQAv2 | Avg |\n|-|-|-|-|-|-|\n"


@pytest.mark.parametrize(
    "cell",
    [
        "37.01*",
        "37.01 (2nd)",
        "37.01<sup>†</sup>",
        "37.01<sup>1</sup>",
        "37.01[1](https://example.com)",
        "**37.01**<br>",
        "37.01‡",
        "37.01±0.2",
        "37.01% ± 0.2%",
        "37.01 ↑",
        "37.01↓",
        "37.01 [1]",
        "37.01[^2]",
        "37.01%*",
    ],
)
def test_a_mark_behind_a_figure_leaves_it_as_it_is(cell: str, tmp_path: Path) -> None:
    row = "| my-d | 67.28 | {} | 86.65 | 88.21 | {} |\n"
    assert [figure.printed for figure in read(MARKED_HEADER + row.format(cell, "69.79"))] == [
        "67.28",
        "37.01",
        "86.65",
        "88.21",
        "69.79",
    ]
    assert findings(tmp_path, MARKED_HEADER + row.format(cell, "69.79")) == []
    (wrong,) = findings(tmp_path, MARKED_HEADER + row.format(cell, "70.79"))
    assert (wrong.severity, wrong.rule) == ("error", "average")


@pytest.mark.parametrize(
    "cell",
    ["~37.01", "37,01", "37.01 / 40.2", "~~37.01~~", "37.01 (+0.3)", "↑ 0.3", "n/a", "37.01§", "3?"],
)
def test_a_cell_that_is_not_read_leaves_its_row_s_average_untested_and_is_named(cell: str, tmp_path: Path) -> None:
    rows = f"| my-d | 67.28 | {cell} | 86.65 | 88.21 | 69.79 |\n| other | 61.00 | - | 82.00 | 83.00 | 99.00 |\n"
    wrong, note = findings(tmp_path, MARKED_HEADER + rows)
    assert (wrong.rule, wrong.place) == ("average", "table 1 (line 1), row 2, Avg")
    assert (note.severity, note.rule, note.place) == ("note", "unread", "table 1 (line 1), row 1")
    assert note.what == "1 cell of my-d not read"
    assert note.evidence.startswith("MMarcoReranking: ")
    assert note.why.endswith("neither is the average of its row")


def test_a_cell_that_is_not_read_is_named_where_models_are_columns_and_where_no_average_stands(tmp_path: Path) -> None:
    columns = "| | my-a | my-b |\n|-|-|-|\n| T2Reranking | 67.28 | 61.00 |\n| CMedQAv1 | 83,01 | 82.00 |\n"
    columns += "| CMedQAv2 | 88.21 | 83.00 |\n"
    (note,) = findings(tmp_path, columns + "| Avg | 60.00 | 75.33 |\n")
    assert (note.rule, note.place, note.evidence) == ("unread", "table 1 (line 1), column 1", "CMedQAv1: 83,01")
    (note,) = findings(tmp_path, columns)
    assert note.why == "what no number can be read from is not tested"


@pytest.mark.parametrize("cell", ["95,1", "~95.00", "95.00§", "95.00*"])
def test_an_average_beside_other_figures_that_can_t_be_read_is_not_judged(cell: str, tmp_path: Path) -> None:
    header = "| Model | T2Reranking | CMedQAv1 | T2Retrieval | Avg |\n|-|-|-|-|-|\n"
    assert findings(tmp_path, f"{header}| mine | 60.00 | 70.00 | {cell} | 75.00 |\n") == []
    sizes = f"{header.replace('T2Retrieval', 'Parameters')}| mine | 60.00 | 70.00 | 1.55B | 75.00 |\n"
    assert [finding.rule for finding in findings(tmp_path, sizes)] == ["average"]


def test_a_row_of_another_model_is_a_warning(tmp_path: Path) -> None:
    row = "| mine | 67.28 | 63.95 | 60.45 | 35.46 | 81.26 | 84.1 | 65.42 |\n"
    (copy,) = findings(tmp_path, HEADER + RULE + row)
    assert (copy.severity, copy.rule) == ("warning", "copy")
    assert copy.what == "mine has the figures of BAAI/bge-reranker-base"


def test_one_cell_that_differs_from_the_published_row_is_a_warning(tmp_path: Path) -> None:
    row = "| bge-reranker-base | 67.28 | 63.95 | 60.45 | 35.46 | 81.56 | 84.1 | 65.47 |\n"
    changed = {
        (finding.severity, finding.rule, finding.place[-8:]) for finding in findings(tmp_path, HEADER + RULE + row)
    }
    assert changed == {("warning", "changed", "CMedQAv1"), ("warning", "changed", "w 1, Avg")}
