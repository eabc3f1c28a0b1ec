"""A page that shows everything, hostile texts among it, and a browser that opens it; made once per process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import console_lines, open_browser, open_page, prefer, requested, set_width
from command import run_here
from made_pages import page_data, write_results
from selenium.webdriver.chrome.webdriver import WebDriver


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page's results: only read."""
    return write_results(tmp_path_factory.mktemp("page-results"))


@pytest.fixture(scope="session")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    done = run_here("report", str(results), "--format", "html", "-o", str(path))
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    return path


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with open_browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def opened(browser: WebDriver, page: Path) -> Iterator[WebDriver]:
    """The page, newly opened at 1366 pixels; afterwards no console has said a word, and nothing but the page was asked for."""
    set_width(browser, 1366)
    prefer(browser, "light")
    requested(browser), console_lines(browser)  # what other tests' pages asked for and said
    open_page(browser, page)
    yield browser
    assert console_lines(browser) == []
    assert requested(browser) == {page.as_uri()}
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return window.pwned") is None


@pytest.fixture(scope="session")
def data(page: Path) -> Any:
    return page_data(page.read_text(encoding="utf-8"))
