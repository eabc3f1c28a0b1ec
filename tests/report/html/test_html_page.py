"""The page as a file: what it holds, that it is whole and safe, and how large it is."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command import MODULE, run_here, run_program
from hypothesis import given
from hypothesis import strategies as st
from made_pages import ATTACK, HOSTILE, LONG, QUERIES, page_data

from evalkit.report.html.embedding import content_policy, inline_script, json_data
from evalkit.report.html.tasks import cut_text


class Elements(HTMLParser):
    """What a parser of HTML finds: elements with their attributes, and the contents of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.contents.append((tag, dict(attrs), []))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.contents[-1][2].append(data)


def policy_hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


TEXTS = st.text() | st.sampled_from(HOSTILE[:6])


@given(st.recursive(TEXTS | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_data_come_back_and_hold_nothing_that_ends_their_element(content: Any) -> None:
    written = json_data(content)
    assert json.loads(written) == content
    assert not set(written) & set("<>&\u2028\u2029")


def test_numbers_that_json_lacks_are_null() -> None:
    assert json_data({"p": float("nan"), "interval": (1.5, float("inf"))}) == '{"p":null,"interval":[1.5,null]}'


def test_scripts_keep_their_meaning_and_lose_what_ends_them() -> None:
    code = 'const a = "</script><!-- </SCRIPT>";\r\nconst b = /<\\/script/;\rconst c = 1 < 2;'
    written = inline_script(code)
    assert written == 'const a = "<\\/script><\\!-- <\\/SCRIPT>";\nconst b = /<\\/script/;\nconst c = 1 < 2;'


def test_policy_allows_the_page_s_own_code_alone(text: str) -> None:
    found = Elements(text)
    (policy,) = [one["content"] for _, one in found.elements if one.get("http-equiv") == "Content-Security-Policy"]
    sources = dict(part.split(" ", 1) for part in str(policy).split("; "))

    def hashes(tag: str) -> set[str]:
        return {
            policy_hash("".join(parts)) for name, own, parts in found.contents if name == tag and not own.get("type")
        }

    assert set(sources["script-src"].split()) == hashes("script")
    assert set(sources["style-src"].split()) == hashes("style")
    assert (len(hashes("script")), len(hashes("style"))) == (2, 1)
    assert sources["default-src"] == "'none'"
    assert sources["img-src"] == "data:"
    assert content_policy([], []).startswith("default-src 'none'")


def test_nothing_is_asked_for_and_no_hostile_text_is_an_element(text: str) -> None:
    found = Elements(text)
    addresses = [
        value for _, attributes in found.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert {str(address)[:1] for address in addresses if address != "data:,"} == {"#"}
    assert [tag for tag, _ in found.elements if tag in ("img", "iframe", "object", "link")] == ["link"]
    assert len([tag for tag, _ in found.elements if tag == "script"]) == 3
    assert not [
        name for _, attributes in found.elements for name in attributes if name.startswith("on") or name == "style"
    ]
    assert "@import" not in text.partition("</style>")[0]
    assert "url(" not in text.partition("</style>")[0]


def test_page_holds_what_the_results_hold(text: str) -> None:
    data = page_data(text)
    assert [task["name"] for task in data["tasks"]] == ["T2Reranking", "CMedQAv1", "T2Reranking"]
    first = data["tasks"][0]
    assert [data["systems"][system]["label"] for system in first["systems"]] == ["bge-reranker-base", "e5", ATTACK]
    assert len(first["queryIds"]) == len(first["details"]) == QUERIES
    shown = {detail["query"]: detail for detail in first["details"]}
    assert shown[0]["texts"] == [cut_text(HOSTILE[place % len(HOSTILE)]) for place in range(12)]
    assert set(shown[0]["lengths"].values()) == {len(LONG)}
    assert first["lang"] == "zh-Hans"
    assert len(text) < 1_400_000


def test_page_is_the_same_bytes_again(results: Path, page: Path) -> None:
    done = run_here("report", str(results), "--format", "html")
    assert done.code == 0
    assert done.stdout.encode() == page.read_bytes()


def test_texts_are_left_out_and_details_are_as_many_as_asked_for(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.html"
    done = run_here("report", str(results), "--format", "html", "--no-texts", "--drill-down", "3", "-o", str(file))
    assert done.code == 0, done.stderr
    text = file.read_text(encoding="utf-8")
    tasks = page_data(text)["tasks"]
    assert [len(task["details"]) for task in tasks] == [3, 3, 3]
    assert all(task["queries"] is None and not task["hasTexts"] for task in tasks)
    assert "重排序" not in text
    assert "第1问" not in text


@pytest.mark.parametrize("option", [["--no-texts"], ["--drill-down", "5"]])
def test_options_of_pages_are_refused_elsewhere(results: Path, option: list[str]) -> None:
    for others in ([], ["--format", "markdown"]):
        done = run_here("report", str(results), *others, *option)
        assert (done.code, done.stdout) == (2, "")
        assert "add --format html" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_writing_a_page_loads_no_network_library(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from evalkit.commands.main import run_command_line; "
        f"code = run_command_line(['report', {str(results)!r}, '--format', 'html', '-o', {str(tmp_path / 'p.html')!r}]); "
        "print(code, sorted({'torch', 'hydra', 'mteb', 'transformers', 'datasets', 'altair'} & set(sys.modules)))"
    )
    done = run_program(tmp_path, "-c", code, program=MODULE[:1])
    assert done.stdout == "0 []\n", done.stderr
