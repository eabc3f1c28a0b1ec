"""What once made a check wrong: a healthy model that was found at fault, and a fault that passed for health."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from made_models import GivenModel, Pairs, informed, noise
from made_tasks import make_task
from scoring.fakes import Network

import evalkit
from evalkit.doctor.checks import is_constant, judge_evidence, judge_order, judge_published, judge_signal
from evalkit.doctor.examination import examine
from evalkit.doctor.figures import average_precisions, spread
from evalkit.doctor.prompts import judge_prompts
from evalkit.doctor.records import Evidence, Opinion, Prompts, PromptTrial, Rescored
from evalkit.doctor.sampling import ENOUGH_QUERIES, with_requests
from evalkit.doctor.truncation import judge_truncation
from evalkit.doctor.weights import judge_weights
from evalkit.models.interfaces import Part, Runtime, Scorer
from evalkit.models.settings import model_settings
from evalkit.records import Task
from evalkit.results.published import PublishedFigure


def task_of(queries: int, size: int = 30) -> Task:
    """One relevant document in a list, as MMarco's are."""
    return make_task(
        *(([f"q{n}"], [(f"d{n}-{row}", int(row == 0)) for row in range(size)]) for n in range(queries)), name="long"
    )


def examined(scorer: Scorer, task: Task, seconds: float = 1e-9, **fields: Any) -> Evidence:
    """By default as by a model that is so slow that only the smallest sample fits."""
    model = GivenModel(model_settings({"name": "made", **fields}), "made", Runtime(), scorer=scorer)
    return examine(model, task, seconds=seconds)


def opinion(evidence: Evidence, name: str) -> Opinion:
    return next(found for check, found in judge_evidence(evidence) if check.name == name)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Of a good model on the Chinese demo."""
    task = evalkit.load_task("demo-zh")
    return examined(Pairs(informed(task)), task, seconds=900)


def weak(task: Task, draw: int) -> Pairs:
    """A healthy model of a task that is hard."""
    gains = {
        (request.query.texts[0], candidate.text): candidate.gain
        for request in task.requests
        for candidate in request.candidates
    }
    return Pairs(lambda pair: 1.2 * gains[pair] + noise((pair[0], f"{draw}{pair[1]}")))


def test_six_queries_find_no_fault_that_sixty_would_not() -> None:
    """A slow model on long lists: the sample grows before its ranking is judged."""
    task, grown = task_of(100), 0
    for draw in range(20):
        found = examined(weak(task, draw), task)
        sampled = len(found.found.sample.task.requests)
        grown += sampled >= ENOUGH_QUERIES
        assert opinion(found, "signal").verdict != "fault", (draw, sampled)
    assert grown >= 10


def test_a_slow_model_without_signal_is_found_on_the_larger_sample() -> None:
    task = task_of(100)
    for draw in range(5):
        found = examined(Pairs(lambda pair, draw=draw: noise((pair[0], f"{draw}{pair[1]}"))), task)
        assert len(found.found.sample.task.requests) >= ENOUGH_QUERIES
        assert "carry no signal" in opinion(found, "signal").seen


@pytest.mark.parametrize("queries", [2, 6, 10, 15])
def test_a_task_of_few_queries_finds_no_model_at_fault(queries: int) -> None:
    """There are no more to take, and so few decide nothing."""
    for draw in range(10):
        task = task_of(queries)
        assert opinion(examined(weak(task, draw), task), "signal").verdict != "fault"
        by_chance = opinion(
            examined(Pairs(lambda pair, draw=draw: noise((pair[0], f"{draw}{pair[1]}"))), task), "signal"
        )
        assert by_chance.verdict != "fault"


def test_one_query_is_not_worse_than_bm25(evidence: Evidence) -> None:
    """It once was, and nearer to random: one difference has no spread, and its interval had no width."""
    one = with_requests(evidence.task, evidence.found.sample.task.requests[:1])
    pairs = one.statistics.pairs
    good = evidence.found.scores[:pairs]
    measured = replace(
        evidence.found, sample=replace(evidence.found.sample, task=one), scores=-good, bm25=good.astype(np.float32)
    )
    judged = judge_signal(replace(evidence, task=one, measured=measured))
    assert (judged.verdict, "on 1 query" in judged.seen) == ("warning", True)


def published(evidence: Evidence, value: float, scores: np.ndarray) -> Opinion:
    figure = PublishedFigure("m", "", "t", "map", value, str(value), "fraction", 4, "cmteb-v1", "table", "a table", "")
    return judge_published(replace(evidence, measured=replace(evidence.found, published=figure, scores=scores)))


def test_a_perfect_sample_does_not_contradict_a_figure(evidence: Evidence) -> None:
    """All of 45 queries are right, and 97 is published: values that are all equal have no interval to lie outside of."""
    gains = [candidate.gain for request in evidence.found.sample.task.requests for candidate in request.candidates]
    assert published(evidence, 0.97, np.array(gains, np.float32)).verdict == "skipped"


def test_ten_queries_do_not_contradict_a_figure(evidence: Evidence) -> None:
    ten = with_requests(evidence.task, evidence.found.sample.task.requests[:10])
    scores = evidence.found.scores[: ten.statistics.pairs]
    own = float(average_precisions(ten, scores).mean())
    shorter = replace(evidence, measured=replace(evidence.found, sample=replace(evidence.found.sample, task=ten)))
    assert published(shorter, own - 0.4, scores).verdict == "warning"


@dataclass(frozen=True)
class Served(Pairs):
    """Answers as a server gives them."""

    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        yield Part(np.arange(len(pairs)), self.score(pairs), 0.1)


@dataclass(frozen=True)
class OnlyServed:
    inner: Served

    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        yield from self.inner.score_parts(pairs)


@pytest.mark.parametrize("path", [None, "."])
def test_weights_on_a_server_are_not_seen(path: str | None) -> None:
    """Nor those of a folder here, of which nobody knows whether the server has it."""
    task = evalkit.load_task("demo-zh")
    found = examined(OnlyServed(Served(informed(task))), task, seconds=900, path=path)
    judged = opinion(found, "weights")
    assert judged == Opinion("skipped", "not seen: a server holds them, and does not say whether they are whole")
    assert judge_weights(replace(found, head_is_new=True)).verdict == "skipped"


def test_an_object_in_memory_was_not_seen_to_load() -> None:
    task = evalkit.load_task("demo-zh")
    wrapped = evalkit.wrap(
        lambda pairs: [float(len(document)) for _, document in pairs], name="mine", kind="cross-encoder"
    )
    judged = opinion(examine(wrapped, task, seconds=900), "weights")
    assert (judged.verdict, judged.seen) == ("skipped", "not seen: the object was made elsewhere")


LONG = Network(max_length=40, score_pair=lambda query, document="": float(len(document)))


@pytest.mark.parametrize(("chosen", "verdict"), [(False, "warning"), (True, "fault"), (None, "fault")])
@pytest.mark.parametrize("length", [40, 512])
def test_a_model_is_not_at_fault_for_texts_that_are_longer_than_it_reads(
    length: int, chosen: bool | None, verdict: str
) -> None:
    """What its own files say is all that it reads; what the user said can be said otherwise."""
    task = make_task(
        (["q"], [("long " * 100, 1), ("other " * 100, 0)]), (["p"], [("more " * 100, 1), ("less " * 90, 0)])
    )
    found = examined(LONG, task, max_length=length)
    assert judge_truncation(replace(found, chosen_length=chosen)).verdict == verdict
    whole = replace(found, settings=model_settings({"name": "made", "max_length": None}))
    assert judge_truncation(whole).verdict == "warning"


E5 = Prompts("its name is of the e5 family, which", "query: ", "passage: ", declared=True)
GUESS = Prompts("the e5 family", "query: ", "passage: ", declared=False)


def prompted(evidence: Evidence, prompts: Prompts, gains: list[float]) -> Opinion:
    trial = PromptTrial(prompts, 0.5 + np.array(gains), np.full(len(gains), 0.5))
    measured = replace(evidence.found, wanted_prompts=(prompts,), prompt_trials=(trial,))
    settings = model_settings({"name": "made", "kind": "embedder"})
    return judge_prompts(replace(evidence, settings=settings, measured=measured))


@pytest.mark.parametrize(("queries", "verdict"), [(1, "ok"), (2, "ok"), (3, "ok"), (7, "ok"), (12, "fault")])
def test_prompts_that_help_on_few_queries_are_not_missing(queries: int, verdict: str, evidence: Evidence) -> None:
    judged = prompted(evidence, GUESS, [0.05 + 0.01 * number for number in range(queries)])
    assert judged.verdict == verdict, judged.seen
    assert ("on 1 query" in judged.seen) == (queries == 1)
    assert "n/a" not in judged.seen
    assert "nan" not in judged.seen


def test_prompts_that_a_name_asks_for_and_that_do_harm(evidence: Evidence) -> None:
    """A model trained without prompts may be called my-e5: what it does with them speaks against the name."""
    harm = [-0.2 - 0.01 * number for number in range(12)]
    assert prompted(evidence, E5, harm).verdict == "warning"
    assert prompted(evidence, E5, harm[:3]).verdict == prompted(evidence, E5, [0.0] * 12).verdict == "fault"


@pytest.mark.parametrize("size", [1e-9, 1e-6, 1.0, 1e6])
def test_the_size_of_scores_does_not_make_them_constant(size: float, evidence: Evidence) -> None:
    assert not is_constant(replace(evidence.found, scores=size * evidence.found.scores))
    assert is_constant(replace(evidence.found, scores=np.full_like(evidence.found.scores, size)))


def test_a_sentinel_does_not_hide_a_score_that_depends_on_its_place(evidence: Evidence) -> None:
    """-1e6 stands for a text that was not read; the others' differences are as large beside it as without it."""
    scores = evidence.found.scores.astype(np.float32)
    plain = spread(evidence.found.sample.task, scores)
    scores[-1] = -1e6
    assert spread(evidence.found.sample.task, scores) < 200 * plain
    again = scores[: len(evidence.found.shuffled.candidates)].copy()
    again[evidence.found.shuffled.candidates[0]] += 5 * np.float32(plain)
    shuffled = Rescored(evidence.found.shuffled.candidates, again[evidence.found.shuffled.candidates])
    judged = judge_order(replace(evidence, measured=replace(evidence.found, scores=scores, shuffled=shuffled)))
    assert judged.verdict == "fault", judged.seen


def test_noise_in_one_direction_is_no_noise(evidence: Evidence) -> None:
    """In bf16 scores may move by half of their spread; positives that all gain by standing first do not move by chance."""
    task = evidence.found.sample.task
    gains = np.array([candidate.gain > 0 for request in task.requests for candidate in request.candidates])
    plain = np.array([noise((request.query.texts[0], c.text)) for request in task.requests for c in request.candidates])
    numbers = np.arange(len(gains))
    size = 0.45 * spread(task, plain)

    def judged(moved: np.ndarray) -> str:
        measured = replace(evidence.found, scores=plain + moved, shuffled=Rescored(numbers, plain))
        return judge_order(replace(evidence, dtype="bf16", measured=measured)).verdict

    assert judged(size * np.where(gains, 1, -1)) == "fault"
    assert judged(size * np.random.default_rng(0).uniform(-1, 1, len(gains))) == "ok"
