"""The page's part on depth, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import console_lines, open_page, requested, set_width
from command import run_here
from page_reading import texts
from selenium.webdriver.chrome.webdriver import WebDriver
from staged_task import HANDED_ON, reranked

import evalkit


@pytest.mark.parametrize("width", [1366, 390])
def test_depths_are_drawn(browser: WebDriver, corpus: tuple[Path, Path], tmp_path: Path, width: int) -> None:
    saved = evalkit.save_result(reranked(corpus), tmp_path / "results")
    page = tmp_path / "report.html"
    done = run_here("report", str(saved), "--depth", "--format", "html", "-o", str(page))
    assert done.code == 0, done.stderr
    set_width(browser, width)
    requested(browser), console_lines(browser)
    open_page(browser, page)
    assert console_lines(browser) == []
    assert requested(browser) == {page.as_uri()}
    points = browser.find_elements("css selector", "#depth-charts .mark-symbol path")
    assert len(points) == 4
    places = [point.location["x"] for point in points]
    assert places == sorted(places)
    assert places[0] < places[-1]
    assert len(browser.find_elements("css selector", "#depth-charts .mark-line path")) == 2
    cells = texts(browser, "#depth td")
    assert f"all ({HANDED_ON})" in cells
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_no_part_on_depth_unasked(opened: WebDriver) -> None:
    assert browser_has(opened, "#scores")
    assert not browser_has(opened, "#depth")


def browser_has(browser: WebDriver, selector: str) -> bool:
    return bool(browser.find_elements("css selector", selector))
