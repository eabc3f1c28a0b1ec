"""`evalkit check` end to end: what was done to a result, and the verdict and exit code that the statistics justify."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from checked import EQUAL, SCORES, TASK, check, off_by_one, root, suites, values, verdicts
from command import run_here, run_program
from made_results import (
    change_table,
    noisy_scores,
    ranking_task,
    shuffled,
    table_of,
    write_scores,
)
from markdown_it import MarkdownIt

from evalkit.check.rows import CheckVerdict


def expected(before: np.ndarray, after: np.ndarray, tolerance: float = 0.1, alpha: float = 0.01) -> str:
    """The verdict by scipy's own test."""
    differences = after - before
    test = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9_999, vectorized=True, random_state=1
    )
    assert not 0.8 * alpha < test.pvalue < 1.25 * alpha, "too near alpha: another seed of 10,000 may decide otherwise"
    points = 100 * differences.mean()
    if test.pvalue >= alpha:
        return "changed, but not distinguishable from noise"
    if abs(points) <= tolerance:
        return "within tolerance"
    return "better" if points > 0 else "regression"


@pytest.mark.parametrize(
    ("share", "seed", "code", "verdict"),
    [
        (0.01, 1, 0, "changed, but not distinguishable from noise"),
        (0.05, 1, None, None),
        (0.05, 2, None, None),
        (0.2, 1, 1, "regression"),
    ],
)
def test_shuffled_scores(
    share: float, seed: int, code: int | None, verdict: str | None, written: Path, tmp_path: Path
) -> None:
    """The verdict is that of scipy's test; 3 of 300 queries can't be told from noise, 60 can."""
    scores = shuffled(SCORES, share, seed)
    write_scores(tmp_path / "now", TASK, scores)
    done = check(root(written), tmp_path / "now")
    before, after = values(SCORES), values(scores)
    wanted = {metric: expected(before[metric], after[metric]) for metric in before}
    assert verdicts(done) == wanted
    assert re.search(r" [0-9a-f]{12} → [0-9a-f]{12} ", done.stdout)
    assert done.code == (1 if "regression" in wanted.values() else 0)
    if verdict:
        assert (done.code, set(wanted.values())) == (code, {verdict})
    for metric in before:
        old, new = (100 * found[metric].mean() for found in (before, after))
        assert re.search(rf"{metric} .* {old:.2f} +{new:.2f} +{re.escape(f'{new - old:+.2f}')} ", done.stdout)
        assert f"{(np.abs(after[metric] - before[metric]) > 1e-6).sum()} of 300" in done.stdout
    if share == 0.01:
        assert check(root(written), tmp_path / "now", "--strict").code == 1


def test_better_and_within_tolerance(written: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "worse", TASK, shuffled(SCORES, 0.2, 1))
    done = check(tmp_path / "worse", root(written))
    assert (done.code, set(verdicts(done).values())) == (0, {"better"})
    tolerant = check(root(written), tmp_path / "worse", "--tolerance", "50")
    assert (tolerant.code, set(verdicts(tolerant).values())) == (0, {"within tolerance"})
    assert check(root(written), tmp_path / "worse", "--tolerance", "50", "--strict").code == 1


def test_a_metric_off_by_one(folders: tuple[Path, Path]) -> None:
    """The scores are the same, which excuses nothing: the values are not what they give."""
    baseline, path = folders
    change_table(path, off_by_one)
    done = check(baseline, root(path))
    assert (done.code, verdicts(done)) == (1, {"map": "regression", "mrr": "regression"})
    assert done.stderr == ""


def test_only_the_mean_reciprocal_rank_off_by_one(folders: tuple[Path, Path]) -> None:
    baseline, path = folders
    change_table(path, lambda table: table.assign(rr=off_by_one(table)["rr"]))
    done = check(baseline, root(path))
    assert (done.code, verdicts(done)) == (1, {"map": "equal", "mrr": "regression"})


def test_equal_results(folders: tuple[Path, Path]) -> None:
    baseline, path = folders
    done = check(baseline, root(path), "--strict", "--tolerance", "0")
    assert (done.code, verdicts(done), done.stderr) == (0, EQUAL, "")


def test_any_change_fails_when_strict(folders: tuple[Path, Path]) -> None:
    """Two queries swap their values, which leaves the mean alone."""
    baseline, path = folders

    def swap(table: pd.DataFrame) -> pd.DataFrame:
        first, second = table["ap"].idxmax(), table["ap"].idxmin()
        ap = table["ap"].copy()
        ap[first], ap[second] = ap[second], ap[first]
        return table.assign(ap=ap)

    change_table(path, swap)
    done = check(baseline, root(path))
    noise = "changed, but not distinguishable from noise"
    assert (done.code, verdicts(done)) == (0, EQUAL | {"map": noise})
    strict = check(baseline, root(path), "--strict")
    assert (strict.code, verdicts(strict)) == (1, EQUAL | {"map": f"{noise} (fails --strict)"})


def test_other_scores_that_give_the_same_values(written: Path, tmp_path: Path) -> None:
    write_scores(tmp_path / "now", TASK, (SCORES * 1.001).astype(np.float32))
    done = check(root(written), tmp_path / "now")
    assert (done.code, set(verdicts(done).values())) == (0, {CheckVerdict.OTHER_SCORES})
    assert check(root(written), tmp_path / "now", "--strict").code == 1


def test_a_loss_that_so_few_queries_cannot_show(written: Path, tmp_path: Path) -> None:
    """Seven signs give no p below 2 / 2^7 = 0.016."""
    worst = SCORES.copy()
    good = np.flatnonzero(values(SCORES)["map"] == 1)[:7]
    worst[good] = -worst[good]
    write_scores(tmp_path / "now", TASK, worst)
    done = check(root(written), tmp_path / "now")
    assert (done.code, set(verdicts(done).values())) == (0, {CheckVerdict.NOISE})
    assert "7 changed queries are too few for p < 0.01, which takes 8" in done.stdout
    assert check(root(written), tmp_path / "now", "--alpha", "0.02").code == 1


def test_mteb_v2(tmp_path: Path) -> None:
    for folder, scores in (("baseline", SCORES), ("now", shuffled(SCORES, 0.2, 1))):
        write_scores(tmp_path / folder, TASK, scores, protocol="mteb-v2")
    done = check(tmp_path / "baseline", tmp_path / "now")
    assert done.code == 1
    assert re.findall(r"(map_at_1000|mrr_at_10) .*(regression)", done.stdout) == [
        ("map_at_1000", "regression"),
        ("mrr_at_10", "regression"),
    ]


def test_names_of_any_kind(tmp_path: Path) -> None:
    model, name = "模型 <a> & \"b\" | 'c' [d]", "任务 <a> & \"b\" | 'c' [d]"
    task = ranking_task(20, name)
    for folder, scores in (("baseline", noisy_scores(task)), ("now", -noisy_scores(task))):
        write_scores(tmp_path / folder, task, scores, model)
    reports = ("--junit", str(tmp_path / "junit.xml"), "--summary", str(tmp_path / "summary.md"))
    done = check(tmp_path / "baseline", tmp_path / "now", *reports)
    assert (done.code, done.stdout.count(f"{model}  {name}  ")) == (1, 2)
    cases = suites(tmp_path / "junit.xml").getElementsByTagName("testcase")
    assert [case.getAttribute("classname") for case in cases] == [model] * 2
    assert [case.getAttribute("name") for case in cases] == [f"{name} map", f"{name} mrr"]
    table = MarkdownIt("commonmark").enable("table").render((tmp_path / "summary.md").read_text(encoding="utf-8"))
    assert (
        table.count(html.escape(model).replace("&#x27;", "'"))
        == table.count(html.escape(name).replace("&#x27;", "'"))
        == 2
    )


def test_reports_are_written_when_it_fails(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The XML replaces an older one, the summary is appended to: the steps of a job share that file."""
    baseline, path = folders
    change_table(path, off_by_one)
    junit, summary = tmp_path / "reports" / "junit.xml", tmp_path / "summary.md"
    summary.write_text("another step's\n\n", encoding="utf-8")
    for _ in range(2):
        done = check(baseline, root(path), "--junit", str(junit), "--summary", str(summary))
        assert done.code == 1
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("another step's\n\n### evalkit check failed: 2 regression\n")
    assert text.count("### evalkit check failed") == 2
    read = suites(junit)
    assert dict(read.attributes.items()) == {
        "name": "evalkit check",
        "tests": "2",
        "failures": "2",
        "errors": "0",
        "skipped": "0",
    }
    (case,) = (case for case in read.getElementsByTagName("testcase") if case.getAttribute("name") == "made map")
    (failure,) = case.getElementsByTagName("failure")
    assert (case.getAttribute("classname"), failure.getAttribute("type")) == ("scorer", "regression")
    value = json.loads(path.read_text(encoding="utf-8"))["scores"]["test"][0]["map"]
    assert re.match(rf"regression: [\d.]+ → {value * 100:.2f} \(", failure.getAttribute("message"))


def test_as_a_program_in_a_pipe(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """It prints the same, whole, and imports none of the heavy parts."""
    baseline, path = folders
    change_table(path, off_by_one)
    arguments = ("check", "--baseline", str(baseline), "--results", str(root(path)))
    done = run_program(tmp_path, *arguments)
    assert (done.code, done.stdout) == (1, run_here(*arguments).stdout)
    loaded = (
        "import sys; from evalkit.commands.main import run_command_line as run; "
        "run(sys.argv[1:]); print(*sys.modules, sep='\\n')"
    )
    modules = run_program(tmp_path, *arguments, program=(sys.executable, "-c", loaded)).stdout.splitlines()
    assert "pandas" in modules
    assert {"torch", "transformers", "mteb", "hydra", "datasets"}.isdisjoint(modules)


def test_a_reader_that_leaves_early_does_not_change_the_verdict(folders: tuple[Path, Path]) -> None:
    baseline, path = folders
    change_table(path, off_by_one)
    command = [sys.executable, "-m", "evalkit", "check", "--baseline", str(baseline), "--results", str(root(path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=120) == 1


def test_one_sentinel_makes_no_loss_noise(tmp_path: Path) -> None:
    """20 queries; the baseline has -1e6 for one document; then every list is turned round."""
    task = ranking_task(20)
    scores = noisy_scores(task)
    scores[0, -1] = -1e6
    write_scores(tmp_path / "baseline", task, scores)
    write_scores(tmp_path / "now", task, -noisy_scores(task))
    done = check(tmp_path / "baseline", tmp_path / "now")
    assert (done.code, set(verdicts(done).values())) == (1, {"regression"})


def test_it_says_what_it_could_have_seen(written: Path, tmp_path: Path) -> None:
    """The smallest loss stands beside every test, in the table, in the summary and as a fraction in JSON."""
    write_scores(tmp_path / "now", TASK, shuffled(SCORES, 0.2, 1))
    options = ("--summary", str(tmp_path / "summary.md"), "--json", str(tmp_path / "check.json"))
    done = check(root(written), tmp_path / "now", *options)
    rows = json.loads((tmp_path / "check.json").read_text("utf-8"))["rows"]
    before, after = values(SCORES), values(shuffled(SCORES, 0.2, 1))
    for row in rows:
        differences = after[row["metric"]] - before[row["metric"]]
        spread = differences.std(ddof=1) / np.sqrt(300)
        quantiles = scipy.stats.t.ppf([0.995, 0.8], 299).sum()
        assert row["change"]["detectable"] == pytest.approx(quantiles * spread)
        assert re.search(rf"{row['metric']} .* {100 * quantiles * spread:.2f} +\d+ of 300", done.stdout)
    said = "detectable: the smallest true loss (points) that such a test finds at p < 0.01 with a chance of 80 %"
    assert said in done.stdout
    assert html.escape("with a chance of 80 %") in (tmp_path / "summary.md").read_text("utf-8")


def test_json_in_place_of_the_table_and_beside_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    baseline, path = folders
    change_table(path, off_by_one)
    table, printed = check(baseline, root(path)), check(baseline, root(path), "--json")
    content = json.loads(printed.stdout)
    assert (printed.code, content["passed"]) == (1, False)
    assert content["rules"] == {"tolerance": 0.1, "alpha": 0.01, "strict": False}
    assert [(row["metric"], row["verdict"], row["outcome"]) for row in content["rows"]] == [
        ("map", "regression", "failed"),
        ("mrr", "regression", "failed"),
    ]
    beside = check(baseline, root(path), f"--json={tmp_path / 'c.json'}")
    assert (beside.code, beside.stdout) == (1, table.stdout)
    assert (tmp_path / "c.json").read_text("utf-8") == printed.stdout
    assert check(baseline, root(path), f"--json={tmp_path / 'c.json'}").code == 1  # its own is replaced
    refused = check(baseline, root(path), f"--json={path}")
    assert (refused.code, refused.stdout) == (2, "")
    assert "would replace a result" in refused.stderr
    equal = check(baseline, shutil.copytree(baseline, tmp_path / "equal"), "--json")
    assert (equal.code, json.loads(equal.stdout)["passed"]) == (0, True)
    assert json.loads(equal.stdout)["rows"][0]["change"]["p_value"] is None


@pytest.mark.parametrize(("alpha", "level"), [("0.01", 99), ("0.05", 95), ("0.2", 80)])
def test_the_interval_is_of_the_level_of_the_test(alpha: str, level: int, tmp_path: Path) -> None:
    """In the table, in the summary, in JUnit and in JSON; wider where the test is stricter."""
    baseline = write_scores(tmp_path / "baseline", TASK, SCORES)
    now = write_scores(tmp_path / "now", TASK, shuffled(SCORES, 0.1, seed=1))
    files = {name: tmp_path / f"check.{name}" for name in ("md", "xml", "json")}
    options = ("--summary", str(files["md"]), "--junit", str(files["xml"]), "--json", str(files["json"]))
    done = check(root(baseline), root(now), "--alpha", alpha, *options)
    for text in (done.stdout, files["md"].read_text("utf-8"), files["xml"].read_text("utf-8")):
        assert set(re.findall(r"(\d+) % interval", text)) == {str(level)}
    found = json.loads(files["json"].read_text("utf-8"))
    assert found["interval_level"] == pytest.approx(level / 100)
    values = [pd.read_parquet(table_of(path))["ap"].to_numpy() for path in (baseline, now)]
    expected = scipy.stats.bootstrap(
        (values[1] - values[0],), np.mean, confidence_level=level / 100, n_resamples=20_000, method="BCa"
    ).confidence_interval
    low, high = found["rows"][0]["change"]["interval"]
    assert [low, high] == pytest.approx([*expected], abs=0.06 * (high - low))
