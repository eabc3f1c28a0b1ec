"""The count of a page's requests sees each way in which a page can ask for something, and nothing of Chromium's own."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browser import open_browser, requested
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

PLANTED = {
    "image": "<img src='{address}'>",
    "script": "<script src='{address}'></script>",
    "style": "<link rel='stylesheet' href='{address}'>",
    "font": "<style>@font-face {{ font-family: F; src: url({address}) }} p {{ font-family: F }}</style><p>F</p>",
    "prefetch": "<link rel='prefetch' href='{address}'>",
    "frame": "<iframe src='{address}'></iframe>",
    "fetch": "<script>fetch('{address}', {{mode: 'no-cors'}})</script>",
    "beacon": "<script>navigator.sendBeacon('{address}')</script>",
}


class Answer(BaseHTTPRequestHandler):
    """Nothing, to whatever is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that is none of the page's business."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("way", PLANTED)
def test_each_way_to_ask_is_seen(way: str, browser: WebDriver, server: str, tmp_path: Path) -> None:
    address = f"{server}/{way}"
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><body>{PLANTED[way].format(address=address)}</body>", encoding="utf-8")
    requested(browser)
    browser.get(page.as_uri())
    seen: set[str] = set()

    def arrived(_: object) -> bool:
        seen.update(requested(browser))
        return address in seen

    WebDriverWait(browser, 20, poll_frequency=0.1).until(arrived)
    assert page.as_uri() in seen


def test_what_chromium_asks_for_does_not_count(browser: WebDriver, server: str) -> None:
    """A page of its own in the same window, and whatever goes on in another tab."""
    requested(browser)
    window = browser.current_window_handle
    browser.get("chrome://version")
    browser.switch_to.new_window("tab")
    browser.get(f"{server}/other-tab")
    browser.close()
    browser.switch_to.window(window)
    browser.get("about:blank")
    assert requested(browser) == set()


def test_a_new_browser_has_asked_for_nothing(tmp_path: Path) -> None:
    with open_browser(tmp_path) as browser:
        assert browser.current_url == "about:blank"
        assert requested(browser) == set()
