"""What README and the pages in docs/ tell a reader to type is what evalkit takes, and what they link to is there."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from command import run_here

from docs.make_api import render
from evalkit.commands.arguments import arranged
from evalkit.commands.main import RUN, app

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
CONFIGURED = ("run", "doctor", "parity")
ROOT_COMMAND = typer.main.get_command(app)
NOT_OF_RUNS = ("backends=", "tolerance=", "--json", "vllm.")


def commands() -> Iterator[tuple[str, str]]:
    """Every command line in a page's blocks: the page, and the words after `evalkit`."""
    for page in PAGES:
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            if language not in ("", "sh", "bash", "yaml"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                found = re.match(r"(?:\$ |- run: )?(?:[A-Z_]+=\S+ )*(?:python -m )?evalkit( .*)?$", line.strip())
                if found and "…" not in line:
                    yield str(page.relative_to(ROOT)), re.split(r"  +", (found[1] or "").strip())[0]


LINES = list(commands())


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_commands_are_taken(page: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name, *words = arranged(shlex.split(line, comments=True), ROOT_COMMAND, RUN)
    if name not in CONFIGURED:
        assert not re.search(r"[A-Z]{3,}…", line)
        _parse(name, words)
        return
    # a sweep's first run; a list is no sweep
    words = [re.sub(r"^([\w.]+=[^'\"\s,\[]*),.*", r"\1", word) for word in words if word != "-m"]
    monkeypatch.chdir(tmp_path)
    done = run_here("run", *(word for word in words if not word.startswith(NOT_OF_RUNS)), "--cfg", "job")
    assert done.code == 0, done.stderr


def _parse(name: str, words: list[str]) -> None:
    """Parse the words as the command does. click raises where they are wrong."""
    root = ROOT_COMMAND
    command = root.get_command(typer.Context(root), name)
    if hasattr(command, "get_command"):
        command = command.get_command(typer.Context(command), words.pop(0))
    command.make_context(name, words)


def test_the_reference_is_that_of_the_code() -> None:
    """`make docs` writes it anew."""
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == render()


def test_pages_hold_commands() -> None:
    assert {page for page, _ in LINES} >= {"README.md", "README.zh-CN.md"}
    assert len(LINES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [page for page in PAGES if ">>> " in page.read_text("utf-8")], ids=lambda page: page.name
)
def test_examples_print_what_the_page_says(page: Path) -> None:
    failed, tried = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert tried
    assert not failed
