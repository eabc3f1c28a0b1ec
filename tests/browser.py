"""A real browser: Debian's Chromium without a window, driven by selenium. It keeps a record of consoles and requests."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
WAIT = 60
CHROMIUMS_OWN = ("chrome:", "chrome-untrusted:")


@contextmanager
def open_browser(profile: Path, dark: bool = False) -> Iterator[WebDriver]:
    """Start Chromium with an empty profile. Where there is none a test is skipped, or fails if EVALKIT_REQUIRE_BROWSER is set."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        message = "no Chromium: apt-get install chromium chromium-driver"
        if os.environ.get("EVALKIT_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.get("about:blank")  # in the place of Chromium's new tab
        browser.get_log("performance")
        prefer(browser, "dark" if dark else "light")
        yield browser
    finally:
        browser.quit()


def prefer(browser: WebDriver, theme: str) -> None:
    """Let the system wish for a light or a dark page."""
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def set_width(browser: WebDriver, width: int, height: int = 900) -> None:
    """Make the page so many CSS pixels wide; a phone's page is narrower than a window can be."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def open_page(browser: WebDriver, page: Path) -> None:
    """Open a report from its file and wait until its charts stand."""
    browser.get(page.as_uri())
    wait_for(browser, "return document.documentElement.dataset.drawn === 'true'")


def wait_for(browser: WebDriver, script: str) -> None:
    WebDriverWait(browser, WAIT, poll_frequency=0.05).until(lambda one: one.execute_script(script))


def whole_page(browser: WebDriver) -> bytes:
    """A picture (PNG) of the page from top to bottom."""
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    return base64.b64decode(taken["data"])


def printed(browser: WebDriver) -> bytes:
    """The page as it is printed: a PDF."""
    return base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])


def console_lines(browser: WebDriver) -> list[str]:
    """Everything that the console has said since the last call."""
    return [f"{entry['level']}: {entry['message']}" for entry in browser.get_log("browser")]


def requested(browser: WebDriver) -> set[str]:
    """Every address that the page in the window has asked for since the last call: its own, what it loads, and where it leads.

    What lies in the page itself (`data:`) is no request. A worker's requests are not seen. Chromium asks for things too, its new
    tab for one. That is told apart by who asks: another tab than the window's, or a document of Chromium's own, which no page is.
    """
    entries = [json.loads(entry["message"]) for entry in browser.get_log("performance")]
    messages: list[dict[str, Any]] = [
        entry["message"] for entry in entries if entry["webview"] == browser.current_window_handle
    ]
    asked = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    pages = [one for one in asked if not one["documentURL"].startswith(CHROMIUMS_OWN)]
    return {one["request"]["url"] for one in pages if not one["request"]["url"].startswith("data:")}


def click(browser: WebDriver, element: WebElement) -> None:
    """Click in the middle of the window: at its top the page's header may cover an element."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()
