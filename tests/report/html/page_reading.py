"""What a page shows, by its elements."""

from __future__ import annotations

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select


def one(browser: WebDriver, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def texts(browser: WebDriver, selector: str) -> list[str]:
    """The texts of what is shown."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent).map(e => e.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def choose(browser: WebDriver, selector: str, name: str) -> None:
    Select(one(browser, selector)).select_by_visible_text(name)


def column(browser: WebDriver, title: str) -> list[str]:
    number = 1 + int(header(browser, title).get_property("cellIndex"))
    return texts(browser, f"#board tbody tr > :nth-child({number})")


def header(browser: WebDriver, title: str) -> WebElement:
    (found,) = [
        cell for cell in browser.find_elements(By.CSS_SELECTOR, "#board thead th") if cell.text.startswith(title)
    ]
    return found
