"""Listwise models: whole lists in a seeded order, each stored whole, and no score of one list beside another's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ListParts, Lists, Network, Pairs, listed, paired
from made_tasks import make_task, scored
from numpy.typing import NDArray
from store_rows import rows_in
from stored_scores import score
from test_adapters import Windows

from evalkit.errors import EvalkitError, NonFiniteError
from evalkit.models.interfaces import OutOfMemoryError, ScoredList
from evalkit.models.settings import model_settings
from evalkit.records import Task
from evalkit.scoring.items import shown_order
from evalkit.scoring.plan import WINDOW_ITEMS
from evalkit.scoring.store import FILE_NAME

GROUPS = [
    ([f"问题{query}"], [(f"答案{query}{'很长' * (row % 9)}{row}", row % 2) for row in range(8 + query % 40)])
    for query in range(120)
]
TASK = make_task(*GROUPS)  # more pairs than a window of single pairs has


def texts_of(task: Task) -> list[tuple[str, list[str]]]:
    return [(one.query.texts[0], [candidate.text for candidate in one.candidates]) for one in task.requests]


def expected(task: Task, seed: int = 42, permutations: int = 1) -> NDArray[np.float32]:
    """Each list shuffled by the rule, scored whole and put back, without the engine."""
    scores = []
    for query, documents in texts_of(task):
        distinct = sorted(set(documents))
        sums = dict.fromkeys(distinct, 0.0)
        for number in range(permutations):
            shown = [distinct[place] for place in shown_order(query, distinct, seed, number)]
            for document, one in zip(shown, listed(query, shown), strict=True):
                sums[document] += float(np.float32(one))
        scores += [sums[document] / permutations for document in documents]
    return np.array(scores, np.float64).astype(np.float32)


@pytest.mark.parametrize("make", [Lists, ListParts, lambda: Windows(Lists())])
@pytest.mark.parametrize("permutations", [1, 3])
def test_lists_are_passed_whole_in_their_shuffled_order(make: Any, permutations: int) -> None:
    scorer = make()
    run = scored(scorer, TASK, kind="listwise", permutations=permutations)
    assert TASK.statistics.pairs > WINDOW_ITEMS
    assert run.scores.tobytes() == expected(TASK, permutations=permutations).tobytes()
    calls = scorer.scorer.calls if isinstance(scorer, Windows) else scorer.calls
    assert len(calls) == permutations * len(TASK.requests)
    asked = {(query, tuple(sorted(documents))) for query, documents in calls}
    assert asked == {(query, tuple(sorted(documents))) for query, documents in texts_of(TASK)}
    assert len(run.usage.latencies) == len(TASK.requests)


def test_the_order_shown_is_never_the_files() -> None:
    """Nor that of positives and negatives, which stand first and last in C-MTEB's rows: a document may come at any place."""
    scorer = Lists()
    scored(scorer, TASK, kind="listwise")
    shown = {query: list(documents) for query, documents in scorer.calls}
    files = dict(texts_of(TASK))
    assert not any(shown[query] == documents for query, documents in files.items())
    places = [shown[query].index(documents[0]) / (len(documents) - 1) for query, documents in files.items()]
    assert 0.4 < np.mean(places) < 0.6


def test_two_seeds_differ_and_one_repeats() -> None:
    first, again, other = (scored(Lists(), TASK, kind="listwise", order_seed=seed).scores for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert other.tobytes() == expected(TASK, seed=2).tobytes()


def test_the_order_depends_on_the_texts_alone() -> None:
    """Whatever the order of the file, and whichever other queries there are."""
    whole = scored(Lists(), TASK, kind="listwise").scores
    turned = replace(
        TASK,
        requests=tuple(replace(one, candidates=one.candidates[::-1]) for one in reversed(TASK.requests)),
    )
    found = scored(Lists(), turned, kind="listwise").scores
    assert found[::-1].tobytes() == whole.tobytes()
    few = make_task(*GROUPS[5:8])
    start = sum(len(candidates) for _, candidates in GROUPS[:5])
    assert scored(Lists(), few, kind="listwise").scores.tobytes() == whole[start:][: few.statistics.pairs].tobytes()


def test_one_more_candidate_is_another_list() -> None:
    query, candidates = GROUPS[9]
    scorer = Lists()
    task = make_task((query, candidates), (query, [*candidates, ("又一个", 0)]))
    run = scored(scorer, task, kind="listwise")
    assert [len(documents) for _, documents in scorer.calls] == [len(candidates), len(candidates) + 1]
    assert run.scores.tobytes() == expected(task).tobytes()


def test_equal_candidates_are_shown_once_and_tied() -> None:
    task = make_task((["问题"], [("甲乙", 1), ("问题甲", 0), ("甲乙", 0), ("丙", 0)]))
    scorer = Lists()
    run = scored(scorer, task, kind="listwise")
    ((_, documents),) = scorer.calls
    assert sorted(documents) == sorted(["甲乙", "问题甲", "丙"])
    assert run.scores[0] == run.scores[2] != run.scores[1]


def test_a_model_of_pairs_gives_in_lists_what_it_gives_alone() -> None:
    alone = scored(Pairs(), TASK).scores
    for permutations in (1, 4):
        run = scored(Lists(paired), TASK, kind="listwise", permutations=permutations)
        assert run.scores.tobytes() == alone.tobytes()


def test_a_query_of_several_texts_is_refused() -> None:
    task = make_task((["一", "二"], [("甲", 1), ("乙", 0)]))
    with pytest.raises(EvalkitError, match=r"query q0 of made has 2 texts: made ranks lists, .* can't be compared"):
        scored(Lists(), task, kind="listwise")


def test_a_query_without_candidates_is_no_list() -> None:
    task = make_task((["一"], []), GROUPS[0], (["二"], []))
    scorer = Lists()
    run = scored(scorer, task, kind="listwise")
    assert len(scorer.calls) == 1
    assert len(run.scores) == len(GROUPS[0][1])


@pytest.mark.parametrize("pairs", [Pairs, Network, lambda: Windows(Network())])
def test_a_scorer_of_pairs_never_gets_lists(pairs: Any) -> None:
    with pytest.raises(TypeError, match="whole lists"):
        scored(pairs(), TASK, kind="listwise")


@pytest.mark.parametrize("scorer", [Lists, ListParts])
def test_a_scorer_of_lists_never_gets_pairs(scorer: Any) -> None:
    with pytest.raises(TypeError, match="single pairs or texts"):
        scored(scorer(), TASK)


@pytest.mark.parametrize("make", [Lists, ListParts, lambda: Windows(Lists())])
def test_whatever_the_store_holds_the_scores_are_the_same(make: Any, tmp_path: Path) -> None:
    """A part of the queries, another number of permutations, a list that is lacking a row."""
    few = make_task(*GROUPS[10:30])
    score(tmp_path, make(), few, kind="listwise", permutations=2)
    whole = score(tmp_path, make(), TASK, kind="listwise", permutations=3)
    assert whole.scores.tobytes() == expected(TASK, permutations=3).tobytes()
    assert whole.usage.items_from_store == 2 * few.statistics.pairs
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("delete from outputs where key < x'24'")
    scorer = make()
    again = score(tmp_path, scorer, TASK, kind="listwise", permutations=3)
    assert again.scores.tobytes() == whole.scores.tobytes()
    calls = scorer.scorer.calls if isinstance(scorer, Windows) else scorer.calls
    sizes = {query: len(documents) for query, documents in texts_of(TASK)}
    assert calls
    assert all(len(documents) == sizes[query] for query, documents in calls)


def test_lists_shown_alike_share_their_scores_and_others_do_not(tmp_path: Path) -> None:
    first = score(tmp_path, Lists(), TASK, kind="listwise", order_seed=1)
    scorer = Lists()
    again = score(tmp_path, scorer, TASK, kind="listwise", order_seed=1)
    assert not scorer.calls
    assert again.scores.tobytes() == first.scores.tobytes()
    other = score(tmp_path, Lists(), TASK, kind="listwise", order_seed=2)
    assert other.scores.tobytes() == expected(TASK, seed=2).tobytes()


@dataclass
class DyingLists(Lists):
    """Dies at its n-th list."""

    left: int = 5

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().score_list(query, documents)


def test_an_interrupted_run_has_whole_lists_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path, DyingLists(left=7), TASK, kind="listwise")
    kept = rows_in(tmp_path / FILE_NAME)
    assert kept == sum(len(candidates) for _, candidates in GROUPS[:7])
    scorer = Lists()
    assert score(tmp_path, scorer, TASK, kind="listwise").scores.tobytes() == expected(TASK).tobytes()
    assert len(scorer.calls) == len(GROUPS) - 7


def test_what_a_scorer_of_lists_may_do_wrong_is_refused_by_name() -> None:
    def short(query: str, documents: Sequence[str]) -> list[float]:
        return [0.0] * (len(documents) - 1)

    with pytest.raises(EvalkitError, match=r"scores of the shape \(7,\) for query '问题0', which has 8 documents"):
        scored(Lists(short), TASK, kind="listwise")
    with pytest.raises(NonFiniteError, match="query '问题0' with document"):
        scored(Lists(lambda _, documents: [float("nan")] * len(documents)), TASK, kind="listwise")

    def large(query: str, documents: Sequence[str]) -> list[float]:
        raise OutOfMemoryError("CUDA out of memory\nmore")

    with pytest.raises(
        EvalkitError, match=r"out of memory with query '问题0' and its 8 documents, .*: CUDA out of memory;"
    ):
        scored(Lists(large), TASK, kind="listwise")


def test_settings_of_the_order_are_refused_where_nothing_heeds_them() -> None:
    from evalkit.models.settings import refuse_order

    refuse_order(model_settings({"name": "made", "kind": "listwise"}, {"permutations": 3, "order_seed": 1}))
    refuse_order(model_settings({"name": "made", "kind": "cross-encoder"}))
    for name, value in (("permutations", 3), ("order_seed", 1)):
        with pytest.raises(EvalkitError, match=rf"model\.{name} has no effect on made \(cross-encoder\)"):
            refuse_order(model_settings({"name": "made", "kind": "cross-encoder"}, {name: value}))
        with pytest.raises(EvalkitError, match=rf"model\.{name} says nothing to made \(embedder\)"):
            model_settings({"name": "made", "kind": "embedder"}, {name: value})
