"""What a low precision does to scores, orders and MAP."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from hypothesis import given
from hypothesis import strategies as st
from made_tasks import make_task
from processor import HAS_BF16, HAS_NNCF
from sklearn.metrics import average_precision_score
from task_files import write_jsonl

from evalkit.evaluation.precision import SAMPLE_PAIRS, compare_precisions, sample_of
from evalkit.records import Task

QUERIES = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=6),
    min_size=1,
    max_size=4,
)


def task_of(*sizes: int, positives: int = 1) -> Task:
    groups = [
        ([f"q{number}"], [(f"d{number}-{row}", int(row < positives)) for row in range(size)])
        for number, size in enumerate(sizes)
    ]
    return make_task(*groups)


@given(queries=QUERIES)
def test_flips_and_map_against_counting(queries: list[list[tuple[int, int, int]]]) -> None:
    """Small whole numbers as scores: many ties, which are no flips."""
    queries = [[(1, 0, 0), (0, 1, 1)], *queries]  # one at least that can be scored
    groups = [
        ([f"q{number}"], [(f"d{row}", gain) for row, (gain, _, _) in enumerate(candidates)])
        for number, candidates in enumerate(queries)
    ]
    low, full = (
        np.array([candidate[place] for candidates in queries for candidate in candidates], np.float32)
        for place in (1, 2)
    )
    check = compare_precisions(make_task(*groups), low, full, "bf16")
    flips = compared = 0
    maps: list[list[float]] = []
    for candidates in queries:
        for (_, low_one, full_one), (_, low_two, full_two) in combinations(candidates, 2):
            compared += full_one != full_two
            flips += (low_one - low_two) * (full_one - full_two) < 0
        gains = [gain for gain, _, _ in candidates]
        if len(set(gains)) == 2:  # C-MTEB leaves out what has only one kind
            maps.append([average_precision_score(gains, [one[place] for one in candidates]) for place in (1, 2)])
    assert (check.rank_flips, check.compared) == (flips, compared)
    assert check.largest_difference == max(abs(low - full))
    assert check.map_difference == pytest.approx(np.subtract(*np.mean(maps, axis=0)), abs=1e-12)
    assert (check.dtype, check.pairs) == ("bf16", len(full))


@pytest.mark.parametrize(
    ("sizes", "queries", "pairs"),
    [((50,) * 10, 4, 200), ((30,) * 10, 7, 210), ((7, 500, 3), 2, 507), ((10, 10), 2, 20), ((250, 1), 1, 250)],
)
def test_a_sample_has_enough_pairs(sizes: tuple[int, ...], queries: int, pairs: int) -> None:
    sample = sample_of(task_of(*sizes))
    assert len(sample.requests) == queries
    assert sum(len(request.candidates) for request in sample.requests) == pairs
    assert pairs >= SAMPLE_PAIRS or queries == len(sizes)
    assert SAMPLE_PAIRS == 200


def test_a_sample_has_a_query_that_can_be_scored() -> None:
    groups = [([f"q{n}"], [(f"d{row}", int(n == 3 and row == 0)) for row in range(100)]) for n in range(5)]
    assert len(sample_of(make_task(*groups)).requests) == 4


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("torch", "bf16"),
        *([("openvino", "bf16")] if HAS_BF16 else []),
        *([("openvino", "int8")] if HAS_NNCF else []),
        ("onnx", "int8"),
    ],
)
def test_a_run_in_low_precision_says_what_it_cost(
    backend: str, dtype: str, tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)

    def text() -> str:
        return "".join(generator.choice(list("感冒发烧多喝水苹果银行医生休息"), generator.integers(3, 30)))

    rows = [{"query": text(), "positive": [text()], "negative": [text() for _ in range(24)]} for _ in range(12)]
    folder = write_jsonl(tmp_path / "made" / "test.jsonl", rows).parent
    arguments = (
        "task=local",
        f"task.path={folder}",
        "model=local-cross-encoder",
        f"model.path={tiny_bert_reranker}",
        f"backend={backend}",
        f"cache_dir={tmp_path / 'cache'}",
        f"results_dir={tmp_path / 'results'}",
    )
    contents, tables = {}, {}
    for chosen in (dtype, "fp32"):
        done = run_here(*arguments, f"dtype={chosen}", f"results_dir={tmp_path / chosen}")
        assert done.code == 0, done.stderr
        (path,) = (tmp_path / chosen).rglob("made.json")
        contents[chosen] = json.loads(path.read_text(encoding="utf-8"))["evalkit"]
        tables[chosen] = scores_of(path)
        assert (f"{dtype} against fp32" in done.stdout or dtype in done.stdout) == (chosen == dtype)
    assert contents["fp32"]["precision"] is None
    check = contents[dtype]["precision"]
    assert (check["dtype"], check["pairs"]) == (dtype, 200)
    # what was scored in fp32 for the sample ran in other batches, and is not taken for the run in fp32
    assert contents["fp32"]["timing"]["items_from_store"] == 0
    low, full = (tables[chosen][:200].reshape(8, 25).astype(np.float64) for chosen in (dtype, "fp32"))
    assert check["largest_difference"] == pytest.approx(np.abs(low - full).max(), abs=1e-5)
    assert 0 < check["largest_difference"] < 0.5
    noise = contents[dtype]["noise"]
    assert noise["largest"] == pytest.approx(check["largest_difference"])
    assert noise["source"] == f"{dtype} against fp32 on 200 pairs"
    flips = sum(
        (low[query, one] - low[query, two]) * (full[query, one] - full[query, two]) < 0
        for query in range(8)
        for one, two in combinations(range(25), 2)
    )
    assert check["rank_flips"] == flips > 0
    assert 8 * 290 < check["compared"] <= 8 * 300


def scores_of(path: Path) -> np.ndarray:
    import pandas as pd

    return pd.read_parquet(path.with_name("made.run.parquet"))["score"].to_numpy()
