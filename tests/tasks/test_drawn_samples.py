"""Which queries a sample draws: in proportion, by the seed and the data alone, and a larger one with a smaller one in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from task_files import write_jsonl

from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import load_task
from evalkit.records import Candidate, Query, Request
from evalkit.tasks.sampling import cut_strata, draw_queries, share_seats


def request(number: int, candidates: int = 4, characters: int = 50, text: str = "") -> Request:
    documents = tuple(
        Candidate(f"d{number}-{place}", "x" * (characters // candidates), place % 2) for place in range(candidates)
    )
    return Request(Query(f"q{number}", (text or f"query {number}",)), documents)


def varied(n: int, seed: int = 0) -> list[Request]:
    """Queries of many numbers of candidates and lengths, whose file is sorted by neither."""
    generator = np.random.default_rng(seed)
    return [request(k, int(generator.integers(2, 60)), int(generator.integers(100, 9000))) for k in range(n)]


def names(drawn: tuple[Request, ...]) -> list[str]:
    return [one.query.query_id for one in drawn]


def test_each_stratum_has_its_share() -> None:
    requests = varied(1_000)
    sample, kept, strata = draw_queries(requests, 100, 42, 3)
    assert (len(kept), len(strata), sample.size, sample.population, sample.unscorable) == (100, 100, 100, 1_000, 3)
    assert len(sample.strata) == 12
    assert sum(stratum.population for stratum in sample.strata) == 1_000
    counts = Counter(strata)
    for number, stratum in enumerate(sample.strata):
        assert counts[number] == stratum.drawn
        assert abs(stratum.drawn - stratum.population / 10) < 1
    for one, number in zip(kept, strata, strict=True):
        stratum = sample.strata[number]
        characters = len(one.query.texts[0]) + sum(len(candidate.text) for candidate in one.candidates)
        assert stratum.candidates[0] <= len(one.candidates) <= stratum.candidates[1]
        assert stratum.characters[0] <= characters <= stratum.characters[1]
    # the queries keep the order of the file
    assert names(kept) == sorted(names(kept), key=lambda name: int(name[1:]))


def test_strata_are_thirds_by_candidates_and_quarters_by_characters() -> None:
    sizes = [(candidates, candidates * 100 + place) for candidates in range(3) for place in range(40)]
    strata = cut_strata(sizes)
    assert [len(members) for members in strata] == [10] * 12
    assert [sizes[members[0]] for members in strata[:5]] == [(0, 0), (0, 10), (0, 20), (0, 30), (1, 100)]


def test_equal_queries_stay_together() -> None:
    assert [len(members) for members in cut_strata([(10, 5)] * 30)] == [30]
    few, most = cut_strata([(9, 1)] + [(10, 1)] * 30 + [(50, 1)] * 20)
    assert (len(few), len(most)) == (31, 20)


def test_a_larger_sample_has_a_smaller_one_in_it() -> None:
    requests, before = varied(500), set()
    for size in range(1, 500, 7):
        _, kept, _ = draw_queries(requests, size, 42, 0)
        assert len(kept) == size
        assert before <= set(names(kept))
        before = set(names(kept))


def test_no_stratum_loses_a_seat_to_a_larger_sample() -> None:
    # by largest remainders the third stratum would have 1 of 10 seats and none of 11 (Alabama's paradox)
    populations = [600, 600, 200]
    before = [0, 0, 0]
    for seats in range(1, 1_401):
        now = share_seats(populations, seats)
        assert sum(now) == seats
        assert all(ours >= theirs for ours, theirs in zip(now, before, strict=True))
        before = now
    assert before == populations


def test_another_seed_draws_others_as_often_as_chance() -> None:
    requests = varied(400)
    first, second = (set(names(draw_queries(requests, 100, seed, 0)[1])) for seed in (1, 2))
    assert 10 < len(first & second) < 42  # 25 are expected
    drawn = Counter(name for seed in range(200) for name in names(draw_queries(requests, 100, seed, 0)[1]))
    assert len(drawn) == 400
    assert min(drawn.values()) > 20
    assert max(drawn.values()) < 85  # 50 are expected, with a deviation of 6


def test_neither_order_nor_ids_of_the_data_have_a_part() -> None:
    requests = varied(200)
    drawn = {one.query.texts for one in draw_queries(requests, 50, 42, 0)[1]}
    renamed = [
        Request(Query(f"other{place}", one.query.texts), one.candidates) for place, one in enumerate(requests[::-1])
    ]
    assert {one.query.texts for one in draw_queries(renamed, 50, 42, 0)[1]} == drawn


def test_queries_of_one_text_are_drawn_by_themselves() -> None:
    requests = [request(number, text="the same") for number in range(100)]
    once, again = (names(draw_queries(requests, 30, 42, 0)[1]) for _ in range(2))
    assert once == again
    assert len(set(once)) == 30
    assert once != names(tuple(requests[:30]))


def test_a_sample_stays_what_it_was() -> None:
    """Of every version, machine and library: these were drawn when samples were first made."""
    _, kept, _ = draw_queries([request(k, 2 + k % 5, 100 + 37 * k % 400) for k in range(40)], 8, 42, 0)
    assert names(kept) == PINNED


PINNED = ["q2", "q15", "q16", "q17", "q21", "q32", "q33", "q35"]


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_another_process_draws_the_same(hash_seed: str) -> None:
    code = "import evalkit; print([r.query.query_id for r in evalkit.load_task('demo-zh', sample=9, sample_seed=5).requests])"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = [one.query.query_id for one in load_task("demo-zh", sample=9, sample_seed=5).requests]
    assert done.stdout.strip() == str(here)


def test_only_what_can_be_scored_is_drawn(tmp_path) -> None:
    rows = [
        {"query": f"q{k}", "positive": [f"p{k}"] * (k % 3 > 0), "negative": [f"n{k}"] * (k % 5 > 0)} for k in range(60)
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    whole, task = load_task(path=path), load_task(path=path, sample=20)
    both = [one for one in whole.requests if len({candidate.gain for candidate in one.candidates}) == 2]
    assert len(both) == 32
    assert (task.sample.population, task.sample.unscorable) == (32, len(whole.requests) - 32)
    assert set(task.requests) <= set(both)
    assert task.incomparable == "sample"
    assert task.deviations == {"sample": 20}


def test_a_sample_of_all_is_the_whole_task() -> None:
    whole, task = load_task("demo-zh"), load_task("demo-zh", sample=45)
    assert (task.requests, task.fingerprint, task.strata) == (whole.requests, whole.fingerprint, ())
    assert task.sample.is_whole
    assert task.incomparable == whole.incomparable == ""
    assert load_task("demo-zh", sample=44).sample.is_whole is False


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        ({"sample": 0}, "sample=0"),
        ({"sample": -3}, "sample=-3"),
        ({"sample": 5, "limit": 5}, "leave one of them out"),
        ({"sample": 5, "sample_seed": -1}, "sample_seed=-1"),
        ({"sample_seed": 7}, "no effect without sample=N"),
        ({"limit": 5, "sample_seed": 7}, "no effect without sample=N"),
    ],
)
def test_what_says_nothing_is_refused(cut: dict[str, int], told: str) -> None:
    with pytest.raises(EvalkitError, match=told):
        load_task("demo-zh", **cut)
