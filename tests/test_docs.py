"""What README and the pages in docs/ tell a reader to type is what evalkit takes, and what they link to is there."""

from __future__ import annotations

import doctest
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import typer
from command import run_here

from docs.make_api import render
from evalkit.commands.arguments import arranged
from evalkit.commands.main import RUN, app
from evalkit.results.published import all_figures

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
# by the English page's path: the Chinese pages
TWINS = {
    Path("README.md"): Path("README.zh-CN.md"),
    **{
        next(
            found.relative_to(ROOT)
            for folder in ("docs/how-to", "docs")
            if (found := ROOT / folder / page.name).exists()
        ): page.relative_to(ROOT)
        for page in sorted((ROOT / "docs" / "zh").glob("*.md"))
    },
}
ENGLISH_OF = {chinese: english for english, chinese in TWINS.items()}
COMMENT = re.compile(r"(?:^|\s+)# .*")
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


def block_lines(text: str) -> list[str]:
    return list(chain.from_iterable(map(str.splitlines, re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))))


def blocks(text: str) -> list[str]:
    """List the lines of a page's blocks, of commands, code and output, without comments, which are translated."""
    bare = [COMMENT.sub("", line) for line in block_lines(text)]
    return [line for line in bare if line.strip()]


def prose(text: str) -> str:
    """Return a page without its blocks and the targets of its links."""
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def figures(text: str) -> Counter[str]:
    """Count the numbers in a page's prose, tables and comments, but for those of names (`T2Reranking`), code and months (9 月)."""
    comments = [found[0] for line in block_lines(text) if (found := COMMENT.search(line))]
    text = re.sub(r"\d+ ?月", "", re.sub(r"`[^`]*`", "", "\n".join([prose(text), *comments])))
    found = re.findall(r"(?<![A-Za-z\d.,\-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\d.]*[A-Za-z])", text)
    return Counter(number.rstrip(",").replace(",", "") for number in found)


def linked(page: Path) -> list[str]:
    """List what a page links to, from the root, and with a page in Chinese under the name of its English twin."""
    targets = []
    for target, anchor in re.findall(r"\]\(([^)#]+)([^)]*)\)", (ROOT / page).read_text("utf-8")):
        if target.startswith("https://"):
            targets.append(target + anchor)
        else:
            path = (ROOT / page.parent / target).resolve().relative_to(ROOT.resolve())
            targets.append(f"{ENGLISH_OF.get(path, path)}{anchor}")
    return sorted(targets)


@pytest.mark.parametrize("english", TWINS, ids=str)
def test_both_languages_say_the_same(english: Path) -> None:
    """What can be compared: commands and outputs in their order, names in code, figures, and links."""
    own, other = (ROOT / english).read_text("utf-8"), (ROOT / TWINS[english]).read_text("utf-8")
    assert blocks(own) == blocks(other)
    assert figures(own) == figures(other)
    names = [set(re.findall(r"`[^`]+`", prose(text))) for text in (own, other)]
    assert names[0] == names[1]
    assert linked(english) == linked(TWINS[english])
    headings = [re.findall(r"^#+ ", text, re.M) for text in (own, other)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("page", [*TWINS, *ENGLISH_OF], ids=str)
def test_pages_link_to_pages_of_their_language(page: Path) -> None:
    """One link leads to the twin; all others lead to the page's own language where it has the page."""
    others = TWINS if page in ENGLISH_OF else ENGLISH_OF
    targets = re.findall(r"\]\((?!https://)([^)#]+)", (ROOT / page).read_text("utf-8"))
    paths = [(ROOT / page.parent / target).resolve().relative_to(ROOT.resolve()) for target in targets]
    assert [path for path in paths if path in others] == [TWINS.get(page) or ENGLISH_OF[page]]


def test_every_how_to_page_is_there_in_both_languages() -> None:
    pages = {page.relative_to(ROOT) for page in (ROOT / "docs" / "how-to").glob("*.md")}
    assert pages <= TWINS.keys()


def test_the_readme_is_read_in_five_minutes() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 1000
    for page in ("README.md", "README.zh-CN.md"):
        lines = (ROOT / page).read_text("utf-8").splitlines()
        assert lines.index("```python") + 2 < 80, page


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md", "docs/how-to/doubt-a-figure.md"])
def test_pages_say_how_many_figures_are_published(page: str) -> None:
    assert f"{len(all_figures()):,}" in (ROOT / page).read_text("utf-8")
