"""What commands print on a terminal of 80 columns: no line is wider, and no word or figure of it is cut."""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from command import run_here
from made_results import noisy_scores, ranking_task, write_scores
from rich.cells import cell_len
from rich.console import Console
from task_files import write_parts
from test_rerank_a_run import corpus_parts, made_run, write_json

from evalkit.output.console import OutputConsole, print_lines
from evalkit.output.sheets import Sheet, print_notes, print_sheets
from evalkit.parity.output import COLUMNS
from evalkit.results.reading import read_results

WIDTH = 80
CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
RATES = re.compile(r"[\d,.]+ (?:pairs/s|tokens/s|s)\b|\(p\d+\)")  # another run's are others


def on_terminal(width: int, *arguments: str) -> tuple[int, str]:
    """A command as it prints on a terminal of so many columns, without colours, with its exit code."""
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(width)}
    with patch.dict(os.environ, terminal):
        done = run_here(*arguments)
    return done.code, CODES.sub("", done.stdout)


def words(text: str) -> set[str]:
    return {
        word for word in re.split(r"[\s─\u2e80-\u9fff\uff00-\uff60]+", RATES.sub(" ", " ".join(text.split()))) if word
    }


def assert_whole(narrow: str, wide: str, width: int = WIDTH) -> None:
    """Hold a terminal's output against what goes into a pipe: every word is there, and no line wider than its one word.

    A word is whole unless it has no room beside its row's name, which may take half of the line; then it goes on below.
    """
    lost = {word for word in words(wide) - words(narrow) if cell_len(word) <= width}
    without_spaces = re.sub(r"\s", "", narrow)
    assert not {word for word in lost if cell_len(word) < width // 2 or word not in without_spaces}
    for line in narrow.splitlines():
        assert cell_len(line.rstrip()) <= width or len(line.split()) == 1, line
    assert "…" not in narrow or "…" in wide


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, demo_results: Path) -> Path:
    """Beside the baselines two models of long names, and one that was run twice."""
    folder = tmp_path_factory.mktemp("narrow")
    task = ranking_task(30, name="a-task-of-a-rather-long-name")
    for seed, model in enumerate(("a-model-with-a-rather-long-name-v1.5", "another-model-with-an-even-longer-name-v2")):
        write_scores(folder, task, noisy_scores(task, seed), model)
    return folder


COMMANDS = (
    ["list", "models"],
    ["list", "tasks"],
    ["list", "backends"],
    ["list", "protocols"],
    ["list", "models", "Qwen3-Reranker-0.6B"],
    ["compare", "{results}", "{demo}"],
    ["compare", "{demo}", "--slice", "candidates,query-length", "--top", "3"],
    ["compare", "{demo}/local__bm25", "{demo}/local__random"],
    ["report", "{results}", "{demo}", "--slice", "language"],
    ["report", "--published", "{demo}"],
    ["check", "--results", "{results}", "--baseline", "{demo}"],
    ["check", "--results", "{demo}", "--baseline", "{demo}/local__random", "--strict"],
    ["audit", "{demo}"],
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_s_output_fits_80_columns(arguments: list[str], results: Path, demo_results: Path) -> None:
    given = [word.format(results=results, demo=demo_results) for word in arguments]
    piped = run_here(*given)
    code, narrow = on_terminal(WIDTH, *given)
    assert code == piped.code
    assert piped.stdout
    assert_whole(narrow, piped.stdout)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_run_s_summary_fits(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("-m", "task=demo", "model=random,bm25", "measures=[nDCG@3,P@1,R@5]")
    piped = run_here(*given, "results_dir=r")
    code, narrow = on_terminal(width, *given, "results_dir=r")
    assert code == piped.code == 0
    assert_whole(narrow, piped.stdout, width)
    parts = narrow.count("MAP ") and narrow.count("model ")
    assert parts == (1 if width == 100 else 2)
    assert narrow.count("average of 3") == 2 * parts  # each part says whose rows it shows


def test_doctor_s_recipe_and_verdicts_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("doctor", "task=demo-zh", "model=bm25")
    piped = run_here(*given)
    code, narrow = on_terminal(WIDTH, *given)
    assert code == piped.code
    assert_whole(narrow, piped.stdout)


@pytest.mark.parametrize("width", [60, 80])
def test_a_first_stage_s_tables_fit_and_say_whose_they_are(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = corpus_parts()
    write_parts(tmp_path / "data", parts)
    run = write_json(tmp_path / "a-first-stage-of-a-rather-long-name.json", made_run(parts))
    given = (
        "-m",
        "task=local",
        "task.path=data",
        f"task.candidates={run}",
        "model=random",
        "seed=1,2",
        "results_dir=r",
    )
    piped = run_here(*given)
    code, narrow = on_terminal(width, *given)
    assert (code, piped.code) == (0, 0), piped.stderr
    assert_whole(narrow, piped.stdout, width)
    for seed in (1, 2):
        assert f"random (seed={seed}) on data: reranks" in " ".join(narrow.split())


# --- any table


def console(width: int, terminal: bool = True) -> tuple[Console, StringIO]:
    file = StringIO()
    return OutputConsole(file=file, width=width, force_terminal=terminal, color_system=None), file


def made_sheet(seed: int) -> Sheet:
    """A table of any shape: some words long, some cells empty or of several lines."""
    chance = random.Random(seed)
    kinds = ["name", *chance.choices(["name", "number", "text"], k=chance.randint(1, 9))]

    def cell(kind: str) -> str:
        if kind == "number":
            return "".join(chance.choices("0123456789", k=chance.randint(0, 18)))
        said = ["".join(chance.choices("abcdefgh-/", k=chance.randint(1, 14))) for _ in range(chance.randint(0, 6))]
        return chance.choice([" ", " ", "\n"]).join(said)

    columns = tuple((f"column {place}", kind) for place, kind in enumerate(kinds))
    rows = tuple(tuple(map(cell, kinds)) for _ in range(chance.randint(0, 5)))
    return Sheet(
        "a title " * chance.randint(1, 20), columns, rows, keys=("column 0", "column 1")[: chance.randint(0, 2)]
    )


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("width", [56, 80, 132])
def test_any_table_is_whole_and_fits(seed: int, width: int) -> None:
    sheet = made_sheet(seed)
    (narrow, shown), (wide, piped) = console(width), console(width, terminal=False)
    print_sheets([sheet], narrow)
    print_sheets([sheet], wide)
    assert_whole(shown.getvalue(), piped.getvalue(), width)


def test_a_table_that_fits_is_one_table() -> None:
    sheet = Sheet("", (("model", "name"), ("value", "number")), (("one of many words", "1"), ("two", "2")))
    (narrow, shown), (wide, piped) = console(80), console(80, terminal=False)
    print_sheets([sheet], narrow)
    print_sheets([sheet], wide)
    assert shown.getvalue() == piped.getvalue()


def test_parity_s_table_names_the_backend_in_each_part() -> None:
    row = ("sentence-transformers", "5.1.0", "16,000", "1.2e-05", "3.4e-07", "1.0e-04", "0.99998", "0.98765", "12 of 144,000",
           "10", "-0.01", "+0.02", "differs")  # fmt: skip
    (narrow, shown), (wide, piped) = console(80), console(80, terminal=False)
    for one in (narrow, wide):
        print_sheets([Sheet("of a model", COLUMNS, (row, ("onnx", *row[1:])))], one)
    assert_whole(shown.getvalue(), piped.getvalue())
    assert shown.getvalue().count("sentence-transformers") == shown.getvalue().count("backend") == 2


def test_columns_of_words_make_room_before_a_table_is_split() -> None:
    sheet = Sheet("", (("what", "name"), ("value", "number")), (("word " * 30, "12345"),))
    narrow, shown = console(40)
    print_sheets([sheet], narrow)
    assert shown.getvalue().count("what") == 1
    assert max(len(line.rstrip()) for line in shown.getvalue().splitlines()) <= 40


def test_chinese_breaks_anywhere_and_needs_no_room_of_its_own() -> None:
    sheet = Sheet("", (("query", "name"), ("value", "number")), (("如何评估中文检索模型的排序质量" * 5, "12.34"),))
    narrow, shown = console(40)
    print_sheets([sheet], narrow)
    assert all(cell_len(line) <= 40 for line in shown.getvalue().splitlines())
    assert "12.34" in shown.getvalue().splitlines()[2]


def test_lines_break_between_words_and_keep_their_indent() -> None:
    narrow, shown = console(30)
    print_lines(["    why: the words of a line that is long", "/a/path/" + "x" * 60], narrow)
    print_notes(["a note of more words than thirty columns hold"], narrow)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "    why: the words of a line"
    assert lines[1] == "    that is long"
    assert lines[2] == "/a/path/" + "x" * 60
    assert lines[3:] == ["", "a note of more words than", "thirty columns hold"]


def test_a_pipe_has_no_width(demo_results: Path) -> None:
    results = [replace(result, findings=("a finding " * 30,)) for result in read_results([demo_results])[:1]]
    wide, piped = console(40, terminal=False)
    print_lines(results[0].findings, wide)
    assert piped.getvalue() == results[0].findings[0] + "\n"
