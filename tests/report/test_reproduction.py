"""Verdicts on published figures: pure functions of results and figures, and the table that they end in."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from evalkit.records import ModelIdentity, PrecisionCheck, TaskIdentity, TaskStatistics, TieRange
from evalkit.report.reproduction import ReproducedFigure, first_looks, print_reproduction, verdict_cells
from evalkit.results import published
from evalkit.results.result import Result, TablesInMemory

CARD = "BAAI/bge-reranker-base"
# the card's own figures, in percent
MAPS = {"T2Reranking": 67.27728847727172, "MMarcoReranking": 35.4600511272538, "CMedQAv1": 81.27206722725007,
        "CMedQAv2": 84.10369934291236}  # fmt: skip
MRRS = {"T2Reranking": 77.1315192743764, "MMarcoReranking": 34.60238095238095, "CMedQAv1": 84.14238095238095,
        "CMedQAv2": 86.79376984126984}  # fmt: skip
SIX = {**MAPS, "T2RerankingZh2En": 63.95, "T2RerankingEn2Zh": 60.45}
QUERIES = {"T2Reranking": 5908, "MMarcoReranking": 100, "CMedQAv1": 1000, "CMedQAv2": 1000}
OWN = {"name": "bge-reranker-base", "hub_id": CARD, "revision": "2cfc18c9415c912f9d8155881c133215df768a70",
       "max_length": 512, "truncation": "longest_first", "path": None}  # fmt: skip


def result(
    task: str = "T2Reranking", moved: float = 0.0, mrr_moved: float = 0.0, *, model: dict[str, Any] | None = None,
    limit: int | None = None, differences: tuple[str, ...] = (), config: dict[str, Any] | None = None, **changes: Any,
) -> Result:  # fmt: skip
    """A full run that lies so many points from the card."""
    statistics = TaskStatistics(4, 8, 4, 0, 1, 40, 400, 4, 8)
    fields: dict[str, Any] = {
        "model": ModelIdentity("bge-reranker-base", CARD, str(OWN["revision"]), "cross-encoder"),
        "task": TaskIdentity(task, task, "dev", (), "cmteb", "hand", "", "f" * 64, statistics, (), limit, differences),
        "protocol": "cmteb-v1",
        "main_score": "map",
        "scores": {"map": (SIX[task] + moved) / 100, "mrr": (MRRS.get(task, 50.0) + mrr_moved) / 100},
        "intervals": {},
        "ties": {},
        "tables": TablesInMemory(
            pd.DataFrame({"ap": np.ones(QUERIES.get(task, 100))}), pd.DataFrame({"score": np.zeros(8, np.float32)})
        ),
        "backend": {"name": "torch"},
        "config": {"limit": limit, "model": {**OWN, **(model or {})}, "dtype": "fp32", **(config or {})},
    }
    return Result(**{**fields, **changes})


def cell(of: Result, metric: str = "map") -> ReproducedFigure:
    return next(cell for cell in verdict_cells([of]) if cell.metric == metric)


def printed(*results: Result) -> tuple[bool, str]:
    file = io.StringIO()
    done = print_reproduction(results, Console(file=file, width=80))
    return done, file.getvalue()


@pytest.mark.parametrize("task", MAPS)
@pytest.mark.parametrize(
    ("moved", "verdict"),
    [
        (0.0, "match"),
        (0.0299, "match"),
        (-0.0299, "match"),
        (0.0301, "mismatch"),
        (-0.0301, "mismatch"),
        (-16, "mismatch"),
    ],
)
def test_map_within_noise(task: str, moved: float, verdict: str) -> None:
    assert cell(result(task, moved)).verdict == verdict


@pytest.mark.parametrize(
    ("task", "moved", "verdict"),
    [("T2Reranking", 0.029, "match"), ("T2Reranking", 0.031, "mismatch"), ("CMedQAv1", 0.05, "match"),
     ("CMedQAv1", -0.051, "mismatch"), ("MMarcoReranking", -0.5, "match"), ("MMarcoReranking", 0.51, "mismatch")],
)  # fmt: skip
def test_mrr_by_one_query(task: str, moved: float, verdict: str) -> None:
    assert cell(result(task, mrr_moved=moved), "mrr").verdict == verdict


@pytest.mark.parametrize("moved", [0.0, -20.0])
@pytest.mark.parametrize(
    ("changes", "why", "fails"),
    [
        ({"limit": 5}, "limit=5", False),
        ({"differences": ("queries 5 instead of 5,908",)}, "other data", True),
        ({"model": {"hub_id": "own/model"}}, "nothing published", False),
        ({"model": {"hub_id": None}, "moved": 0.0}, "", None),
    ],
)
def test_what_can_not_be_compared(changes: dict[str, Any], why: str, fails: bool | None, moved: float) -> None:
    found = cell(result(**{"moved": moved, **changes}))
    if why:
        assert (found.verdict, found.why, found.fails) == ("not comparable", why, fails)
    else:  # no Hub id in the settings: the identity's own counts
        assert found.verdict == "match"


GOLDEN = {"matches": True, "dtype": "fp32"}


@pytest.mark.parametrize(
    ("checks", "verdict", "fails"),
    [
        ([], "not comparable", True),
        ([GOLDEN, {**GOLDEN, "matches": False}], "not comparable", True),
        ([GOLDEN], "match", False),
    ],
)
def test_a_folder_needs_its_golden_scores(checks: list[dict[str, Any]], verdict: str, fails: bool) -> None:
    local = ModelIdentity("bge-reranker-base", "local/copy", "0123456789ab", "cross-encoder")
    found = result(model=local and {"path": "/copy"}, provenance={"golden_scores": checks})
    found = replace(found, model=local)
    assert (cell(found).verdict, cell(found).fails) == (verdict, fails)


def test_figures_may_be_given() -> None:
    """Any figure, whoever published it."""
    figure = published.PublishedFigure(
        CARD, "", "T2Reranking", "map", 0.5, "50.0", "percent", 1, "cmteb-v1", "table", "here", ""
    )
    (of_map, of_mrr) = verdict_cells([result()], lambda hub_id, task, metric, *_: figure if metric == "map" else None)
    assert of_map.points == pytest.approx(17.27728847727172)
    assert (of_map.verdict, of_mrr.verdict, of_mrr.why) == ("mismatch", "not comparable", "nothing published")


def test_the_card_s_table_with_the_printed_digits() -> None:
    done, text = printed(*(result(task, moved=0.01) for task in MAPS))
    assert done
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[1] == "BAAI/bge-reranker-base: published and reproduced"
    rows = [line.split() for line in lines if line.startswith(tuple(MAPS))]
    assert rows[0][:4] == ["T2Reranking", "MAP", "67.27728847727172", "card"]
    assert rows[0][4][:-2] == "67.287288477271"  # the last digits are those of float64
    assert len(rows[0][4]) == len("67.27728847727172")
    assert rows[0][5:] == ["+0.010", "match"]
    assert rows[1][:4] == ["T2Reranking", "MRR", "77.1315192743764", "card"]
    assert len(rows) == 8
    assert all(row[-1] == "match" for row in rows)
    assert "verdict: 8 match, 0 mismatch, 0 not comparable" in lines
    assert "look first" not in text


def test_six_tasks_have_a_published_average() -> None:
    six = [result(task) for task in SIX]
    cells = verdict_cells(six)
    assert [(c.task, c.verdict) for c in cells][-1] == ("Avg", "match")
    assert sum(c.why == "nothing published" for c in cells) == 2  # the cross-language tasks' MRR
    worse = verdict_cells([result(task, moved=-0.2 * (task == "CMedQAv1")) for task in SIX])
    assert worse[-1].verdict == "mismatch"
    limited = verdict_cells([*six[1:], result("T2Reranking", limit=3)])
    assert (limited[-1].verdict, limited[-1].fails) == ("not comparable", False)
    assert verdict_cells(six[:4])[-1].task != "Avg"


def test_a_mismatch_says_what_to_look_at_first() -> None:
    low = PrecisionCheck("bf16", 200, 0.1, 3, 900, -0.004)
    done, text = printed(
        result("CMedQAv1"),
        result(
            "T2Reranking",
            moved=-16.2,
            mrr_moved=-18.8,
            model={"truncation": "only_second", "revision": "0" * 40},
            differences=("pairs 97,000 instead of 97,422",),
            config={"dtype": "bf16", "task": {"source": "mteb"}},
            deviations={"dtype": "bf16", "truncation": "only_second", "revision": "0" * 40, "source": "mteb"},
            precision=low,
            ties={"map": TieRange(0.5, 0.49, 0.51)},
        ),
    )
    assert not done
    looks = text[text.index("look first at:") :].splitlines()[1:]
    assert looks[0] == "  1. the data: T2Reranking has pairs 97,000 instead of 97,422"
    assert looks[1].startswith(
        "  2. T2Reranking: MAP 51.08 is the print of a known mistake: bge-reranker-large loaded as"
    )
    for says in (
        "the recipe: model.revision is '0000",
        "the recipe: model.truncation is 'only_second', the model's own file says 'longest_first'",
        "the layout: task.source=mteb",
        "dtype=bf16: on a sample of T2Reranking MAP moved by -0.40",
        "ties: their order alone can make T2Reranking MAP 49.00 to 51.00",
        "evalkit doctor",
        "backend=torch dtype=fp32",
    ):
        assert says in text, says


def test_the_recipe_is_looked_at_as_it_was_said() -> None:
    """A chosen recipe by its name, not by the fields that it fills in; and that of a model of the user's own too."""
    filled = {"name": "bge-m3", "recipe": "sparse", "max_length": 99, "pooling": "mean"}
    looks = "\n".join(first_looks([result(moved=-1, model=filled, deviations={"recipe": "sparse"})]))
    assert "1. the recipe: model.recipe is 'sparse', which the model's own file does not say" in looks
    assert "max_length" not in looks
    assert "pooling" not in looks
    mine = {"name": "mine", "hub_id": CARD, "max_length": 9}
    looks = "\n".join(first_looks([result(moved=-1, model=mine, deviations={"max_length": 9, "limit": 3})]))
    assert "1. the recipe: model.max_length is 9, which the model's own file does not say" in looks
    assert "limit" not in looks
    assert "the recipe" not in "\n".join(first_looks([result(moved=-1, model=mine)]))  # 9 is its own


def test_a_plain_mismatch_still_says_where_to_look() -> None:
    looks = first_looks([result(moved=-1)])
    assert looks[1].startswith("  1. evalkit doctor")


def test_models_have_a_table_each() -> None:
    _, text = printed(
        result(), result(model={"hub_id": "BAAI/bge-reranker-large", "name": "bge-reranker-large"}, moved=0.3)
    )
    assert text.count("published and reproduced") == 2


def test_a_match_says_what_it_was_made_with() -> None:
    """A figure that is met with other settings, or by the order of ties, is met; the verdict does not keep that to itself."""
    done, text = printed(result(deviations={"max_length": 64}, model={"max_length": 64}))
    assert done
    assert "the figures match, but with:" in text
    assert "the recipe: model.max_length is 64, the model's own file says 512" in " ".join(text.split())
    done, text = printed(result(ties={"map": TieRange(0.6, 0.2, 1.0)}))
    assert done
    assert "ties: their order alone can make T2Reranking MAP 20.00 to 100.00" in " ".join(text.split())
    assert "but with" not in printed(result())[1]
    assert "but with" not in printed(result(moved=-1, deviations={"max_length": 64}))[1]
    assert "but with" not in printed(result(limit=5, deviations={"max_length": 64}))[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_matches_nothing(value: float) -> None:
    done, text = printed(result(scores={"map": value, "mrr": value}))
    assert not done
    assert "0 match, 2 mismatch" in text
