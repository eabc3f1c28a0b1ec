"""Whatever a name holds, a report shows it as text, and no terminal obeys it; YAML that is read is data of bounded size."""

from __future__ import annotations

import csv
import io
import itertools
import re
import shutil
import sys
import time
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from made_results import change_json, noisy_scores, ranking_task, write_scores
from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))  # as pytest does for the tests in there
from attempts import run_here
from fake_servers import FakeServer
from mishaps import says

from evalkit.configuration.files import parse_yaml
from evalkit.output.latex import latex_text as latex

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a|b", "a\nb", "a\\|b", "[x](javascript:alert(1))", "`a`|`b`", "&lt;b>",
    "\\input{x}", "100%_#$&{~^}", "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\x1b[31mred", "\x9b2J", "\x07", "a\rb", "\u202egnp.exe",
    "key: value", "- x", "!!python/object:x", "'", '"', "#x", "{{7*7}}", "${seed}", "</script><script>", "]]>", "&#60;",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result for each hostile name, of a model and of a task."""
    place = tmp_path_factory.mktemp("hostile")
    task = ranking_task(3)
    first = write_scores(place / "results", task, noisy_scores(task), model="scorer", texts=True)
    for number, name in enumerate(HOSTILE):
        copied = place / "results" / f"m{number}" / "1"
        shutil.copytree(first.parent, copied)
        block = {"name": name, "hub_id": f"o/{name}"}
        change_json(copied / first.name, lambda content, block=block: content["evalkit"]["model"].update(block))
        if number % 3 == 0:
            change_json(copied / first.name, lambda content, name=name: content["evalkit"]["task"].update(name=name))
    return place / "results"


def reported(hostile: Path, *arguments: str) -> str:
    done = run_here("report", hostile, *arguments)
    assert done.code == 0, done.stderr
    return done.stdout


def obeyed(text: str) -> list[str]:
    """What a terminal may obey, and what turns the direction of writing."""
    return [
        sign
        for sign in text
        if (unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t") or sign in "\u202e\u2066"
    ]


def test_nothing_that_is_printed_steers_a_terminal(hostile: Path, folder: Path) -> None:
    for arguments in ((), ("--format", "markdown"), ("--format", "csv"), ("--format", "latex"), ("--format", "json")):
        assert obeyed(reported(hostile, *arguments)) == []
    compared = run_here("compare", hostile / "m0", hostile / "m15")
    audited = run_here("audit", hostile)
    (folder / "data").mkdir()
    (folder / "data" / "test.jsonl").write_text('{"query": "\x1b[31mred\x9b2J", "positive": 5}\n')
    refused = run_here("task=local", "task.path=data/\x1b[31m", "model=constant")
    said = run_here("task=local", "task.path=data", "model=\x1b[31m\x9b2J")
    with FakeServer("vllm", mishaps=[says(400, {"error": "\x1b[31mred\x9b2J"})]) as server:
        served = run_here(
            "task=demo-zh", "model=bge-reranker-base", "backend=vllm", f"backend.url={server.url}", "cache=off"
        )
    for done in (compared, audited, refused, said, served):
        assert obeyed(done.stdout + done.stderr) == []
        assert done.stdout + done.stderr


def test_markdown_holds_names_as_text(hostile: Path) -> None:
    """As GitHub's own parser would read it: each row has all cells, and nothing in it is a link, an image or HTML."""
    tokens = MarkdownIt("commonmark").enable("table").parse(reported(hostile, "--format", "markdown"))
    columns = sum(token.type == "th_open" for token in tokens) / sum(token.type == "table_open" for token in tokens)
    assert sum(token.type == "td_open" for token in tokens) % columns == 0
    children = [child for token in tokens for child in token.children or []]
    assert {token.type for token in tokens if "html" in token.type} == set()
    assert {child.type for child in children} <= {"text", "softbreak", "text_special"}
    texts = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
    for name in ("<script>alert(1)</script>", "a|b", "`a`|`b`", "[x](javascript:alert(1))"):
        assert any(name in text for text in texts), name


def test_html_holds_names_as_text(hostile: Path) -> None:
    page = reported(hostile, "--format", "html")
    # what is between the scripts and the data: elements of the page's own alone
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert "<img" not in body
    assert "onerror=alert" not in re.sub(r"&lt;img src=x onerror=alert\(1\)&gt;", "", body)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in body
    assert page.count("</script>") == page.count("<script")
    assert "default-src &#39;none&#39;" in page


def test_csv_holds_no_formulas(hostile: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(reported(hostile, "--format", "csv"))))
    for row in rows:
        for column in ("system", "hub_id", "tasks", "place"):
            assert not row[column].startswith(("=", "+", "-", "@", "\t", "\r")), row[column]
        assert 0 <= float(row["value"]) <= 1
    assert any("'=1+1" in row["system"] for row in rows)


def test_latex_holds_names_as_text(hostile: Path) -> None:
    table = reported(hostile, "--format", "latex")
    assert "\\input" not in table
    assert latex("100%_#$&{~^}") == r"100\%\_\#\$\&\{\textasciitilde{}\textasciicircum{}\}"
    assert latex("100%_#$&{~^}") in table


@pytest.mark.parametrize("name", HOSTILE)
def test_yaml_holds_names_as_text(name: str, hostile: Path, folder: Path) -> None:
    """And a card's update writes nothing but its entry."""
    source = hostile / f"m{HOSTILE.index(name)}"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# card\n")
    assert run_here("report", source, "--format", "model-index", "--update", "README.md").code == 0
    front = yaml.safe_load((folder / "README.md").read_text().split("\n---\n")[0])
    assert list(front) == ["license", "model-index"]
    assert front["model-index"][0]["name"] == f"o/{name}".rpartition("/")[2]
    assert (folder / "README.md").read_text().endswith("\n---\n# card\n")


def test_junit_holds_names_as_text(hostile: Path, folder: Path) -> None:
    assert run_here("check", "--baseline", hostile / "m0", "--results", hostile, "--junit", "junit.xml").code in (0, 1)
    names = {case.get("classname") for case in ET.parse(folder / "junit.xml").iter("testcase")}
    assert {"o/<script>alert(1)</script>", "o/]]>", "o/&#60;"} <= names


def bomb(levels: int = 30) -> str:
    names = [f"a{number}" for number in range(levels)]
    lines = [f"a0: &a0 [{', '.join('x' * 9)}]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise(names)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        "a: &a [*a]\n",
        "x: !!python/object/apply:pathlib.Path.touch [mark]\n",
        "x: !!python/name:os.system\n",
        "x: " + "[" * 1500,
    ],
    ids=["bomb", "endless", "object", "name", "deep"],
)
def test_yaml_is_data_of_bounded_size(text: str, folder: Path) -> None:
    """In cards that are audited or updated, and in configurations."""
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"\w"):
        parse_yaml(text)
    (folder / "README.md").write_text(f"---\n{text}---\n# card\n")
    (folder / "task").mkdir()
    (folder / "task" / "mine.yaml").write_text(text)
    task = ranking_task(3)
    path = write_scores(folder / "results", task, noisy_scores(task))
    for arguments in (
        ("audit", "README.md"),
        ("report", path, "--format", "model-index", "--update", "README.md"),
        ("task=mine", "model=constant", "--config-dir", "."),
    ):
        done = run_here(*arguments)
        assert done.code == 2, done
        assert "this is a bug" not in done.stderr
    assert time.perf_counter() - started < 20
    assert not (folder / "mark").exists()
