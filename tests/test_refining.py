"""A run in low precision whose order is made fp32's: against the whole run in fp32, on made and on real scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import run_here
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tasks import make_task
from numpy.typing import NDArray
from processor import HAS_BF16, HAS_NNCF
from scipy.special import expit
from task_files import write_jsonl

import evalkit
from benchmarks.refined_queries import judge
from evalkit.backends import auto
from evalkit.errors import EvalkitError
from evalkit.evaluation.precision import FIRST_SAMPLE, LAST_SAMPLE, GradedCandidates, refine_scores
from evalkit.metrics import lists_of_task, score_lists
from evalkit.metrics.measures import all_measures, find_measure, read_measures
from evalkit.models.interfaces import RunnableModel
from evalkit.records import Refinement, Task

MEASURES = all_measures(read_measures(["nDCG@3", "AP(rel=2)", "P@2", "R@3", "RR@5"]))


class FullPrecision:
    """Gives fp32 scores, and counts who was asked for."""

    def __init__(self, full: NDArray[np.float32]) -> None:
        self.full = full
        self.asked: list[int] = []

    def __call__(self, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        assert len(np.unique(candidates)) == len(candidates)
        self.asked += candidates.tolist()
        return self.full[candidates]


def refined(task: Task, low: Any, full: Any, seed: int = 0) -> tuple[NDArray[np.float32], Refinement]:
    score = FullPrecision(np.asarray(full, np.float32))
    candidates = GradedCandidates.of(task, np.asarray(low, np.float32))
    scores, marked, refinement = refine_scores(candidates, score, "bf16", seed)
    assert len(set(score.asked)) == len(score.asked) == refinement.again, "each pair is scored once"
    again = np.isin(np.arange(len(scores)), score.asked)
    assert np.array_equal(marked, again)
    assert np.array_equal(scores[again], score.full[again])
    return scores, refinement


def values(task: Task, scores: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    return dict(score_lists(lists_of_task(task, scores), MEASURES).values)


def random_task(generator: np.random.Generator, queries: int, most: int, grades: int) -> Task:
    return make_task(
        *(
            ([f"q{number}"], [(f"d{number}-{row}", int(generator.integers(0, grades))) for row in range(size)])
            for number, size in enumerate(generator.integers(2, most, queries))
        )
    )


def assert_same(task: Task, scores: NDArray[np.float32], full: NDArray[np.float32]) -> None:
    """Each measure of each query, and its expectation, lowest and highest value over orders of tied documents."""
    expected, found = (score_lists(lists_of_task(task, each), MEASURES) for each in (full, scores))
    for name, amounts in expected.values.items():
        np.testing.assert_allclose(found.values[name], amounts, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(found.tie_values[name], expected.tie_values[name], atol=1e-12, err_msg=name)
    for name, ties in expected.ties.items():
        assert found.ties[name] == pytest.approx(ties, abs=1e-12), name


@pytest.mark.parametrize("grades", [2, 4])
@pytest.mark.parametrize("steps", [8, 64, 1024])
def test_every_measure_of_every_query_is_that_of_fp32(grades: int, steps: int) -> None:
    """Low precision that rounds to whole steps, as floating point does: many ties and near ties, within and between gains."""
    generator = np.random.default_rng([grades, steps])
    for seed in range(20):
        task = random_task(generator, 60, 30, grades)
        full = generator.normal(0, 2, task.statistics.pairs).astype(np.float32)
        low = np.round(full * steps) / steps
        scores, refinement = refined(task, low, full, seed)
        assert_same(task, scores, full)
        assert not np.array_equal(scores, full) or not refinement.left
        assert np.abs(low - full).max() <= refinement.epsilon * 1.0001 or refinement.left


def test_what_is_far_apart_is_not_scored_again() -> None:
    task = make_task(*(([f"q{n}"], [(f"d{n}-{row}", int(row == 0)) for row in range(10)]) for n in range(300)))
    full = np.tile([5.0, *np.linspace(-5, 0, 9)], 300).astype(np.float32)
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, len(full)).astype(np.float32)
    scores, refinement = refined(task, full + noise, full)
    first, last = (min(bounds[1], max(bounds[0], 3_000 // 100)) for bounds in (FIRST_SAMPLE, LAST_SAMPLE))
    assert refinement.again == first + last
    assert (refinement.tested, refinement.rounds, refinement.left) == (last, 0, 3_000 - first - last)
    assert_same(task, scores, full)


def test_the_rarer_gain_is_scored_first() -> None:
    """One relevant document among many that lie just outside its own noise: once its score is known, they are not asked for."""
    rows = [*[("p", 1)], *[(f"n{row}", 0) for row in range(40)]]
    task = make_task(*(([f"q{n}"], [(f"{name}-{n}", gain) for name, gain in rows]) for n in range(60)))
    full = np.tile([0.0, *[-0.018] * 40], 60).astype(np.float32)
    low = full + np.tile([-0.001, *[0.0] * 40], 60) + np.where(np.arange(len(full)) % 97 == 0, 0.01, 0)
    scores, refinement = refined(task, low, full)
    assert refinement.again < 0.25 * len(full)
    assert_same(task, scores, full)


def far(count: int) -> list[tuple[str, int]]:
    return [(f"x{number}", 0) for number in range(count)]


def test_relevant_documents_that_rounding_ties_are_scored_again() -> None:
    """Tied at one threshold they would share it, which changes C-MTEB's average precision."""
    task = make_task((["q"], [("a", 1), ("n", 0), ("b", 1), ("c", 1), ("m", 0), *far(300)]))
    rest = np.linspace(-40, -30, 300)
    full = np.array([-11.03, -10.5, -11.08, -10.0, -11.2, *rest], np.float32)
    low = np.array([-11.0625, -10.5, -11.0625, -10.0, -11.1875, *np.round(rest * 16) / 16])
    scores, _ = refined(task, low, full, 3)
    assert scores[[0, 2]].tolist() == full[[0, 2]].tolist()
    assert_same(task, scores, full)
    tied = values(task, low.astype(np.float32))["map"] != values(task, full)["map"]
    assert tied.any(), "low precision alone gives another figure"


@pytest.mark.parametrize(
    ("full", "low"),
    [
        # equal logits, of which the rounding of low precision moves one, or both
        ([2.0, 1.0, 1.0], [2.0, 1.0, 1.015625]),
        ([2.0, 1.0, 1.0], [2.0, 1.0078125, 0.9921875]),
        # a saturated sigmoid: 0 in float32
        ([0.5, *expit(np.array([-104.5, -120], np.float32))], [0.5, 0.0, 0.0009765625]),
        # cosines of nearly the same vectors
        ([0.96875, 0.8984375, 0.8984375], [0.97, 0.8945, 0.9023]),
    ],
)
@pytest.mark.parametrize("grade", [1, 3])
def test_relevant_documents_that_fp32_ties_and_low_precision_does_not(
    full: list[float], low: list[float], grade: int
) -> None:
    """A threshold that both share is 2/3 for each; two thresholds are 1/2 and 2/3."""
    task = make_task((["q"], [("n", 0), ("one", grade), ("other", grade), *far(120)]))
    rest = np.linspace(-30, -10, 120)
    scores, _ = refined(task, [*low, *(rest + 0.02)], [*full, *rest])
    assert_same(task, scores, np.array([*full, *rest], np.float32))
    assert values(task, scores)["map"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("step", [2**-3, 2**-10])
def test_ties_that_are_planted_in_fp32_and_in_low_precision(step: float) -> None:
    """Among all gains: low precision is off by one step or none, so that it makes ties, and takes others apart."""
    generator = np.random.default_rng(int(1 / step))
    unlike = refined_runs = 0
    for seed in range(24):
        task = random_task(generator, 40, 14, 2 + seed % 3)
        pairs = task.statistics.pairs
        full = (generator.integers(-12, 12 * (1 + seed % 4), pairs) * step).astype(np.float32)
        low = (full + generator.integers(-1, 2, pairs) * step).astype(np.float32)
        scores, refinement = refined(task, low, full, seed)
        assert refinement.epsilon >= step
        assert_same(task, scores, full)
        refined_runs += refinement.left > 0
        unlike += bool(np.any(values(task, low)["map"] != values(task, full)["map"]))
    assert refined_runs > 16
    assert unlike == 24


def test_only_ties_that_take_effect_are_looked_for() -> None:
    """Relevant ones near each other are not scored again above all irrelevant ones, nor where one of another gain lies between."""
    rows = [("a", 1), ("b", 1), ("n", 0), ("c", 2), ("m", 0), ("d", 2), *((f"x{row}", 0) for row in range(6))]
    task = make_task(*(([f"q{query}"], [(f"{name}-{query}", gain) for name, gain in rows]) for query in range(100)))
    full = np.tile([9.0, 9.01, 5, 3, 2.95, 2.9, *np.linspace(-9, -5, 6)], 100).astype(np.float32)
    low = full + np.random.default_rng(2).choice([-0.01, 0.01], len(full)).astype(np.float32)
    scores, refinement = refined(task, low, full)
    first, last = (min(bounds[1], max(bounds[0], 1_200 // 100)) for bounds in (FIRST_SAMPLE, LAST_SAMPLE))
    assert refinement.again == first + last
    assert_same(task, scores, full)


@pytest.mark.parametrize("above", [2.0, 0.0])
def test_relevant_documents_that_fp32_ties_stay_tied(above: float) -> None:
    """As texts do that differ behind what the model reads; where nothing of a lower gain is above them, it makes no difference."""
    task = make_task((["q"], [("n", 0), ("pos one", 1), ("pos one ", 1), *far(120)]))
    full = np.array([above, 1.0, 1.0, *np.linspace(-30, -10, 120)], np.float32)
    low = full + np.array([0, 0, 0, *[0.008] * 120])
    scores, _ = refined(task, low, full)
    assert_same(task, scores, full)


def test_ties_with_one_text_that_is_listed_twice() -> None:
    task = make_task((["q"], [("n", 0), ("same", 1), ("same", 1), ("c", 1), *far(120)]))
    rest = np.linspace(-30, -10, 120)
    full, low = np.array([2, 1, 1, 1.001, *rest], np.float32), np.array([2, 1.001, 1.001, 1, *(rest + 0.008)])
    assert_same(task, refined(task, low, full)[0], full)


def test_scores_at_the_end_of_float32() -> None:
    """Which no step moves apart."""
    largest = float(np.finfo(np.float32).max)
    task = make_task((["q"], [("a", 1), ("b", 1), ("c", 1), ("n", 0), *far(100)]))
    full = np.array([largest, largest, 1, largest, *np.linspace(-30, -10, 100)], np.float32)
    low = np.array([largest, largest, 1, largest, *(np.linspace(-30, -10, 100) + 0.01)])
    assert_same(task, refined(task, low, full)[0], full)


def test_relevant_documents_crowded_at_the_steps_of_float32() -> None:
    """Their differences are as small as float32's steps are."""
    generator = np.random.default_rng(37)
    for seed in range(10):
        task = random_task(generator, 30, 25, 2)
        full = (16_384 + generator.integers(0, 60, task.statistics.pairs) / 512).astype(np.float32)
        low = full + generator.integers(-1, 2, len(full)) / 512
        scores, refinement = refined(task, low, full, seed)
        if np.abs(low - full).max() <= refinement.epsilon:
            assert_same(task, scores, full)


def test_equal_items_stay_equal_and_are_scored_together() -> None:
    task = make_task((["q"], [("same", 1), ("same", 1), ("other", 0), ("same", 0), *((f"x{n}", 0) for n in range(80))]))
    full = np.array([1.0, 1.0, 0.9, 1.0, *np.linspace(-9, -5, 80)], np.float32)
    low = full + np.array([0.06, 0.06, 0.1, 0.06, *[0.02] * 80], np.float32)
    scores, _ = refined(task, low, full)
    assert scores[0] == scores[1] == scores[3] == 1.0
    assert_same(task, scores, full)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_scored_again(wrong: float) -> None:
    task = make_task((["q"], [("a", 1), ("b", 0), *((f"x{n}", 0) for n in range(200))]))
    full = np.array([1.0, 2.0, *np.linspace(-9, -5, 200)], np.float32)
    low = full.copy()
    low[1] = wrong
    scores, refinement = refined(task, low + np.float32(0.001), full)
    assert scores[1] == 2.0
    assert refinement.epsilon < 0.01
    assert_same(task, scores, full)


def test_a_sample_at_the_end_finds_what_the_first_did_not() -> None:
    """A tenth of the pairs are far off, and so far from everything else that nothing asks for them."""
    generator = np.random.default_rng(5)
    task = make_task(*(([f"q{n}"], [(f"d{n}-{row}", int(row == 0)) for row in range(10)]) for n in range(400)))
    full = np.tile([5.0, *[-5.0] * 9], 400).astype(np.float32)
    off = generator.random(len(full)) < 0.1
    scores, refinement = refined(task, full + 0.01 * ~off + 2 * off, full)
    assert refinement.epsilon >= 1.99
    assert_same(task, scores, full)


CANDIDATE = st.tuples(st.integers(0, 2), st.integers(-6, 6), st.integers(-1, 1))  # gain, score in fp32, noise


@settings(max_examples=60)
@given(st.lists(st.lists(CANDIDATE, min_size=1, max_size=7), min_size=1, max_size=6), st.integers(0, 3))
def test_small_whole_numbers(queries: list[list[tuple[int, int, int]]], seed: int) -> None:
    task = make_task(
        *(([f"q{n}"], [(f"d{row}", gain) for row, (gain, _, _) in enumerate(one)]) for n, one in enumerate(queries))
    )
    full = np.array([score for one in queries for _, score, _ in one], np.float32)
    low = full + np.array([noise for one in queries for _, _, noise in one])
    scores, refinement = refined(task, low, full, seed)
    if not refinement.left or np.abs(low - full).max() <= refinement.epsilon:
        for request, start in zip(task.requests, np.cumsum([0, *map(len, queries)]), strict=False):
            here = slice(int(start), int(start) + len(request.candidates))
            gains = np.array([candidate.gain for candidate in request.candidates])
            different = gains[:, None] != gains[None]
            order, expected = (np.sign(one[here, None] - one[None, here]) for one in (scores, full))
            assert (order == expected)[different].all()


def test_the_same_seed_gives_the_same_scores() -> None:
    generator = np.random.default_rng(1)
    task = random_task(generator, 50, 20, 2)
    full = generator.normal(0, 2, task.statistics.pairs).astype(np.float32)
    low = np.round(full * 32) / 32
    one, two = (refined(task, low, full, 7) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert one[1] == two[1]


def made_rows(queries: int = 12, documents: int = 25) -> list[dict[str, Any]]:
    generator = np.random.default_rng(1)

    def text() -> str:
        return "".join(generator.choice(list("感冒发烧多喝水苹果银行医生休息"), generator.integers(3, 30)))

    return [
        {"query": text(), "positive": [text(), text()], "negative": [text() for _ in range(documents - 2)]}
        for _ in range(queries)
    ]


def value_columns(result: Any) -> list[str]:
    columns = [find_measure(name).column for name in result.scores]
    assert len(columns) > 10
    return columns


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("torch", "bf16"),
        *([("openvino", "bf16")] if HAS_BF16 else []),
        *([("openvino", "int8")] if HAS_NNCF else []),
        ("onnx", "int8"),
    ],
)
def test_a_refined_run_of_a_cross_encoder(backend: str, dtype: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path / "made" / "test.jsonl", made_rows()).parent
    task = evalkit.load_task(path=folder)

    def run(dtype: str, **how: Any) -> Any:
        model = evalkit.load_model(str(tiny_bert_reranker), backend=backend, dtype=dtype, cache_dir=tmp_path / "cache")
        return evalkit.evaluate(model, task, **how)

    full, low, again = run("fp32", cache="off"), run(dtype), run(dtype, refine="fp32")
    assert again.refinement.pairs == 300 > again.refinement.again > 0
    assert again.precision is None
    assert again.experiment.endswith("refine-fp32") or "refine-fp32" in again.experiment
    columns = value_columns(full)
    for name in columns:
        # of fp32's own batches: no score is so near to another's that they would matter here
        np.testing.assert_allclose(again.queries[name], full.queries[name], atol=1e-9, err_msg=name)
    assert any((low.queries[name] != full.queries[name]).any() for name in columns), "low precision alone differs"
    stored = run(dtype, refine="fp32")
    assert stored.timing.items_from_store == stored.usage.items
    assert stored.candidates["score"].tolist() == again.candidates["score"].tolist()
    assert stored.refinement == again.refinement
    # a whole run in fp32 does not take what was made for a refined one
    assert run("fp32").timing.items_from_store == 0


def test_a_refined_run_of_an_embedder(tmp_path: Path, e5_small: Path) -> None:
    folder = write_jsonl(tmp_path / "made" / "test.jsonl", made_rows()).parent
    task = evalkit.load_task(path=folder)

    def run(dtype: str, **how: Any) -> Any:
        model = evalkit.load_model(
            "local-embedder",
            path=e5_small,
            pooling="cls",
            backend="torch",
            dtype=dtype,
            cache_dir=tmp_path / "cache",
        )
        return evalkit.evaluate(model, task, **how)

    full, again = run("fp32", cache="off"), run("bf16", refine="fp32")
    assert again.refinement.again < again.refinement.pairs
    for name in value_columns(full):
        np.testing.assert_allclose(again.queries[name], full.queries[name], atol=1e-9)


def test_the_command_says_what_was_scored_again_and_where_the_result_lies(
    tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    folder = write_jsonl(tmp_path / "made" / "test.jsonl", made_rows(40)).parent
    words = (
        "task=local",
        f"task.path={folder}",
        f"model={tiny_bert_reranker}",
        "backend=torch",
        f"cache_dir={tmp_path / 'cache'}",
        f"results_dir={tmp_path / 'results'}",
    )
    done = run_here(*words, "dtype=bf16", "refine=fp32")
    assert done.code == 0, done.stderr
    assert "of 1,000 pairs" in done.stdout
    assert "were scored again in fp32, for differences of bf16 of up to" in done.stdout
    assert "random pairs of the others: at 95 % fewer than" in " ".join(done.stdout.split())
    assert "exact" not in done.stdout
    (path,) = (tmp_path / "results").rglob("made.json")
    assert "experiments/" in str(path)
    content = json.loads(path.read_text(encoding="utf-8"))["evalkit"]
    assert content["deviations"]["refine"] == content["config"]["refine"] == "fp32"
    assert content["refinement"]["dtype"] == "bf16"
    assert 0 < pd.read_parquet(path.with_name("made.run.parquet"))["refined"].sum() == content["refinement"]["again"]
    run = path.with_name("made.run.parquet")
    for where in (("model=run", f"model.path={run}"), ("model=bm25", f"task.candidates={run}")):
        refused = run_here(*words[:2], *where, f"results_dir={tmp_path / 'other'}")
        assert (refused.code, "its scores are of two precisions" in refused.stderr) == (2, True), refused.stderr
    refused = run_here("report", str(tmp_path / "results"), "--format", "trec", "--output", str(tmp_path / "trec"))
    assert (refused.code, "its scores are of two precisions" in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=random", "refine=fp32"), "refine=fp32 has no effect on baseline"),
        (("model=multilingual-e5-small-q4", "refine=fp32"), "has no effect with dtype=fp32"),
        (("model=bge-reranker-base", "backend=tei", "backend.url=http://127.0.0.1:9", "refine=fp32"), "backend=tei"),
        (("model=bm25", "refine=bf16"), "refine"),
    ],
)
def test_what_can_not_be_refined_is_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run_here("task=demo", *words, f"results_dir={tmp_path}", "offline=true")
    assert done.code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"fp32": 1.0, "bf16": 0.4, "int8": 0.3}, "bf16"),  # 0.55 beside 0.8
        ({"fp32": 1.0, "bf16": 0.9, "int8": 0.1}, "fp32"),  # int8 is not asked where there is bf16
        ({"fp32": 1.0, "int8": 0.2}, "int8"),  # where there is no other
    ],
)
def test_the_precision_in_which_a_refined_run_is_fastest(
    seconds: dict[str, float], chosen: str, tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of a probe in each precision there is, which is taken once and remembered."""
    timed: list[str] = []

    def probe_seconds(model: RunnableModel, _: object) -> float:
        dtype = str(model.description["dtype"])
        timed.append(dtype)
        if dtype not in seconds:
            raise (RuntimeError if dtype == "fp16" else EvalkitError)("no such precision here, or a converter fails")
        return seconds[dtype]

    monkeypatch.setattr(auto, "_probe_seconds", probe_seconds)
    task = evalkit.load_task(path=write_jsonl(tmp_path / "made" / "test.jsonl", made_rows(30)).parent)
    for times in (1, 2):
        model = evalkit.load_model(str(tiny_bert_reranker), dtype="auto", cache_dir=tmp_path / "cache")
        assert model.runtime.dtype == chosen
        assert timed.count("fp32") == 1, times
    assert ("int8" in timed) == ("bf16" not in seconds)
    assert f"{chosen} " in model.precision_chosen
    if chosen == "bf16" and not HAS_BF16:
        return
    result = evalkit.evaluate(model, task, refine="fp32")
    assert result.config["dtype"] == chosen
    assert result.backend["dtype_chosen"] == model.precision_chosen
    assert (result.refinement is None) == (chosen == "fp32")
    assert result.deviations == ({} if chosen == "fp32" else {"dtype": chosen, "refine": "fp32"})
    with pytest.raises(EvalkitError, match="dtype=auto chooses by speed, for runs that are refined"):
        evalkit.evaluate(model, task)


def test_the_command_chooses_a_precision(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path / "made" / "test.jsonl", made_rows(10)).parent
    words = ("task=local", f"task.path={folder}", f"model={tiny_bert_reranker}", "dtype=auto")
    places = (f"cache_dir={tmp_path / 'cache'}", f"results_dir={tmp_path / 'results'}")
    done = run_here(*words, "refine=fp32", *places)
    assert done.code == 0, done.stderr
    assert "dtype=auto takes " in done.stderr
    (path,) = (tmp_path / "results").rglob("made.json")
    content = json.loads(path.read_text(encoding="utf-8"))["evalkit"]
    assert content["config"]["dtype"] in ("fp32", "bf16", "fp16", "int8")
    assert "relative to fp32: fp32 1.00" in content["backend"]["dtype_chosen"]
    refused = run_here(*words, *places)
    assert (refused.code, "say refine=fp32 too" in refused.stderr) == (2, True)
    refused = run_here(*words, "refine=fp32", "runner=ray", *places)
    assert (refused.code, "dtype=auto times this machine" in refused.stderr) == (2, True)


def test_an_object_in_memory_is_not_refined() -> None:
    model = evalkit.wrap(lambda pairs: [0.0] * len(pairs), kind="cross-encoder", name="mine")
    with pytest.raises(EvalkitError, match="refine=fp32 has no effect on an object in memory"):
        evalkit.evaluate(model, make_task((["q"], [("a", 1), ("b", 0)])), refine="fp32")


@pytest.mark.parametrize(
    ("found", "own", "expected"),
    [
        ([3.0, 2.0, 1.0, 0.5], 0.0, (1, 0, 0)),
        # other scores in fp32's order, and the two that are irrelevant in another
        ([30.0, 20.0, 0.1, 0.2], 0.0, (1, 0, 0)),
        # the relevant one and the next in another order, where fp32's own noise of 0.6 can put them, and where it can't
        ([3.0, 1.0, 2.0, 0.5], 0.6, (0, 1, 0)),
        ([3.0, 1.0, 2.0, 0.5], 0.4, (0, 0, 1)),
        # further down than that noise can put it, though the band has room
        ([3.0, 0.1, 2.0, 0.5], 0.6, (0, 0, 1)),
    ],
)
def test_how_the_benchmark_judges_a_query(found: list[float], own: float, expected: tuple[int, int, int]) -> None:
    task = make_task((["q"], [("n", 0), ("p", 1), ("m", 0), ("o", 0)]))
    full = np.array([3.0, 2.0, 1.0, 0.5], np.float32)
    assert judge(task, full, np.array(found, np.float32), own) == expected
