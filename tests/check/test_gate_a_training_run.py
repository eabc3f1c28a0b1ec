"""docs/how-to/gate-a-training-run.md, as a shell runs it: hour after hour, with checkpoints that come and go."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from checked import SCORES, TASK, check, root, verdicts
from command import SCRIPT, Outcome
from made_results import shuffled, write_scores
from model_folders import edit_weights

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "gate-a-training-run.md"
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def shell(folder: Path, commands: str) -> Outcome:
    """Run commands of the page, on data that are at hand."""
    assert "task=C-MTEB " in commands
    environment = os.environ | {
        "PATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(
        ["bash", "-c", commands.replace("task=C-MTEB ", "task=demo-zh2en ")],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def checkpoint(model: Path, folder: Path, shift: float) -> None:
    shutil.copytree(model, folder)
    edit_weights(folder, lambda weights: {name: weight * (1 + shift) for name, weight in weights.items()})


@pytest.mark.slow
def test_the_page_works_in_the_second_hour_too(tiny_reranker: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_reranker, tmp_path / "checkpoints" / "released")
    checkpoint(tiny_reranker, tmp_path / "checkpoints" / "step-1000", 1e-3)
    baseline, loop, _ = BLOCKS  # the last is of a sample
    first = shell(tmp_path, baseline)
    assert first.code == 0, first.stderr
    hours = [shell(tmp_path, loop)]
    checkpoint(tiny_reranker, tmp_path / "checkpoints" / "step-2000", 2e-3)
    hours.append(shell(tmp_path, loop))
    for hour, checks in zip(hours, (1, 2), strict=True):
        assert hour.code in (0, 1), hour.stderr
        assert "evalkit: " not in hour.stderr
        assert not re.search("ambiguous|missing|unreadable", hour.stdout)
        verdict = r"released +EvalkitDemoZh2En|released +demo-zh2en"
        assert len(re.findall(verdict, hour.stdout)) >= 2 * checks, hour.stdout
    assert (tmp_path / "check.md").read_text(encoding="utf-8").count("### evalkit check") == 2  # the second hour's
    assert {one.name for one in tmp_path.glob("*.xml")} == {"step-1000.xml", "step-2000.xml"}
    # the same files under another folder's name are never scored again
    (tmp_path / "checkpoints" / "released").rename(tmp_path / "checkpoints" / "moved")
    again = shell(tmp_path, baseline.replace("checkpoints/released", "checkpoints/moved"))
    assert "all from the store" in again.stdout + again.stderr


# --- a folder with several revisions


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A baseline, and the results of six checkpoints of the same name."""
    folder = tmp_path_factory.mktemp("many")
    baseline = write_scores(folder / "baseline", TASK, SCORES)
    return root(baseline), [write_scores(folder / "now", TASK, shuffled(SCORES, 0.2, seed)) for seed in range(6)]


def test_of_many_revisions_one_is_chosen_by_name(many: tuple[Path, list[Path]]) -> None:
    baseline, paths = many
    for path in paths[:3]:
        revision = path.parent.name
        for said in (revision, revision[:7]):
            done = check(baseline, root(path), "--revision", said)
            assert done.code == 1, done.stderr
            assert set(verdicts(done)) == {"map", "mrr"}
            assert revision in done.stdout


def test_without_a_revision_it_refuses_and_lists_some(many: tuple[Path, list[Path]]) -> None:
    baseline, paths = many
    done = check(baseline, root(paths[0]))
    assert (done.code, verdicts(done)) == (1, {"": "ambiguous"})
    assert sum(path.parent.name in done.stdout for path in paths) < len(paths)
    assert "and 2 more" in " ".join(done.stdout.split())
    assert "--revision" in done.stdout


@pytest.mark.parametrize("said", ["0000", "zzz", "step-4000"])
def test_a_revision_that_is_not_there(said: str, many: tuple[Path, list[Path]]) -> None:
    baseline, paths = many
    done = check(baseline, root(paths[0]), "--revision", said)
    assert (done.code, done.stdout) == (2, "")
    assert f"--revision {said}: no result in" in done.stderr
    assert "and 2 more" in done.stderr


def test_one_beginning_of_two_revisions_is_not_enough(many: tuple[Path, list[Path]]) -> None:
    baseline, paths = many
    done = check(baseline, root(paths[0]), "--revision", "")
    assert (done.code, verdicts(done)) == (1, {"": "ambiguous"})
