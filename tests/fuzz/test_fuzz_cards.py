"""Model cards: what is audited in them are the figures that their YAML states, and an update changes nothing else."""

from __future__ import annotations

import json
import math
import tempfile
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from judging import command, fuzzed
from made_results import noisy_scores, ranking_task, write_scores
from mutations import DEEP, NASTY, TEXTS, damaged, mutated

from evalkit.audit.names import task_name
from evalkit.audit.readers import read_figures
from evalkit.report.exports.card import update_card
from evalkit.results.reading import read_result
from evalkit.results.result import Result

KIND = "cards"
FRONT: dict[str, Any] = {
    "license": "mit",
    "tags": ["mteb"],
    "model-index": [
        {
            "name": "bge-reranker-base",
            "results": [
                {
                    "task": {"type": "Reranking"},
                    "dataset": {"type": f"C-MTEB/{task}", "name": f"MTEB {task}", "config": "default", "split": "test"},
                    "metrics": [
                        {"type": "map", "value": 81.27206722525007},
                        {"type": "mrr", "value": 84.14238095238096},
                    ],
                }
                for task in ("CMedQAv1-reranking", "CMedQAv2-reranking")
            ],
        }
    ],
}
BODY = "# A model\n\n| Model | T2Reranking | CMedQAv1 | Avg |\n|:--|--:|--:|--:|\n| me | 67.28 | 81.27 | 74.28 |\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


def card(front: str, body: str = BODY) -> str:
    return f"---\n{front}---\n{body}"


@st.composite
def fronts(draw: st.DrawFn) -> str:
    """YAML of a card, in one of YAML's ways of writing, with changes in what it says and how."""
    text = yaml.safe_dump(
        draw(mutated(FRONT)),
        sort_keys=False,
        allow_unicode=draw(st.booleans()),
        default_flow_style=draw(st.sampled_from([False, False, None, True])),
    )
    how = draw(st.integers(0, 9))
    if how == 0:
        text = draw(damaged(text.encode())).decode("utf-8", "replace")
    elif how == 1:
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + draw(st.sampled_from([BOMB, "&a [*a]", "!!python/name:os.system", "<<: *a\n", "\t", "# note\n", *NASTY]))
            + text[place:]
        )
    elif how == 2:
        text = draw(
            st.sampled_from([BOMB, BOMB + text, "x: " + "[" * draw(DEEP), "? " * 50 + "\n", "a: 2020-13-45\n" + text])
        )
    return text


def stated(front: Any) -> list[tuple[str, str, str]]:
    """Task, metric and digits of every figure of the tasks of FRONT in a model-index, by plain code."""
    found = []
    for entry in as_list(get(front, "model-index")):
        for result in as_list(get(entry, "results")):
            dataset = get(result, "dataset")
            names = [name for name in (get(dataset, "type"), get(dataset, "name")) if isinstance(name, str)]
            task = next(filter(None, map(task_name, names)), "")
            for metric in as_list(get(result, "metrics")):
                kind = get(metric, "type")
                if isinstance(kind, str) and kind.casefold() in ("map", "mrr") and task:
                    found.append((task, kind.casefold(), get(metric, "value")))
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = Decimal(str(value).strip())
        return float(read) if read.is_finite() else None
    except (InvalidOperation, OverflowError, ValueError):
        return None


@fuzzed(KIND, 0.45, front=fronts())
def test_audited_cards(front: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "README.md"
        path.write_bytes(card(front).encode("utf-8", "surrogatepass"))
        command("audit", path, "--json")
        figures = [figure for figure in read_figures(path).figures if figure.kind == "card"]
    expected = stated(yaml.safe_load(front)) if figures else []
    read = [figure for figure in figures if task_name(figure.task) and figure.metric in ("map", "mrr")]
    for figure, (task, metric, value) in zip([one for one in read if one.task != "Avg"], expected, strict=False):
        assert (figure.task, figure.metric) == (task, metric)
        if not math.isnan(figure.value):
            assert math.isclose(
                figure.value * (100 if figure.unit == "percent" else 1), number(value) or 0.0, rel_tol=1e-12
            )


@cache
def results() -> list[Result]:
    with tempfile.TemporaryDirectory() as place:
        task = ranking_task(4)
        result = read_result(write_scores(Path(place) / "results", task, noisy_scores(task), model="scorer"))
        _ = result.queries
        return [result]


@fuzzed(KIND, 0.3, front=fronts(), ends=st.sampled_from(["\n", "\r\n", "\r"]), mark=st.sampled_from(["", "\ufeff"]))
def test_updated_cards(front: str, ends: str, mark: str) -> None:
    text = mark + card(front).replace("\n", ends)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "README.md"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        before = path.read_bytes()
        update_card(results(), path)
        after = path.read_bytes()
        assert after.endswith(BODY.replace("\n", ends).encode())
        update_card(results(), path)
        assert path.read_bytes() == after
    old, new = front_of(before.decode()), front_of(after.decode())
    assert {key: value for key, value in new.items() if key != "model-index"} == {
        key: value for key, value in old.items() if key != "model-index"
    }
    models = new["model-index"]
    assert all(
        one in models for one in old.get("model-index") or [] if get(one, "name") not in ("scorer", "local/scorer")
    )
    values = {
        metric["type"]: metric["value"]
        for model in models
        if get(model, "name") in ("scorer", "local/scorer")
        for entry in model["results"]
        if get(entry["dataset"], "name") == "made"
        for metric in entry["metrics"]
    }
    assert values["map"] == 100 * results()[0].scores["map"] or math.isclose(
        values["map"], 100 * results()[0].scores["map"]
    )


def front_of(text: str) -> dict[str, Any]:
    """What stands between the first two lines of `---`; nothing where the text does not begin with one."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").lstrip().split("\n")
    if lines[0] != "---" or "---" not in [line.rstrip() for line in lines[1:]]:
        return {}
    end = [line.rstrip() for line in lines].index("---", 1)
    return yaml.safe_load("\n".join(lines[1:end])) or {}


CELLS = (
    st.sampled_from(
        ["T2Reranking", "CMedQAv1 (mrr)", "Avg", "model", "task", "MAP", "65.4", "1e99", "nan", "-1", "**1**"]
    )
    | TEXTS
)


@fuzzed(KIND, 0.25, rows=st.lists(st.lists(CELLS, min_size=1, max_size=5), min_size=1, max_size=5), text=TEXTS)
def test_cards_of_tables(rows: list[list[str]], text: str) -> None:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|-" * len(rows[0]) + "|")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "README.md"
        path.write_bytes("\n".join([text, "", *lines]).encode("utf-8", "surrogatepass"))
        found = json.loads(command("audit", path, "--json"))
        command("audit", path)
    assert found["files"][0]["tested"]["figures"] >= 0
