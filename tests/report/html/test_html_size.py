"""A report of T2Reranking's size, five models: small enough to send, and quickly open."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import open_browser, open_page, set_width
from command import run_here
from made_pages import page_data, scores_of_gains
from made_results import change_json, change_table, write_scores
from made_tasks import Group, make_task

QUERIES, PAIRS, MODELS = 5908, 97_422, 5
TEXT = "为什么海水是咸的而河水不是" * 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One evaluation, and copies of it with other names and scores."""
    folder = tmp_path_factory.mktemp("large")
    counts = 2 + np.random.default_rng(1).multinomial(PAIRS - 2 * QUERIES, np.full(QUERIES, 1 / QUERIES))
    task = make_task(*(group_of(query, count) for query, count in enumerate(counts.tolist())), name="T2Reranking")
    gains = np.array([candidate.gain for request in task.requests for candidate in request.candidates])
    path = write_scores(folder / "0", task, scores_of_gains(gains, 1.0, 0), "model-0", texts=True)
    for number in range(1, MODELS):
        shutil.copytree(folder / "0", folder / str(number))
        copy = folder / str(number) / path.relative_to(folder / "0")
        scores = scores_of_gains(gains, 1.0, number)
        change_table(copy, lambda table, scores=scores: table.assign(score=scores), "run")
        name = f"model-{number}"
        change_json(
            copy, lambda content, name=name: content["evalkit"]["model"].update(name=name, hub_id=f"local/{name}")
        )
    return folder


def group_of(query: int, count: int) -> Group:
    """A query with its candidates, a third of them relevant."""
    return [f"第{query}个问题"], [(f"{query} {place} {TEXT}", int(place < count / 3)) for place in range(count)]


@pytest.mark.slow
def test_large_report_is_small_and_opens_quickly(large: Path, tmp_path: Path) -> None:
    page = tmp_path / "large.html"
    done = run_here("report", str(large), "--format", "html", "-o", str(page))
    assert done.code == 0, done.stderr
    assert page.stat().st_size < 15_000_000
    (task,) = page_data(page.read_text(encoding="utf-8"))["tasks"]
    assert (len(task["queryIds"]), len(task["details"]), len(task["systems"])) == (QUERIES, 200, MODELS)
    with open_browser(tmp_path / "profile") as browser:
        set_width(browser, 1366)
        # time of the processor, which a busy machine leaves as it is
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        open_page(browser, page)
        metrics = {
            one["name"]: one["value"] for one in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        }
        assert metrics["TaskDuration"] < 2
        assert len(browser.find_elements("css selector", "#query-list li")) == 100
