import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from evalkit.records import ModelIdentity, PrecisionCheck, TaskIdentity, TaskStatistics, TieRange, Usage
from evalkit.report.summary import print_summary, summary_sheet
from evalkit.results.result import Result, TablesInMemory, split_usage

GOLDEN = Path(__file__).parent.parent / "golden"
SUITE = {
    "T2Reranking": 0.67277,
    "T2RerankingZh2En": 0.64001,
    "T2RerankingEn2Zh": 0.60449,
    "MMarcoReranking": 0.35459,
    "CMedQAv1": 0.81271,
    "CMedQAv2": 0.84104,
}
NO_STATISTICS = TaskStatistics(4, 8, 4, 0, 1, 40, 400, 4, 8)


def result(
    model: str = "BAAI/bge-reranker-base",
    task: str = "CMedQAv1",
    values: tuple[float, float] = (0.81271, 0.84142),
    protocol: str = "cmteb-v1",
    ties: Sequence[TieRange | None] = (None, None),
    **changes: Any,
) -> Result:
    """A result of four queries, one of them dropped, and eight candidates, two of them truncated."""
    names = ("map", "mrr") if protocol == "cmteb-v1" else ("map_at_1000", "mrr_at_10")
    column = "ap" if protocol == "cmteb-v1" else "map_at_1000"
    fields: dict[str, Any] = {
        "model": ModelIdentity(model.split("/")[1], model, "0123456789ab", "cross-encoder"),
        "task": TaskIdentity(task, task, "test", ("cmn-Hans",), "cmteb", "hand", "", "f" * 64, NO_STATISTICS),
        "protocol": protocol,
        "main_score": names[0],
        "scores": dict(zip(names, values, strict=True)),
        "intervals": {names[0]: (values[0] - 0.012, values[0] + 0.0125)},
        "ties": {name: tie for name, tie in zip(names, ties, strict=True) if tie},
        "queries": pd.DataFrame({"query_id": list("abcd"), column: [1.0, np.nan, 0.5, 0.25]}),
        "candidates": pd.DataFrame({"score": np.zeros(8, np.float32), "truncated": [True] * 2 + [False] * 6}),
        "usage": Usage(seconds=0.005, items=8),
        "backend": {"name": "torch"},
        "config": {"limit": None},
    }
    fields |= changes
    tables = TablesInMemory(fields.pop("queries"), fields.pop("candidates"))
    usage, timing = split_usage(fields.pop("usage"), len(tables.candidates))
    return Result(**fields, tables=tables, usage=usage, timing=timing)


def rendered(results: Sequence[Result], *, terminal: int | None = None) -> str:
    """The summary as plain text: piped, or on a terminal of so many columns."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=terminal or 80,
        force_terminal=terminal is not None,
        no_color=True,
        color_system=None,
        legacy_windows=False,
    )
    print_summary(results, console)
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def row(results: Sequence[Result], number: int = 0) -> dict[str, str]:
    """A row of the table by column title."""
    sheet = summary_sheet(results)
    return {title: str(cell) for (title, _), cell in zip(sheet.columns, sheet.rows[number], strict=True)}


def golden_results() -> list[Result]:
    tied = (TieRange(0.55, 0.41, 0.70), TieRange(0.5, 0.1, 1.0))
    results = [result(task=task, values=(value, 0.8)) for task, value in SUITE.items()]
    results += [
        result("shibing624/text2vec-base-multilingual", task, (value, 0.7), usage=Usage(4.0, 8, items_from_store=4))
        for task, value in {"CMedQAv1": 0.4846, "CMedQAv2": 0.4866}.items()
    ]
    results += [
        result("intfloat/multilingual-e5-small", "CMedQAv1", (0.55, 1.0), ties=tied),
        result("local/constant", "demo-zh", (0.3333, 1.0), ties=(None, tied[1]), usage=Usage(0.0, 8)),
        result("BAAI/bge-reranker-large", "T2Reranking", (0.70, 0.8), config={"limit": 4}),
    ]
    return [
        replace(one, path=Path("results") / one.model.hub_id.replace("/", "__") / f"{one.task.name}.json")
        for one in results
    ]


@pytest.mark.parametrize(("name", "terminal"), [("summary-piped", None), ("summary-100-columns", 100)])
def test_the_summary_is_rendered_as_ever(name: str, terminal: int | None) -> None:
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert rendered(golden_results(), terminal=terminal) == expected


def test_a_piped_table_has_whole_names_on_one_line_each() -> None:
    results = golden_results()
    lines = rendered(results).splitlines()
    table = lines[: lines.index("")]
    assert len([line for line in table if "CMedQAv1" in line]) == 3
    assert any("text2vec-base-multilingual  CMedQAv1" in line for line in table)
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("columns", [40, 72, 80, 100, 120])
def test_no_terminal_cuts_a_figure_or_a_name(columns: int) -> None:
    results = golden_results()
    lines = rendered(results, terminal=columns).splitlines()
    table = lines[: lines.index("", next(place for place, line in enumerate(lines) if line.startswith("~")))]
    wide = rendered(results).splitlines()
    figures = " ".join(wide[: wide.index("")]).split()
    for figure in [word for word in figures if "–" in word or word.replace(".", "").isdigit()]:
        assert any(figure in line for line in table)
    first_column = "".join(line[: table[0].index("task")].strip() for line in table[2:])
    assert "text2vec-base-multilingual" in first_column
    if columns >= 72:
        assert max(map(len, table)) <= columns
        assert sum(line.startswith("text2vec-base-multilingual ") for line in table) % 3 == 0


def test_the_cards_six_tasks_take_a_line_each_on_100_columns() -> None:
    results = [result(task=task, values=(value, 0.8)) for task, value in SUITE.items()]
    lines = rendered(results, terminal=100).splitlines()
    assert [line.split()[1] for line in lines[2:9]] == [*SUITE, "average"]


def test_a_terminal_is_left_as_wide_as_it_was() -> None:
    console = Console(file=io.StringIO(), width=40)
    print_summary([result()], console)
    assert console.width == 40


def test_values_are_percent_with_two_decimals_beside_the_models_own_card() -> None:
    assert row([result()]) == {
        "model": "bge-reranker-base",
        "task": "CMedQAv1",
        "MAP": "81.27",
        "MRR": "84.14",
        "95 % interval": "80.07–82.52",
        "published": "81.27 card",
        "difference": "+0.00 ~",
    }


@pytest.mark.parametrize(
    ("points", "shown"),
    [
        (0.03, "+0.03 ~"),
        (-0.03, "-0.03 ~"),
        (-0.0001, "+0.00 ~"),
        (0.0301, "+0.030"),
        (0.034, "+0.034"),
        (0.036, "+0.04"),
        (-2.5, "-2.50"),
    ],
)
def test_within_noise_is_said_of_three_hundredths_and_no_more(points: float, shown: str) -> None:
    ours = (0.8127206722525007 + points / 100, 0.8)
    assert row([result(values=ours)])["difference"] == shown


def test_a_part_of_the_queries_is_not_compared_with_the_whole() -> None:
    limited = row([result(config={"limit": 100})])
    assert (limited["published"], limited["difference"]) == ("81.27 card", "n/a (limit)")
    four = [
        result(task=task, config={"limit": 100}) for task in ("T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2")
    ]
    assert row([result("moka-ai/m3e-base", item.task.name, config=item.config) for item in four], 4)["difference"] == (
        "n/a (limit)"
    )


def test_mteb_v2_has_its_own_metrics_and_figures() -> None:
    found = row([result("intfloat/multilingual-e5-small", values=(0.6478, 0.698), protocol="mteb-v2")])
    assert (found["MAP@1000"], found["MRR@10"]) == ("64.78", "69.80")
    assert (found["published"], found["difference"]) == ("64.68 MTEB", "+0.10")


def test_mixed_protocols_are_named() -> None:
    rows = [result(), result(protocol="mteb-v2")]
    assert [row(rows, number)["protocol"] for number in (0, 1)] == ["cmteb-v1", "mteb-v2"]
    assert len(summary_sheet(rows).rows) == 2


@pytest.mark.parametrize(
    ("map_tie", "mrr_tie", "shown"),
    [
        (TieRange(0.5, 0.41, 0.7), TieRange(0.5, 0.1, 1.0), "MAP 41.00–70.00\nMRR 10.00–100.00"),
        (None, TieRange(0.8, 0.80, 0.80006), "MRR 80.00–80.01"),
        (TieRange(0.8127, 0.81271, 0.81274), TieRange(0.8414, 0.8414, 0.8414), None),
        (TieRange(0.8, 0.8, 0.8), TieRange(0.8414, 0.8414, 0.8414), "MAP 80.00–80.00"),  # no order gives the MAP
    ],
)
def test_ties_show_where_they_move_a_printed_digit(
    map_tie: TieRange | None, mrr_tie: TieRange, shown: str | None
) -> None:
    assert row([result(ties=(map_tie, mrr_tie))]).get("ties") == shown


def test_a_suite_ends_in_its_average_and_the_published_one() -> None:
    results = [result(task=task, values=(value, 0.5 + value / 10)) for task, value in SUITE.items()]
    average = row(results, 6)
    assert average["task"] == "average of 6"
    assert average["MAP"] == f"{100 * math.fsum(SUITE.values()) / 6:.2f}" == "65.43"
    assert average["MRR"] == f"{50 + 10 * math.fsum(SUITE.values()) / 6:.2f}"
    assert (average["published"], average["difference"]) == ("65.42 table", "+0.01 ~")
    assert average["95 % interval"] == ""


def test_an_average_has_the_average_of_its_tasks_ties() -> None:
    ties = [(TieRange(0.5, 0.4, 0.6), TieRange(0.3, 0.1, 1.0)), (TieRange(0.5, 0.5, 0.9), TieRange(0.3, 0.25, 1.0))]
    tied = [
        result(task=task, values=(0.5, 1.0), ties=own) for task, own in zip(("CMedQAv1", "CMedQAv2"), ties, strict=True)
    ]
    assert row(tied, 2)["ties"] == "MAP 45.00–75.00\nMRR 17.50–100.00"
    assert row([tied[0], result(task="CMedQAv2", ties=(None, ties[1][1]))], 2)["ties"].startswith("MRR 17.50")
    assert row([tied[0], result(task="CMedQAv2")], 2)["ties"] == ""


def test_an_average_of_other_tasks_has_no_published_figure() -> None:
    average = row([result(task=task) for task in ("CMedQAv1", "CMedQAv2")], 2)
    assert (average["task"], average["published"], average["difference"]) == ("average of 2", "", "")


def test_only_one_system_on_different_tasks_is_averaged() -> None:
    def rows(*results: Result) -> list[str]:
        return [row[1] for row in summary_sheet(results).rows]

    assert rows(result()) == ["CMedQAv1"]
    assert rows(result(), result(backend={"name": "onnx"}, task="CMedQAv2")) == ["CMedQAv1", "CMedQAv2"]
    assert rows(result(), result("BAAI/bge-reranker-large", "CMedQAv2")) == ["CMedQAv1", "CMedQAv2"]
    assert rows(result(), result(), result(task="CMedQAv2")) == ["CMedQAv1", "CMedQAv1", "CMedQAv2"]
    mixed = rows(result(), result("local/a", "demo"), result(task="CMedQAv2"))
    assert mixed == ["CMedQAv1", "CMedQAv2", "average of 2", "demo"]


def test_columns_with_nothing_to_say_are_left_out() -> None:
    assert list(row([result("local/a", "demo")])) == ["model", "task", "MAP", "MRR", "95 % interval"]


def test_a_value_that_is_none_is_not_compared() -> None:
    found = row([result(values=(math.nan, math.nan), intervals={})])
    assert (found["MAP"], found["MRR"], found.get("difference", "")) == ("n/a", "n/a", "")


def test_a_line_per_result_says_what_it_rests_on() -> None:
    text = rendered([result(path=Path("results/a.json"))])
    assert (
        "bge-reranker-base on CMedQAv1: 3 queries scored, 1 dropped; 8 pairs at 1,600 pairs/s; 25.0 % truncated; "
        "results/a.json\n"
    ) in text


def test_what_was_not_measured_is_not_said() -> None:
    candidates = pd.DataFrame({"score": np.zeros(8, np.float32)})
    text = rendered([result(candidates=candidates, usage=Usage(seconds=0.2, items=8, items_from_store=8))])
    assert text.endswith("bge-reranker-base on CMedQAv1: 3 queries scored, 1 dropped; 8 pairs, all from the store\n")


def test_speed_latency_and_what_low_precision_cost_are_said() -> None:
    usage = Usage(seconds=2.0, items=8, items_from_store=4, tokens=1000, latencies=(0.5, 1.5))
    check = PrecisionCheck("bf16", 200, 0.0125, 3, 900, -0.0012)
    text = rendered([result(usage=usage, precision=check)])
    assert (
        "8 pairs, 50% from the store at 2 pairs/s, 250 tokens/s; a query's candidates take 1 s (p50), 1.45 s (p95)"
        in text
    )
    assert (
        "  bf16 against fp32 on 200 pairs: scores differ by at most 0.013, 3 rank flips (0.33% of 900), MAP -0.12\n"
    ) in text


def test_names_are_printed_as_they_are() -> None:
    assert "a[bold]b on [red]c:" in rendered([result("local/a[bold]b", "[red]c")])
    assert "a[bold]b  [red]c" in rendered([result("local/a[bold]b", "[red]c")])


def test_published_figures_that_disagree_are_listed() -> None:
    text = rendered([result("intfloat/multilingual-e5-small")])
    assert (
        "multilingual-e5-small on CMedQAv1: 3 of 4 published figures disagree with 67.26 table: 63.44 (C-MTEB), 64.69 (MTEB), "
        "63.44 (MTEB)\n"
    ) in text
    assert "disagree" not in rendered([result()])


FINDINGS = (
    {"query": "one", "positive": ["same"], "negative": ["same", "other"]},
    {"query": "two", "positive": ["good"], "negative": ["bad"]},
)
DATA = ("task=local", "task.path=d.jsonl", "offline=true")
UNGRADED = "measures=[AP(rel=3)]"


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        (("task=demo-zh2en", "limit=2", "model=bm25", UNGRADED), 1),
        ((*DATA, "model=bm25"), 1),
        ((*DATA, "model=random", UNGRADED), 2),
        (("-m", *DATA, "model=random,bm25", UNGRADED), 2),
    ],
)
def test_one_reader_is_told_each_warning_once(words: tuple[str, ...], warnings: int, tmp_path: Path) -> None:
    """Of a program whose output and errors go to one place; where they go to two, each has all of them."""
    (tmp_path / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in FINDINGS))
    command = [sys.executable, "-m", "evalkit", *words]
    for both in (True, False):
        errors = subprocess.STDOUT if both else subprocess.PIPE
        done = subprocess.run(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", timeout=300
        )
        assert done.returncode == 0, done.stdout
        for text in (done.stdout,) if both else (done.stdout, done.stderr):
            said = [
                line for line in text.splitlines() if "AP(rel=3) is 0" in line or "both positive and negative" in line
            ]
            assert len(said) == len(set(said)) == warnings, text
        above = [line for line in done.stdout.splitlines() if re.fullmatch(r"[\w-]+: \d warnings? above", line)]
        assert len(above) == both
