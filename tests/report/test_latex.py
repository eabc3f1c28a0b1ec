"""`--format latex`: a table that LaTeX would compile, and bold where the tests say so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from made_results import noisy_scores, ranking_task, shuffled, write_scores

from evalkit.output.latex import latex_text as escaped
from evalkit.statistics import not_told_from_best

GOLDEN = Path(__file__).parent.parent / "golden"
SPECIAL = '#$%&_{}~^\\<>|"`[]*'


def reported(*arguments: object) -> str:
    done = run_here("report", *map(str, arguments), "--format", "latex")
    assert (done.code, done.stderr) == (0, "")
    return done.stdout


def tables_of(text: str) -> list[list[list[str]]]:
    """The rows of each tabular, cell by cell; its structure is checked on the way."""
    found = []
    assert text.count(r"\begin{table}") == text.count(r"\end{table}")
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line.strip() for line in body.splitlines()]
        assert [line for line in lines if line.startswith("\\") and "&" not in line] == [
            "\\toprule",
            "\\midrule",
            "\\bottomrule",
        ][: sum(line in ("\\toprule", "\\midrule", "\\bottomrule") for line in lines)]
        rows = [line for line in lines if line.endswith(r" \\")]
        cells = [re.split(r"(?<!\\)&", row.removesuffix(r" \\")) for row in rows]
        assert {len(row) for row in cells} == {len(columns)}
        assert all(depth_of(cell) == 0 for row in cells for cell in row)
        found.append([[cell.strip() for cell in row] for row in cells])
    return found


def depth_of(text: str) -> int:
    plain = re.sub(r"\\.", "", text)
    return plain.count("{") - plain.count("}")


def test_a_table_is_written_as_ever(demo_results: Path) -> None:
    text = reported(demo_results)
    assert text == (GOLDEN / "report.tex").read_text(encoding="utf-8")
    (table,) = tables_of(text)
    assert table[0] == ["System", "demo-en2zh", "demo-zh", "demo-zh2en", "average of 3"]
    assert [row[0] for row in table[1:]] == ["oracle", "random", "bm25", "constant", "reversed"]


def test_bold_is_whatever_no_test_tells_from_the_best(tmp_path: Path) -> None:
    task = ranking_task(200)
    scores = noisy_scores(task)
    for model, share in (("best", 0.0), ("near", 0.01), ("far", 0.9)):
        write_scores(tmp_path / "results", task, shuffled(scores, share, seed=1), model=model)
    (table,) = tables_of(reported(tmp_path / "results"))
    bold = {row[0]: row[1].startswith(r"\textbf{") for row in table[1:]}
    assert bold == {"best": True, "near": True, "far": False}
    told = (tmp_path / "results").parent / "report.tex"
    assert run_here("report", str(tmp_path / "results"), "--format", "latex", "--alpha", "1", "-o", str(told)).code == 0
    (strict,) = tables_of(told.read_text(encoding="utf-8"))
    assert sum(row[1].startswith(r"\textbf{") for row in strict[1:]) == 1


def test_being_told_from_a_lesser_one_takes_no_bold_away() -> None:
    """B is told from C, A, the best, is not: C is still among the best, though its best rank is 2."""
    values = np.array([0.8, 0.9, 0.7])
    p_values = np.array([0.5, 0.01, 0.2])  # B-A, B-C, A-C
    assert not_told_from_best(values, p_values, 0.05).tolist() == [True, True, True]
    assert not_told_from_best(values, np.array([0.5, 0.2, 0.01]), 0.05).tolist() == [True, True, False]
    assert not_told_from_best(np.array([0.5]), np.array([]), 0.05).tolist() == [True]


def test_names_are_text_to_latex(tmp_path: Path) -> None:
    """No sign of a name is LaTeX's own: not behind `\\\\` either, where `[` and `*` would be arguments."""
    task = ranking_task(6)
    write_scores(tmp_path / "results", task, noisy_scores(task), model="[a]_b&c%d#e$f{g}~h^i 重排--x")
    (table,) = tables_of(reported(tmp_path / "results"))
    assert table[1][0] == r"{[}a{]}\_b\&c\%d\#e\$f\{g\}\textasciitilde{}h\textasciicircum{}i 重排-{}-x"
    assert escaped("a\\b\n c\x00d") == r"a\textbackslash{}b c d"
    assert escaped('*<|>"`') == r"{*}\textless{}\textbar{}\textgreater{}''\textasciigrave{}"
    assert escaped("1–2") == "1--2"


@pytest.mark.parametrize("sign", SPECIAL)
def test_no_sign_is_left_alone(sign: str) -> None:
    assert escaped(sign) != sign
    assert depth_of(escaped(sign)) == 0


def test_systems_that_lack_a_task_have_an_empty_cell(tmp_path: Path) -> None:
    for model, tasks in (("random", "demo-zh,demo-zh2en"), ("bm25", "demo-zh")):
        assert run_here("-m", f"task={tasks}", f"model={model}", f"results_dir={tmp_path}").code == 0
    (table,) = tables_of(reported(tmp_path))
    assert table[0] == ["System", "demo-zh", "demo-zh2en", "average of 2"]
    assert [cell == "" for cell in next(row for row in table if row[0] == "bm25")] == [False, False, True, True]


def test_each_protocol_has_a_table(demo_results: Path, tmp_path: Path) -> None:
    assert run_here("task=demo-zh", "model=random", "protocol=mteb-v2", f"results_dir={tmp_path}").code == 0
    assert len(tables_of(reported(demo_results, tmp_path))) == 2


def test_findings_stand_under_the_table_that_they_are_of(tmp_path: Path) -> None:
    """As notes that are typeset, not as comments: each table has those of its own results."""
    rows = [
        {"query": "one & two", "positive": ["same"], "negative": ["same", "other"]},
        {"query": "three", "positive": ["good"], "negative": ["bad"]},
        {"query": "four", "positive": ["good"], "negative": []},
    ]
    (tmp_path / "a_b.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    results = f"results_dir={tmp_path / 'results'}"
    assert run_here("task=local", f"task.path={tmp_path / 'a_b.jsonl'}", "model=random", results).code == 0
    assert run_here("task=demo-zh2en", "model=bm25", "protocol=mteb-v2", results).code == 0
    text = reported(tmp_path / "results")
    assert [line for line in text.splitlines() if line.startswith("%")] == [
        "% evalkit report; needs \\usepackage{booktabs}"
    ]
    tables = dict(
        zip(("a_b", "demo"), sorted(text.split(r"\begin{table}")[1:], key=lambda one: "demo" in one), strict=True)
    )
    notes = {name: re.findall(r"^    (.*)\\par$", table, re.M) for name, table in tables.items()}
    assert any(r"a\_b.jsonl, row 1: query with a text that is both" in line for line in notes["a_b"])
    assert any("cmteb-v1 leaves out 1 query of 3" in line for line in notes["a_b"])
    assert not any("a\\_b" in line for line in notes["demo"])
    _, _, after = tables["a_b"].partition(r"\end{tabular}")
    assert after.split()[0:2] == [r"\par\smallskip", r"{\footnotesize\raggedright"]
    assert depth_of(after) == 0
    assert r"\end{table}" in after


def test_what_is_left_out_is_typeset_too(tmp_path: Path) -> None:
    task = ranking_task(6)
    write_scores(tmp_path / "results", task, noisy_scores(task), model="kept")
    broken = write_scores(tmp_path / "results", task, noisy_scores(task), model="broken")
    broken.write_text("{")
    text = run_here("report", str(tmp_path / "results"), "--format", "latex").stdout
    assert re.search(r"^    left out: .*is not valid JSON.*\\par$", text, re.M)
