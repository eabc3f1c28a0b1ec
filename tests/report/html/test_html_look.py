"""The page in a real browser: how it looks in the dark, on paper and at any width, with hostile texts and with none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import (
    click,
    open_page,
    prefer,
    printed,
    set_width,
    wait_for,
)
from command import run_here
from made_pages import ATTACK, HOSTILE, LONG, describe
from made_results import noisy_scores, ranking_task, write_scores
from page_reading import choose, column, one, texts
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from evalkit.report.html.tasks import cut_text


def test_hostile_texts_are_texts(opened: WebDriver) -> None:
    """Every candidate's text is what the result holds, cut; not one became an element."""
    one(opened, "#query-search").send_keys("第0问")
    click(opened, one(opened, "#query-list button"))
    shown = set(texts(opened, ".candidates .text > bdi"))
    assert shown == {cut_text(text) for text in HOSTILE}
    assert texts(opened, "#detail h3 bdi")[0] == cut_text(f"{HOSTILE[0]} 第0问")
    assert any(f"{len(LONG):,} characters in all" in text for text in texts(opened, ".candidates small"))
    assert opened.find_elements(By.CSS_SELECTOR, "main img, main script, main style, main iframe") == []
    assert ATTACK in texts(opened, "#board tbody th bdi")
    directions = (
        "return [...document.querySelectorAll('.candidates .text > bdi')].map(e => getComputedStyle(e).direction)"
    )
    assert set(opened.execute_script(directions)) == {"ltr", "rtl"}


def test_theme_is_the_system_s_until_the_reader_chooses(opened: WebDriver, page: Path) -> None:
    surface = "return getComputedStyle(document.querySelector('section')).backgroundColor"
    chart = "return getComputedStyle(document.querySelector('#speed-chart .mark-text text')).fill"
    light, light_chart = opened.execute_script(surface), opened.execute_script(chart)
    prefer(opened, "dark")
    dark, dark_chart = opened.execute_script(surface), opened.execute_script(chart)
    assert dark != light
    assert dark_chart != light_chart
    click(opened, one(opened, "#theme"))
    assert opened.execute_script(surface) == light
    assert opened.execute_script(chart) == light_chart
    open_page(opened, page)
    assert opened.execute_script(surface) == light
    click(opened, one(opened, "#theme"))
    assert opened.execute_script(surface) == dark
    opened.execute_script("localStorage.clear()")


@pytest.mark.parametrize("width", [1366, 768, 390])
def test_page_fits_its_window(opened: WebDriver, page: Path, width: int) -> None:
    set_width(opened, width)
    open_page(opened, page)
    assert opened.execute_script("return document.documentElement.scrollWidth") == width
    wide = """return [...document.querySelectorAll("section, .controls > *, .chart svg, #query-list button, #detail")]
        .filter(e => e.offsetParent !== null || e.tagName === "svg")
        .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < 0)
        .map(e => e.id || e.className.baseVal || e.className || e.tagName)"""
    assert opened.execute_script(wide) == []


def test_page_prints_light_and_without_what_is_only_for_a_screen(opened: WebDriver) -> None:
    click(opened, one(opened, "#theme"))
    pdf = printed(opened)
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 30_000
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    display = "return getComputedStyle(document.querySelector(arguments[0])).display"
    for selector in ("nav", "#theme", ".list-side", ".search"):
        assert opened.execute_script(display, selector) == "none"
    assert opened.execute_script("return getComputedStyle(document.body).color") == "rgb(28, 33, 38)"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    opened.execute_script("localStorage.clear()")


def test_tooltips_are_texts(opened: WebDriver) -> None:
    choose(opened, "#speed-board", "CMedQAv1 (cmteb-v1)")
    wait_for(opened, "return document.querySelectorAll('#speed-chart .mark-symbol path').length === 3")
    opened.execute_script("""document.querySelectorAll('#speed-chart .mark-symbol path').forEach(e =>
        e.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: 200, clientY: 200})))""")
    assert ATTACK in one(opened, "#tooltip").text


def test_a_chart_without_a_width_waits_for_one(opened: WebDriver) -> None:
    """What the console says is looked at by `opened`."""
    width = "document.querySelector('#speed-chart').style.width = arguments[0]"
    marks = "return document.querySelectorAll('#speed-chart .mark-symbol path').length"
    opened.execute_script(width, "0")
    choose(opened, "#speed-board", "T2Reranking (mteb-v2)")
    opened.execute_script("dispatchEvent(new Event('resize'))")
    opened.execute_async_script("setTimeout(arguments[0], 300)")
    assert opened.execute_script(marks) == 3
    opened.execute_script(width, "")
    wait_for(opened, f"{marks} === 1")
    chart = one(opened, "#speed-chart")
    assert one(opened, "#speed-chart svg").size["width"] == chart.size["width"]


def test_results_without_texts_say_how_to_get_them(browser: WebDriver, results: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.html"
    assert (
        run_here("report", str(results), "--format", "html", "--no-texts", "--drill-down", "0", "-o", str(file)).code
        == 0
    )
    open_page(browser, file)
    assert "--drill-down N" in one(browser, "#detail").text
    assert run_here("report", str(results), "--format", "html", "--no-texts", "-o", str(file)).code == 0
    open_page(browser, file)
    assert "--no-texts" in one(browser, "#text-message").text
    assert set(texts(browser, ".candidates .text small")) == {
        f"{texts(browser, '#detail h3 bdi')[0]}-{letter}" for letter in "abcdefghijkl"
    }


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two models, one of them timed, and of two baselines, one of which is the best of all."""
    folder = tmp_path_factory.mktemp("baselines")
    task = ranking_task(20)
    gains = np.tile(np.arange(10) < 2, (20, 1))
    for name, kind, scores, rate in (
        ("random", "baseline", noisy_scores(task, 1) * ~gains, None),
        ("text2vec-base", "embedder", noisy_scores(task, 2) + 0.5 * gains, None),
        ("oracle", "baseline", gains, None),
        ("multilingual-e5-small-q4", "embedder", noisy_scores(task, 3) + gains, 353.330226305),
    ):
        path = write_scores(folder / "results", task, scores.astype(np.float32), name)
        describe(path, kind, None, rate)
    page = folder / "page.html"
    assert run_here("report", str(folder / "results"), "--format", "html", "-o", str(page)).code == 0
    return page


def test_comparison_opens_on_the_two_best_models(browser: WebDriver, baselines: Path) -> None:
    open_page(browser, baselines)
    assert column(browser, "model")[0].startswith("oracle")
    chosen = [Select(one(browser, f"#model-{side}")).first_selected_option.text for side in "ab"]
    assert chosen == ["multilingual-e5-small-q4", "text2vec-base"]


def test_one_measured_speed_has_round_ticks_about_it(browser: WebDriver, baselines: Path) -> None:
    open_page(browser, baselines)
    ticks = """return [...document.querySelectorAll("#speed-chart .role-axis[aria-label]")].map(
        axis => [...axis.querySelectorAll(".role-axis-label text")].map(e => e.textContent))"""
    axes = browser.execute_script(ticks)
    assert len(axes) == 2
    for axis in axes:
        assert len(axis) >= 3
        assert all(len(tick) <= 5 for tick in axis), axes


def test_names_in_the_head_of_candidates_break_at_hyphens(browser: WebDriver, baselines: Path) -> None:
    set_width(browser, 1366)
    open_page(browser, baselines)
    lines = """const names = [...document.querySelectorAll(".candidates thead bdi")];
        const node = names.find(e => e.textContent === arguments[0]).firstChild;
        let start = 0;
        return arguments[0].split(/(?<=-)/).map(part => {
            const range = document.createRange();
            range.setStart(node, start);
            range.setEnd(node, start += part.length);
            return range.getClientRects().length;
        })"""
    assert set(browser.execute_script(lines, "multilingual-e5-small-q4")) == {1}
