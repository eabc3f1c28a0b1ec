"""`evalkit check` end to end: what was done to a result, and the verdict and exit code that the statistics justify."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from command import Outcome, run_here, run_program
from made_results import (
    change_json,
    change_table,
    noisy_scores,
    ranking_task,
    shuffled,
    table_of,
    write_scores,
)
from markdown_it import MarkdownIt
from sklearn.metrics import average_precision_score

from evalkit.check.rows import Verdict

TASK = ranking_task(300)
SCORES = noisy_scores(TASK)
LABELS = np.array([[candidate.gain for candidate in request.candidates] for request in TASK.requests])
EQUAL = {"map": "equal", "mrr": "equal"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baseline's only result."""
    return write_scores(tmp_path_factory.mktemp("check") / "baseline", TASK, SCORES)


@pytest.fixture(scope="module")
def whole(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that result, and one of the same model on another task."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    shutil.copytree(root(written), folder)
    write_scores(folder, replace(TASK, name="other", mteb_name="other"), SCORES)
    return folder


@pytest.fixture
def folders(written: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The baseline, and the JSON of a result that is equal to it."""
    shutil.copytree(root(written), tmp_path / "now")
    return root(written), tmp_path / "now" / written.relative_to(root(written))


def root(path: Path) -> Path:
    return path.parent.parent.parent


def check(baseline: Path, results: Path, *options: str) -> Outcome:
    return run_here("check", "--baseline", str(baseline), "--results", str(results), *options)


def verdicts(done: Outcome, task: str = "made") -> dict[str, str]:
    """The last column by metric; by "" where a row has none."""
    table = done.stdout.partition("──\n")[2].partition("\n\n")[0]
    cells = [re.split(r"\s{2,}", line.rstrip()) for line in table.splitlines()]
    return {next((cell for cell in row if cell in ("map", "mrr")), ""): row[-1] for row in cells if task in row}


def suites(path: Path) -> minidom.Element:
    """JUnit's outermost element, read by a parser that is not the writer's."""
    return minidom.parse(str(path)).documentElement


def values(scores: np.ndarray) -> dict[str, np.ndarray]:
    """AP and RR@10 per query, by scikit-learn and by hand."""
    ap = [average_precision_score(labels, row) for labels, row in zip(LABELS, scores, strict=True)]
    ranked = np.take_along_axis(LABELS, np.argsort(-scores, axis=1), axis=1)
    return {"map": np.array(ap), "mrr": 1 / (1 + np.argmax(ranked, axis=1))}


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
        assert re.search(rf"{metric} +{old:.2f} +{new:.2f} +{re.escape(f'{new - old:+.2f}')} ", done.stdout)
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


def off_by_one(table: pd.DataFrame) -> pd.DataFrame:
    """Every rank counted one too high."""
    ranked = np.take_along_axis(LABELS, np.argsort(-SCORES, axis=1), axis=1)
    ranks = np.arange(1, LABELS.shape[1] + 1) + 1
    ap = (ranked * np.cumsum(ranked, axis=1) / ranks).sum(axis=1) / ranked.sum(axis=1)
    return table.assign(ap=ap, rr=1 / (1 / table["rr"] + 1))


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
    assert (done.code, set(verdicts(done).values())) == (0, {Verdict.OTHER_SCORES})
    assert check(root(written), tmp_path / "now", "--strict").code == 1


def test_a_loss_that_so_few_queries_cannot_show(written: Path, tmp_path: Path) -> None:
    """Seven signs give no p below 2 / 2^7 = 0.016."""
    worst = SCORES.copy()
    good = np.flatnonzero(values(SCORES)["map"] == 1)[:7]
    worst[good] = -worst[good]
    write_scores(tmp_path / "now", TASK, worst)
    done = check(root(written), tmp_path / "now")
    assert (done.code, set(verdicts(done).values())) == (0, {Verdict.NOISE})
    assert "7 changed queries are too few for p < 0.01, which takes 8" in done.stdout
    assert check(root(written), tmp_path / "now", "--alpha", "0.02").code == 1


def test_one_query_missing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    baseline, path = folders
    for kind in ("run", "queries"):
        change_table(path, lambda table: table[table["query_id"] != "q7"].reset_index(drop=True), kind)
    done = check(baseline, root(path))
    assert (done.code, set(verdicts(done).values())) == (1, {"other queries"})
    assert "1 query ('q7') only in the baseline" in done.stdout
    done = check(root(path), baseline)
    assert (done.code, "1 query ('q7') only in the results" in done.stdout) == (1, True)


def test_a_query_that_is_dropped_on_one_side(folders: tuple[Path, Path]) -> None:
    baseline, path = folders
    change_table(path, lambda table: table.assign(ap=table["ap"].where(table["query_id"] != "q7")))
    done = check(baseline, root(path))
    assert (done.code, verdicts(done)) == (1, EQUAL | {"map": "other queries"})
    assert "1 query ('q7') without a value on one side only" in done.stdout


def test_other_candidates(folders: tuple[Path, Path]) -> None:
    baseline, path = folders
    change_table(path, lambda table: table.assign(label=table["label"].where(table.index != 5, 1)), "run")
    done = check(baseline, root(path))
    assert (done.code, set(verdicts(done).values())) == (1, {"other queries"})
    assert "1 candidates are others, or have another label" in done.stdout


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda content: content["evalkit"]["task"].update(fingerprint="1" * 64), "other data"),
        (
            lambda content: (
                content["evalkit"].update(protocol="mteb-v2", main_score="map_at_1000"),
                content["scores"]["test"][0].update(main_score=content["scores"]["test"][0]["map_at_1000"]),
            ),
            "other protocol",
        ),
    ],
)
def test_what_cannot_be_compared(
    change: Callable[[dict], object],
    verdict: str,
    folders: tuple[Path, Path],  # type: ignore[type-arg]
) -> None:
    baseline, path = folders
    change_json(path, change)
    done = check(baseline, root(path))
    assert (done.code, set(verdicts(done).values()), done.stderr) == (1, {verdict}, "")


def test_mteb_v2(tmp_path: Path) -> None:
    for folder, scores in (("baseline", SCORES), ("now", shuffled(SCORES, 0.2, 1))):
        write_scores(tmp_path / folder, TASK, scores, protocol="mteb-v2")
    done = check(tmp_path / "baseline", tmp_path / "now")
    assert done.code == 1
    assert re.findall(r"(map_at_1000|mrr_at_10) .*(regression)", done.stdout) == [
        ("map_at_1000", "regression"),
        ("mrr_at_10", "regression"),
    ]


def missing_table(kind: str) -> Callable[[Path], object]:
    return lambda path: table_of(path, kind).unlink()


def nan_score(path: Path) -> None:
    change_table(path, lambda table: table.assign(score=table["score"].where(table.index != 3)), "run")


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no JSON": (lambda path: path.write_text("{"), "is not valid JSON"),
    "NaN in the JSON": (
        lambda path: path.write_text(re.sub(r'"map": [\d.]+', '"map": NaN', path.read_text())),
        "NaN is no JSON number",
    ),
    "an older schema": (
        lambda path: change_json(path, lambda content: content["evalkit"].update(schema_version=0)),
        "schema_version 0, this evalkit reads 1",
    ),
    "no table of queries": (missing_table("queries"), "is missing"),
    "no table of candidates": (missing_table("run"), "is missing"),
    "a table of another run": (
        lambda path: pd.read_parquet(table_of(path)).assign(ap=0.5).to_parquet(table_of(path)),
        "the files are of different runs",
    ),
    "a table of words": (
        lambda path: change_table(path, lambda table: table.astype({"score": str}), "run"),
        "column score holds no numbers",
    ),
    "candidates of other queries": (
        lambda path: change_table(path, lambda table: table[10:], "run"),
        "has other queries than its table of queries",
    ),
    "a score that is NaN": (nan_score, "the score of 'q0-d' is nan"),
}


@pytest.mark.parametrize("how", UNREADABLE)
@pytest.mark.parametrize("side", ["baseline", "results"])
def test_what_cannot_be_read(how: str, side: str, written: Path, whole: Path, tmp_path: Path) -> None:
    """The rest is compared all the same, then it ends with 2 and one line."""
    break_it, said = UNREADABLE[how]
    shutil.copytree(whole, tmp_path / "broken")
    break_it(tmp_path / "broken" / written.relative_to(root(written)))
    sides = [whole, tmp_path / "broken"]
    done = check(*(sides if side == "results" else reversed(sides)), "--junit", str(tmp_path / "junit.xml"))
    assert (done.code, verdicts(done), verdicts(done, "other")) == (2, {"": "unreadable"}, EQUAL)
    assert (done.stderr.count("\n"), said in done.stderr, said in done.stdout) == (1, True, True)
    assert suites(tmp_path / "junit.xml").getAttribute("errors") == "1"


@pytest.mark.parametrize("side", ["baseline", "results"])
@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_without_results(kind: str, side: str, written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    if kind == "empty":
        folder.mkdir()
    sides = [root(written), folder]
    done = check(*(sides if side == "results" else reversed(sides)), "--summary", str(tmp_path / "summary.md"))
    assert (done.code, done.stderr.count("\n")) == (2, 1)
    assert verdicts(done, str(folder)) == {"": "unreadable"}
    assert verdicts(done) == {}
    assert "unreadable" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_missing_and_new(written: Path, whole: Path, tmp_path: Path) -> None:
    done = check(root(written), whole, "--strict", "--junit", str(tmp_path / "junit.xml"))
    assert (done.code, verdicts(done), set(verdicts(done, "other").values())) == (0, EQUAL, {"new"})
    assert len(suites(tmp_path / "junit.xml").getElementsByTagName("skipped")) == 2
    done = check(whole, root(written))
    assert (done.code, verdicts(done), set(verdicts(done, "other").values())) == (1, EQUAL, {"missing"})
    assert done.stderr == ""


def test_several_revisions_that_could_be_compared(written: Path, tmp_path: Path) -> None:
    """Which of a run's checkpoints is meant is not for the check to guess."""
    paths = [write_scores(tmp_path / "now", TASK, shuffled(SCORES, 0.1, seed)) for seed in (1, 2)]
    done = check(root(written), tmp_path / "now")
    assert (done.code, verdicts(done), done.stderr) == (1, {"": "ambiguous"}, "")
    for path in (written, *paths):
        assert str(path) in done.stdout


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


def test_a_baseline_inside_the_results(written: Path, tmp_path: Path) -> None:
    """As results/baseline is inside results: it is not compared with itself."""
    shutil.copytree(root(written), tmp_path / "results" / "baseline")
    alone = check(tmp_path / "results" / "baseline", tmp_path / "results")
    assert (alone.code, "no results in" in alone.stderr) == (2, True)
    write_scores(tmp_path / "results", TASK, SCORES)
    done = check(tmp_path / "results" / "baseline", tmp_path / "results")
    assert (done.code, verdicts(done)) == (0, EQUAL)


def test_wrong_usage(written: Path, tmp_path: Path) -> None:
    baseline, nowhere = root(written), tmp_path / "folder" / "\0"
    assert check(baseline, baseline).code == 2
    (tmp_path / "file").touch()
    for option, value, said in [
        ("--tolerance", "-1", "give percentage points"),
        ("--tolerance", "nan", "give percentage points"),
        ("--tolerance", "much", "--tolerance"),
        ("--alpha", "0.0001", "between 0.001 and 1"),
        ("--alpha", "1", "between 0.001 and 1"),
        ("--junit", str(tmp_path), "cannot write"),
        ("--summary", str(tmp_path / "file" / "summary.md"), "cannot write"),
    ]:
        done = check(baseline, nowhere.parent, option, value)
        assert (done.code, done.stderr.count("\n"), said in done.stderr) == (2, 1, True), (option, value, done.stderr)
    done = run_here("check", "--baseline", str(baseline))
    assert (done.code, "--results" in done.stderr) == (2, True)


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
        "import sys; from evalkit.cli import run_command_line as run; run(sys.argv[1:]); print(*sys.modules, sep='\\n')"
    )
    modules = run_program(tmp_path, *arguments, program=(sys.executable, "-c", loaded)).stdout.splitlines()
    assert "pandas" in modules
    assert {"torch", "transformers", "mteb", "hydra", "datasets"}.isdisjoint(modules)
