"""`evalkit check` where results can't be compared or read, are missing or not wanted, and where it is called wrongly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from checked import EQUAL, SCORES, TASK, check, root, suites, verdicts
from command import run_here
from made_results import (
    change_json,
    change_table,
    shuffled,
    table_of,
    write_scores,
)


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
    assert "1 candidate is another, or has another label" in done.stdout


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
    folders: tuple[Path, Path],
) -> None:
    baseline, path = folders
    change_json(path, change)
    done = check(baseline, root(path))
    assert (done.code, set(verdicts(done).values()), done.stderr) == (1, {verdict}, "")


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
