"""What a reader of the page keeps in sight: slices, the heads of long tables, and axes on a phone."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_page, set_width
from command import run_here
from made_pages import describe
from made_results import noisy_scores, ranking_task, write_scores
from selenium.webdriver.chrome.webdriver import WebDriver

RATES = {
    "slowest": {"bge-reranker-v2-minicpm-layerwise": 0.1, "multilingual-e5-small-q4": 353.3, "text2vec-base": 12000.0},
    "below a thousandth": {"bge-reranker-v2-minicpm-layerwise": 0.0004, "text2vec-base": 0.002},
    "millions": {"multilingual-e5-small-q4": 1_200_000.0, "text2vec-base": 900.0},
    "one": {"multilingual-e5-small-q4": 0.25},
}
LABELS = """return [...document.querySelectorAll(".chart .role-axis-label text")].map(e => {
    const own = e.getBoundingClientRect(), chart = e.closest("svg").getBoundingClientRect();
    return {text: e.textContent, hidden: getComputedStyle(e).opacity === "0",
        axis: e.closest(".role-axis").getAttribute("aria-label"),
        left: own.left, right: own.right, top: own.top, bottom: own.bottom,
        whole: own.left >= chart.left - 0.5 && own.right <= chart.right + 0.5 && own.bottom <= chart.bottom + 0.5}
})"""
HEADS = """const head = document.querySelector(arguments[0] + " thead th"), box = head.closest(".scroll");
    box.scrollTop = box.scrollHeight;
    return {scrolled: box.scrollTop, head: head.getBoundingClientRect().top, box: box.getBoundingClientRect().top,
        overlap: getComputedStyle(head).backgroundColor, inner: box.getBoundingClientRect().height, window: innerHeight}"""


def write_page(folder: Path, rates: dict[str, float], *options: str) -> Path:
    task = ranking_task(40, name="a-task-of-a-longer-name")
    for seed, (name, rate) in enumerate(rates.items()):
        scores = noisy_scores(task, seed) * (1 + seed)
        describe(write_scores(folder / "results", task, scores.astype(np.float32), name), "embedder", 118.0, rate)
    page = folder / "page.html"
    done = run_here("report", str(folder / "results"), "--format", "html", "-o", str(page), *options)
    assert (done.code, done.stderr) == (0, "")
    return page


@pytest.fixture(scope="module", params=RATES)
def timed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("timed"), RATES[request.param])


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(
        tmp_path_factory.mktemp("sliced"), RATES["slowest"], "--slice", "query-length,candidates,language"
    )


@pytest.mark.parametrize("width", [390, 1366])
def test_axes_are_plain_decimals_and_whole(browser: WebDriver, timed: Path, width: int) -> None:
    set_width(browser, width)
    open_page(browser, timed)
    shown: list[dict[str, Any]] = [one for one in browser.execute_script(LABELS) if one["text"] and not one["hidden"]]
    assert len(shown) > 10
    for one in shown:
        assert re.fullmatch(r"[+−]?[\d,]+(\.\d+)?( %)?", one["text"]), one
        assert one["whole"], one
    speed = [one for one in shown if "pairs per second" in one["axis"]]
    assert len(speed) >= 2
    speed.sort(key=lambda one: one["left"])
    assert all(one["right"] + 2 <= other["left"] for one, other in itertools.pairwise(speed))
    values = [float(one["text"].replace(",", "")) for one in speed]
    assert values == sorted(values)
    assert min(values) > 0


def test_names_of_models_are_whole_beside_their_points_on_a_phone(browser: WebDriver, sliced: Path) -> None:
    set_width(browser, 390)
    open_page(browser, sliced)
    names = """return [...document.querySelectorAll("#speed-chart .mark-text text")]
        .filter(e => !e.closest(".role-axis") && getComputedStyle(e).opacity !== "0" && e.textContent).map(e => e.textContent)"""
    found = set(browser.execute_script(names))
    assert set(RATES["slowest"]) <= found


@pytest.mark.parametrize("table", [".candidates", ".moved", "#board"])
@pytest.mark.parametrize("width", [1366, 1000])
def test_a_table_s_head_stays_in_sight(browser: WebDriver, sliced: Path, table: str, width: int) -> None:
    set_width(browser, width, 420)
    open_page(browser, sliced)
    browser.execute_script(
        """const body = document.querySelector(arguments[0]).tBodies[0];
        for (let times = 0; times < 6; times += 1) body.append(...[...body.rows].map(row => row.cloneNode(true)).slice(0, 12))""",
        table,
    )
    found = browser.execute_script(HEADS, table)
    assert found["scrolled"] > 0
    assert abs(found["head"] - found["box"]) < 2
    assert found["inner"] < found["window"]
    assert found["overlap"] != "rgba(0, 0, 0, 0)"


def test_a_slice_of_the_command_is_on_the_page(sliced: Path) -> None:
    page = sliced.read_text(encoding="utf-8")
    done = run_here("report", str(sliced.parent / "results"), "--slice", "query-length,candidates,language", "--json")
    slices = json.loads(done.stdout)["slices"]
    assert [board["by"] for board in slices] == ["query-length", "candidates", "language"]
    section = page.partition('<section id="slices"')[2].partition("</section>")[0]
    for board in slices:
        assert f"by {board['by']}</h3>" in section
        for mean in board["means"]:
            row = section.partition(f"by {board['by']}</h3>")[2].partition("</table>")[0]
            cells = [re.sub("<[^>]+>", "", one).split() for one in row.split("<tr>")]
            expected = [mean["name"], str(mean["n_queries"]), mean["system"]["label"], f"{100 * mean['value']:.2f}"]
            assert expected in [one[:4] for one in cells]
    assert '<a href="#slices">' in page


def test_what_can_t_be_cut_is_said_and_an_unasked_slice_is_not_there(tmp_path: Path, timed: Path) -> None:
    plain = timed.read_text(encoding="utf-8")
    assert 'id="slices"' not in plain
    assert 'href="#slices"' not in plain
    page = write_page(tmp_path, RATES["one"], "--slice", "truncation").read_text(encoding="utf-8")
    assert 'id="slices"' not in page
    assert "is not cut by truncation: no result has the column truncated_pairs" in page


@pytest.mark.parametrize("width", [1366, 390])
def test_slices_fit_the_window(browser: WebDriver, sliced: Path, width: int) -> None:
    set_width(browser, width)
    open_page(browser, sliced)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert len(browser.execute_script("return [...document.querySelectorAll('#slices table')]")) == 3
