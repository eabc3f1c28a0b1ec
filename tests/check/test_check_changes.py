"""The comparing function itself, on tables made in memory: what float noise does to scores is no alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.check.changes import Judgement, compare
from evalkit.check.rows import CheckRules, CheckVerdict
from evalkit.metrics import PROTOCOLS, score_lists
from evalkit.metrics.lists import CandidateLists, candidate_lists
from evalkit.output.numbers import exceeds

QUERIES, CANDIDATES = 60, 10
RULES = CheckRules()
NOISE_RUNS = 1_000
FULL = PROTOCOLS["cmteb-v1"].measures


@dataclass(frozen=True)
class MadeTables:
    queries: pd.DataFrame
    candidates: pd.DataFrame
    protocol: str = "cmteb-v1"
    scores: Mapping[str, float] = field(default_factory=dict)


def lists_of(scores: np.ndarray) -> CandidateLists:
    """Two relevant candidates of ten or more per query."""
    candidates = scores.shape[1]
    return candidate_lists(
        query_ids=[f"q{number}" for number in range(len(scores))],
        lengths=[candidates] * len(scores),
        doc_ids=[f"d{place}" for place in range(scores.size)],
        scores=scores.ravel(),
        gains=np.tile([1, 1] + [0] * (candidates - 2), len(scores)),
        unretrieved_gains=[()] * len(scores),
    )


def tables_of(scores: np.ndarray, dtype: type = np.float32) -> MadeTables:
    """Tables of these scores, which are kept in float32, as models give them, or in the type of a run."""
    lists = lists_of(scores.astype(dtype))
    values = score_lists(lists, FULL).values
    queries = pd.DataFrame(
        {"query_id": lists.query_ids, "n_candidates": lists.lengths, "ap": values["map"], "rr": values["mrr"]}
    )
    owners = np.repeat(np.array(lists.query_ids), lists.lengths)
    candidates = pd.DataFrame(
        {"query_id": owners, "doc_id": lists.doc_ids, "label": lists.gains, "score": lists.scores.astype(dtype)}
    )
    return MadeTables(queries, candidates)


def fair_scores(seed: int = 0, queries: int = QUERIES) -> np.ndarray:
    gains = np.array([1.5, 1.5] + [0] * (CANDIDATES - 2))
    return gains + np.random.default_rng(seed).normal(size=(queries, CANDIDATES))


SCORERS = {
    "scores apart": fair_scores(),
    "near ties in every query": np.round(fair_scores(), 1)
    + 1e-6 * np.random.default_rng(5).normal(size=(QUERIES, CANDIDATES)),
    "ties in every query": np.round(fair_scores()),
    "all tied": np.zeros((QUERIES, CANDIDATES)),
    "large scores": 100 * fair_scores(),
}
SILENT = {CheckVerdict.EQUAL, CheckVerdict.TIES}


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_alarm_for_float_noise(scorer: str) -> None:
    """1,000 runs in all. Noise may put (near) ties in another order, which moves values far more than noise is large."""
    scores, seen = SCORERS[scorer], set()
    before = tables_of(scores)
    for seed in range(NOISE_RUNS // len(SCORERS)):
        noise = 1e-6 * np.random.default_rng(seed).uniform(-1, 1, scores.shape)
        judged = compare(before, tables_of(scores + noise), RULES)
        seen |= {judgement.verdict for judgement in judged.values()}
    assert seen <= SILENT
    assert (CheckVerdict.TIES in seen) == (scorer not in ("scores apart", "large scores")), seen


def test_ties_would_be_an_alarm_if_noise_were_not_seen_through() -> None:
    """What the last test shows is not for want of a change: cmteb-v1 puts tied positives first, noise does not."""
    before = tables_of(SCORERS["all tied"])
    noise = np.random.default_rng(0).uniform(-1, 1, (QUERIES, CANDIDATES))
    small, large = (compare(before, tables_of(size * noise), RULES) for size in (1e-6, 1e-3))
    assert {judged.verdict for judged in small.values()} == {CheckVerdict.TIES}
    assert "float noise decides the order of tied scores" in small["mrr"].note
    assert small["mrr"].change is not None
    assert small["mrr"].change.before - small["mrr"].change.after > 0.3
    assert large["mrr"].verdict == CheckVerdict.REGRESSION


def test_ties_do_not_hide_a_loss_elsewhere() -> None:
    """Half of the queries are tied, the other half is turned round."""
    scores = np.vstack([np.zeros((100, CANDIDATES)), fair_scores(1, 100)])
    changed = np.vstack([1e-6 * fair_scores(2, 100), -fair_scores(1, 100)])
    judged = compare(tables_of(scores), tables_of(changed), RULES)
    assert {judgement.verdict for judgement in judged.values()} == {CheckVerdict.REGRESSION}
    assert judged["mrr"].change is not None
    assert judged["mrr"].change.changed > 100
    low, high = judged["mrr"].change.interval or (0.0, 0.0)
    halves = [tables_of(half).queries["rr"][100:].mean() for half in (scores, changed)]
    assert low < (halves[1] - halves[0]) / 2 < high


def test_values_that_the_scores_do_not_give_are_not_excused() -> None:
    """The scores are the very same; the metric is computed otherwise."""
    before = tables_of(fair_scores())
    queries = before.queries.assign(rr=1 / (1 / before.queries["rr"] + 1))
    judged = compare(before, replace(before, queries=queries), RULES)
    assert (judged["map"].verdict, judged["mrr"].verdict) == (CheckVerdict.EQUAL, CheckVerdict.REGRESSION)


def test_float_noise_in_values_is_no_change() -> None:
    before = tables_of(fair_scores())
    for size, verdict in ((0.9e-6, CheckVerdict.EQUAL), (1.1e-6, CheckVerdict.TOLERATED)):
        after = replace(before, queries=before.queries.assign(ap=before.queries["ap"] - size))
        assert compare(before, after, RULES)["map"].verdict == verdict


@settings(max_examples=30, deadline=None)
@given(points=st.floats(0.001, 60), tolerance=st.floats(0, 60))
def test_a_shift_of_all_queries_is_judged_by_the_tolerance(points: float, tolerance: float) -> None:
    """Every query loses the same, which no chance explains."""
    before = tables_of(fair_scores(3, 12))
    after = replace(before, queries=before.queries.assign(ap=before.queries["ap"] - points / 100))
    rules = CheckRules(tolerance=tolerance)
    lost, won = compare(before, after, rules)["map"], compare(after, before, rules)["map"]
    beyond = points > tolerance + 1e-6
    if beyond or points < tolerance - 1e-6:
        assert lost.verdict == (CheckVerdict.REGRESSION if beyond else CheckVerdict.TOLERATED)
        assert won.verdict == (CheckVerdict.BETTER if beyond else CheckVerdict.TOLERATED)


def test_the_tolerance_itself_is_tolerated() -> None:
    assert not exceeds(-(0.1 + 0.2), 0.3)
    assert not exceeds(81.27 - 81.17, 0.1)
    assert exceeds(-0.1001, 0.1)


def test_chance_alone_seldom_makes_a_regression() -> None:
    """Scores of another seed are a change that is as often better as worse: alpha bounds the alarms."""
    before = tables_of(fair_scores(0))
    verdicts: list[Judgement] = []
    for seed in range(1, 51):
        verdicts += compare(before, tables_of(fair_scores(seed)), RULES).values()
    alarms = sum(judgement.verdict == CheckVerdict.REGRESSION for judgement in verdicts)
    # 100 tests, in pairs that go together, at 0.5 % each: 6 or more have a chance below 1 in 500
    assert alarms <= 5


def test_dropped_queries_are_no_queries() -> None:
    """A query that both sides lack is not counted, and not named."""
    before = tables_of(fair_scores())
    kept = before.queries.index >= 20
    before = replace(
        before, queries=before.queries.assign(ap=before.queries["ap"].where(kept), rr=before.queries["rr"])
    )
    after = replace(before, queries=before.queries.assign(ap=before.queries["ap"] - 0.01))
    change = compare(before, after, RULES)["map"].change
    assert change is not None
    assert (change.queries, change.changed) == (QUERIES - 20, QUERIES - 20)
    assert change.before - change.after == pytest.approx(0.01)


def with_sentinels(scores: np.ndarray, sentinel: float, queries: slice, candidates: slice) -> np.ndarray:
    """The same with one score, as for a document that was never read, for some candidates of some queries."""
    changed = scores.copy()
    changed[queries, candidates] = sentinel
    return changed


def padded(scores: np.ndarray, sentinel: float | np.ndarray) -> np.ndarray:
    """Each list with four times as many candidates behind it, which have the sentinel for a score."""
    return np.hstack([scores, np.broadcast_to(sentinel, (len(scores), 4 * scores.shape[1]))])


GOOD = 6 * np.array([1, 1] + [0] * (CANDIDATES - 2)) + fair_scores(8, 20)
EVERY, ONE = slice(None), slice(1)
LAST, MOST = slice(-1, None), slice(3, None)
# baselines whose scores were once a reason to take any change for noise
SCALES: dict[str, tuple[np.ndarray, type]] = {
    "as a model's": (GOOD, np.float32),
    "one of -1e6 in all": (with_sentinels(GOOD, -1e6, ONE, LAST), np.float32),
    "one of 1e30 in all": (with_sentinels(GOOD, 1e30, ONE, ONE), np.float32),
    "one near float32's lowest in all": (with_sentinels(GOOD, -3e38, ONE, LAST), np.float32),
    "one in every query": (with_sentinels(GOOD, -1e6, EVERY, LAST), np.float32),
    "two kinds in every query": (
        with_sentinels(with_sentinels(GOOD, -1e6, EVERY, LAST), -1e9, EVERY, slice(-2, -1)),
        np.float32,
    ),
    "most of every query": (with_sentinels(GOOD, -1e9, EVERY, MOST), np.float32),
    "lists that are padded with one number": (padded(GOOD, -3e38), np.float32),
    "lists behind which the first stage's order stays": (padded(GOOD, -1e6 - np.arange(4 * CANDIDATES)), np.float32),
    "far from zero": (GOOD + 1e6, np.float64),
    "farther from zero than float32 tells": (GOOD + 1e9, np.float64),
    "probabilities": (1 / (1 + np.exp(-GOOD)), np.float32),
    "probabilities, next to zero but in one query": (
        np.where(np.arange(20)[:, None] > 0, 1e-7, 1) / (1 + np.exp(-GOOD)),
        np.float32,
    ),
    "all next to zero": (1e-12 * GOOD, np.float32),
    "zero in one query": (with_sentinels(GOOD, 0.0, ONE, EVERY), np.float32),
    "zero in most queries' most candidates": (with_sentinels(GOOD, 0.0, slice(15), MOST), np.float32),
}


def turned_round(scores: np.ndarray) -> np.ndarray:
    """Each query's list, the worst first; a sentinel stays one."""
    middle = np.median(scores[:, :3], axis=1, keepdims=True)
    return np.where(np.abs(scores - middle) > 1e5, scores, 2 * middle - scores)


@pytest.mark.parametrize("scale", SCALES)
def test_no_scale_of_scores_makes_a_loss_noise(scale: str) -> None:
    scores, dtype = SCALES[scale]
    before, after = tables_of(scores, dtype), tables_of(turned_round(scores), dtype)
    judged = compare(before, after, RULES)
    assert before.queries["ap"].mean() - after.queries["ap"].mean() > 0.3
    assert {judgement.verdict for judgement in judged.values()} == {CheckVerdict.REGRESSION}
    assert all(judgement.change and judgement.change.changed >= 18 for judgement in judged.values())
    assert {judgement.note for judgement in judged.values()} == {""}


@pytest.mark.parametrize("scale", [name for name in SCALES if "farther" not in name])
def test_noise_is_noise_at_every_scale(scale: str) -> None:
    """Ties are put where the scale has them; each score moves by half a millionth of its query's spread, or by its last digit."""
    scores, dtype = SCALES[scale]
    tied = scores.copy()
    tied[::2, 1] = tied[::2, 2]
    generator = np.random.default_rng(3)
    median = np.median(np.ptp(np.sort(tied[:, :CANDIDATES], axis=1)[:, 3:7], axis=1))
    spread = np.minimum(np.ptp(np.sort(tied[:, :CANDIDATES], axis=1)[:, 3:7], axis=1, keepdims=True), median)
    noise = generator.uniform(-1, 1, tied.shape) * np.maximum(5e-7 * spread, np.spacing(np.abs(tied).astype(dtype)))
    judged = compare(tables_of(tied, dtype), tables_of(tied + noise, dtype), RULES)
    assert {judgement.verdict for judgement in judged.values()} <= SILENT


def test_one_query_is_judged_without_statistics() -> None:
    """It can show no chance: no p-value, no interval, and nothing that it could have found; the loss is named."""
    judged = compare(tables_of(GOOD[:1]), tables_of(-GOOD[:1]), RULES)["map"]
    assert judged.verdict == CheckVerdict.NOISE
    assert judged.change is not None
    assert (judged.change.p_value, judged.change.interval, judged.change.detectable) == (None, None, None)
    assert judged.note == "1 changed query is too few for p < 0.01, which takes 8: look at them, or use --strict"


def test_equal_losses_have_no_interval() -> None:
    """All queries lose the same: a test finds it, but what does not differ has no spread."""
    before = tables_of(fair_scores())
    after = replace(before, queries=before.queries.assign(ap=before.queries["ap"] - 0.25))
    change = compare(before, after, RULES)["map"].change
    assert change is not None
    assert change.p_value is not None
    assert change.p_value < 0.001


def test_a_loss_of_the_detectable_size_is_detected_about_as_often_as_it_says() -> None:
    """What a change of chance alone could have shown: so large a loss, put beside such changes, is found in four of five."""
    before = tables_of(fair_scores(0, 300))
    rules = CheckRules(tolerance=0)
    changes = []
    for seed in range(40):
        noisy = np.clip(before.queries["ap"] + np.random.default_rng(seed).normal(0, 0.05, 300), -1, 2)
        changes.append((noisy, compare(before, replace(before, queries=before.queries.assign(ap=noisy)), rules)["map"]))
    detectable = np.mean([judged.change.detectable for _, judged in changes if judged.change])
    assert 0.008 < detectable < 0.012  # 3.4 standard errors of 0.05 / sqrt(300)
    lost = [
        compare(before, replace(before, queries=before.queries.assign(ap=noisy - detectable)), rules)["map"].verdict
        for noisy, _ in changes
    ]
    assert 0.62 <= np.mean([verdict == CheckVerdict.REGRESSION for verdict in lost]) <= 0.95


def test_better_by_ties_alone_is_said() -> None:
    """A model that now gives one score to all has cmteb-v1's MRR of 100; MAP, in which ties count for nothing, tells the loss."""
    before = tables_of(fair_scores())
    judged = compare(before, tables_of(np.zeros((QUERIES, CANDIDATES))), RULES)
    assert (judged["map"].verdict, judged["mrr"].verdict) == (CheckVerdict.REGRESSION, CheckVerdict.BETTER)
    assert judged["mrr"].note.startswith("it is better by the order of tied scores alone, which can also give ")
    honest = compare(tables_of(fair_scores()), tables_of(fair_scores() + 3 * np.eye(CANDIDATES)[0]), RULES)
    assert (honest["mrr"].verdict, honest["mrr"].note) == (CheckVerdict.BETTER, "")
