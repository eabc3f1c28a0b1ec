"""Which results of two folders belong together."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evalkit.check.folders import Pairing, pair_results, place_of
from evalkit.records import ModelIdentity, TaskIdentity, TaskStatistics
from evalkit.results.folders import experiment_of
from evalkit.results.result import Result, TablesInMemory

PATH = Path("results/local__m/r1/Task.json")


def stored(revision: str = "r1", model: str = "local/m", task: str = "Task", settings: str = "") -> Result:
    """A result as far as its pairing looks at it; `settings` are the folder of an experiment."""
    folder = Path("results") / model.replace("/", "__") / revision
    folder = folder / "experiments" / settings if settings else folder
    statistics = TaskStatistics(4, 8, 4, 0, 1, 40, 400, 4, 8)
    return Result(
        model=ModelIdentity("m", model, revision, "run"),
        task=TaskIdentity(task, task, "test", (), "cmteb", "hand", "", "f" * 64, statistics),
        protocol="cmteb-v1",
        main_score="map",
        scores={"map": 0.5, "mrr": 0.5},
        tables=TablesInMemory(pd.DataFrame(), pd.DataFrame()),
        config={},
        deviations=None,
        path=folder / f"{task}.json",
    )


def counts(pairing: Pairing) -> tuple[int, int, int, int]:
    return len(pairing.pairs), len(pairing.missing), len(pairing.new), len(pairing.ambiguous)


def test_one_of_a_kind_is_paired_whatever_its_revision() -> None:
    old, new = stored("r1"), stored("r2")
    pairing = pair_results([old], [new])
    assert [(pair.before, pair.after) for pair in pairing.pairs] == [(old, new)]
    assert counts(pairing) == (1, 0, 0, 0)


@pytest.mark.parametrize("other", [{"model": "org/m"}, {"task": "Other"}, {"settings": "limit-5"}])
def test_another_model_task_or_setting_is_another_result(other: dict[str, str]) -> None:
    assert counts(pair_results([stored()], [stored(**other)])) == (0, 1, 1, 0)
    assert counts(pair_results([stored(), stored(**other)], [stored("r2", **other), stored("r3")])) == (2, 0, 0, 0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (["r1", "r2"], ["r2", "r1"], (2, 0, 0, 0)),
        (["r1", "r2"], ["r1"], (1, 1, 0, 0)),
        (["r1"], ["r1", "r2"], (1, 0, 0, 1)),  # which one r2 is to be compared with is not for us to guess
        (["r1"], ["r2", "r3"], (0, 0, 0, 1)),
        (["r1", "r2"], ["r3"], (0, 0, 0, 1)),
        (["r1"], ["r1", "r1"], (0, 0, 0, 1)),
        ([], ["r1", "r2"], (0, 0, 2, 0)),
        (["r1", "r2"], [], (0, 2, 0, 0)),
    ],
)
def test_several_revisions(old: list[str], new: list[str], expected: tuple[int, int, int, int]) -> None:
    pairing = pair_results(map(stored, old), map(stored, new))
    assert counts(pairing) == expected
    assert all(pair.before.model.revision == pair.after.model.revision for pair in pairing.pairs)


def test_places() -> None:
    experiment = PATH.parent / "experiments" / "limit-5" / PATH.name
    assert (experiment_of(PATH), experiment_of(experiment)) == ("", "limit-5")
    assert place_of(PATH) == ("local__m", "", "Task")
    assert place_of(experiment) == ("local__m", "limit-5", "Task")
    assert place_of(Path("results/local__m/r2/Task.json")) == place_of(PATH)
