"""The page in a real browser: what a reader clicks and types, and what is shown then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from browser import (
    click,
    wait_for,
)
from made_pages import ATTACK, CANDIDATES, QUERIES
from page_reading import choose, column, header, one, texts
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

ANY = "all tasks"


def test_leaderboard_sorts_by_mouse_and_keyboard(opened: WebDriver) -> None:
    choose(opened, "#filter-task", ANY)
    values = [float(text) for text in column(opened, "MAP")]
    assert len(values) == 10
    assert values == sorted(values, reverse=True)
    assert header(opened, "MAP").get_attribute("aria-sort") == "descending"
    click(opened, header(opened, "MAP").find_element(By.TAG_NAME, "button"))
    assert [float(text) for text in column(opened, "MAP")] == sorted(values)
    assert header(opened, "MAP").get_attribute("aria-sort") == "ascending"
    button = header(opened, "model").find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    names = texts(opened, "#board tbody th bdi")
    assert names == sorted(names)
    assert header(opened, "MAP").get_attribute("aria-sort") == "none"
    button.send_keys(Keys.SPACE)
    assert texts(opened, "#board tbody th bdi") == sorted(names, reverse=True)


def test_what_has_no_value_is_sorted_last(opened: WebDriver) -> None:
    choose(opened, "#filter-task", ANY)
    for _ in range(2):
        click(opened, header(opened, "size").find_element(By.TAG_NAME, "button"))
        sizes = column(opened, "size")
        assert sizes[-3:] == ["", "", ""]
        assert set(sizes[:-3]) == {"118 M", "278 M", "3 B"}


def test_leaderboard_filters_and_searches(opened: WebDriver) -> None:
    assert texts(opened, "#row-count") == ["3 of 10 rows"]
    choose(opened, "#filter-task", ANY)
    choose(opened, "#filter-kind", "cross-encoder")
    assert set(texts(opened, "#board tbody th bdi")) == {"bge-reranker-base"}
    choose(opened, "#filter-kind", "all kinds")
    choose(opened, "#filter-size", "below 150 M")
    assert set(texts(opened, "#board tbody th bdi")) == {"e5"}
    choose(opened, "#filter-size", "not known")
    assert set(texts(opened, "#board tbody th bdi")) == {ATTACK}
    choose(opened, "#filter-size", "all sizes")
    choose(opened, "#filter-protocol", "mteb-v2")
    assert texts(opened, "#board tbody th bdi") == ["e5-v2"]
    choose(opened, "#filter-protocol", "all protocols")
    choose(opened, "#filter-task", "CMedQAv1")
    assert len(texts(opened, "#board tbody th bdi")) == 3
    assert one(opened, "#filter-name").get_attribute("placeholder") == "name with all these words"
    one(opened, "#filter-name").send_keys("RERANK base")
    assert texts(opened, "#board tbody th bdi") == ["bge-reranker-base"]
    one(opened, "#filter-name").send_keys(" nothing")
    assert texts(opened, "#board tbody th bdi") == []
    click(opened, one(opened, "#clear-filters"))
    assert texts(opened, "#row-count") == ["10 of 10 rows"]


def test_published_figures_and_ranks_are_shown(opened: WebDriver) -> None:
    choose(opened, "#filter-task", "T2Reranking")
    row = next(row for row in opened.find_elements(By.CSS_SELECTOR, "#board tbody tr") if row.is_displayed())
    assert row.find_element(By.TAG_NAME, "bdi").text == "bge-reranker-base"
    assert "card" in row.text
    assert len(row.find_elements(By.CSS_SELECTOR, ".plot .published")) == 1
    assert column(opened, "ranks")[0] == "1"


def test_speed_chart_shows_every_model_and_the_front(opened: WebDriver, data: Any) -> None:
    for name in ("T2Reranking", "CMedQAv1"):
        choose(opened, "#filter-task", name)
        board = next(board for board in data["boards"] if board["name"] == name)
        wait_for(
            opened,
            f"return document.querySelectorAll('#speed-chart .mark-symbol path').length === {len(board['points'])}",
        )
        marks = opened.find_elements(By.CSS_SELECTOR, "#speed-chart .mark-symbol path")
        assert [mark.get_attribute("fill") == "var(--accent)" for mark in marks] == [
            point["front"] for point in board["points"]
        ]
        assert [point["front"] for point in board["points"]].count(True) == 2


def test_distributions_of_every_model_of_the_task(opened: WebDriver) -> None:
    assert texts(opened, "#distributions b") == ["bge-reranker-base", "e5", ATTACK]
    assert len(opened.find_elements(By.CSS_SELECTOR, "#distributions svg")) == 3
    assert len(opened.find_elements(By.CSS_SELECTOR, "#distributions .mark-area path")) == 6
    choose(opened, "#scores .task-choice", "T2Reranking (mteb-v2)")
    wait_for(opened, "return document.querySelectorAll('#distributions svg').length === 1")
    assert texts(opened, "#distributions b") == ["e5-v2"]
    assert Select(one(opened, "#queries .task-choice")).first_selected_option.text == "T2Reranking (mteb-v2)"
    assert "needs two" in one(opened, "#comparison-message").text


def test_two_models_are_compared(opened: WebDriver, data: Any) -> None:
    values = np.array(data["tasks"][0]["values"])
    choose(opened, "#model-a", "e5")
    choose(opened, "#model-b", "bge-reranker-base")
    differences = values[1] - values[0]
    better, worse = int((differences > 1e-6).sum()), int((differences < -1e-6).sum())
    counts = [f"{better} A better", f"{QUERIES - better - worse} equal", f"{worse} B better"]
    assert texts(opened, "#verdict .counts p span") == counts
    assert texts(opened, "#verdict .figure b") == [f"{differences.mean() * 100:+.2f}".replace("-", "−")]
    shown = [float(text.replace("−", "-")) for text in texts(opened, "#moved td:nth-child(3)")]
    assert shown == pytest.approx(np.sort(differences * 100)[::-1][: len(shown)], abs=0.006)
    click(opened, one(opened, "#moved-more"))
    assert len(texts(opened, "#moved tr")) == QUERIES
    click(opened, one(opened, "#swap"))
    assert texts(opened, "#verdict .counts p span")[0] == f"{worse} A better"
    assert Select(one(opened, "#model-a")).first_selected_option.text == "bge-reranker-base"
    choose(opened, "#moved-order", "B better first")
    assert float(texts(opened, "#moved td:nth-child(3)")[0].replace("−", "-")) == pytest.approx(
        -differences.max() * 100, abs=0.006
    )
    one(opened, "#moved-search").send_keys("第8问")
    assert texts(opened, "#moved small") == ["q8"]
    click(opened, one(opened, "#moved .link"))
    assert texts(opened, "#detail h3 small") == ["q8"]


def test_queries_are_shown_worst_first_and_candidates_in_the_order_of_each_model(opened: WebDriver, data: Any) -> None:
    task = data["tasks"][0]
    values = np.array(task["values"])
    for system, name in enumerate(["bge-reranker-base", "e5", ATTACK]):
        choose(opened, "#worst-for", name)
        shown = [float(text) for text in texts(opened, "#query-list b")]
        assert shown == pytest.approx(np.sort(values[system]) * 100, abs=0.006)
        (query_id,) = texts(opened, "#detail h3 small")
        detail = next(one for one in task["details"] if task["queryIds"][one["query"]] == query_id)
        header_cells = opened.find_elements(By.CSS_SELECTOR, ".candidates thead th")
        click(opened, header_cells[2 + system].find_element(By.TAG_NAME, "button"))
        order = np.argsort(-np.array(detail["scores"][system]), kind="stable")
        rows = opened.find_elements(By.CSS_SELECTOR, ".candidates tbody tr")
        assert [row.find_elements(By.TAG_NAME, "small")[0].text.split(" · ")[0] for row in rows] == [
            detail["docIds"][n] for n in order
        ]
        assert texts(opened, f".candidates tbody td:nth-child({3 + system}) b") == [
            str(n + 1) for n in range(CANDIDATES)
        ]
        assert texts(opened, ".candidates .mark") == ["relevant" if detail["gains"][n] else "irrelevant" for n in order]
        cut = [row.find_elements(By.CSS_SELECTOR, f"td:nth-child({3 + system}) .cut") != [] for row in rows]
        assert cut == [n in detail["truncated"][system] for n in order.tolist()]
        assert any(cut)


def test_queries_are_searched_and_walked_through_by_keys(opened: WebDriver) -> None:
    one(opened, "#query-search").send_keys("q1-c")
    assert texts(opened, "#query-count") == [f"1 in {QUERIES} queries"]
    one(opened, "#query-search").clear()
    one(opened, "#query-search").send_keys("第2")
    ids = texts(opened, "#query-list small")
    assert set(ids) == {"q2", "q20", "q21", "q22", "q23"}
    first = one(opened, "#query-list button")
    first.send_keys(Keys.ARROW_DOWN)
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert texts(opened, "#detail h3 small") == [ids[1]]
    assert (
        one(opened, "#query-list [aria-current]").text.endswith(ids[1])
        or ids[1] in one(opened, "#query-list [aria-current]").text
    )


def test_searches_that_find_nothing_say_so(opened: WebDriver) -> None:
    for field, items, message in (
        ("#moved-search", "#moved tr", "#no-moved"),
        ("#query-search", "#query-list li", "#no-queries"),
    ):
        assert texts(opened, message) == []
        one(opened, field).send_keys("nowhere")
        assert texts(opened, items) == []
        assert texts(opened, message) == ["No query fits this search."]
    assert one(opened, "#detail").text == ""
    one(opened, "#query-search").send_keys(Keys.BACKSPACE * len("nowhere"))
    assert len(texts(opened, "#query-list li")) == QUERIES
    assert texts(opened, "#no-queries") == []
    assert texts(opened, "#detail h3") != []


def test_a_model_against_itself_is_said_and_not_drawn(opened: WebDriver) -> None:
    choose(opened, "#model-a", "e5")
    choose(opened, "#model-b", "e5")
    assert "same model" in one(opened, "#verdict").text
    assert texts(opened, "#differences-chart, #moved tr, #moved-search") == []
    choose(opened, "#model-b", "bge-reranker-base")
    wait_for(opened, "return document.querySelectorAll('#differences-chart .mark-area path').length === 2")
    assert len(texts(opened, "#moved tr")) > 0
