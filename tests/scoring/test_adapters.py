"""The kinds of scorer: each has its adapter, chosen in one place, and all give the same bytes for the same model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from fakes import ListParts, Lists, Network, PairParts, Pairs, TextParts, Vectors, Whole
from made_tasks import scored
from store_rows import rows_in
from stored_scores import TASK, score

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import (
    DoneBatch,
    ListScorer,
    ListStream,
    LocalNetwork,
    PairScorer,
    PairStream,
    Part,
    Scorer,
    TaskScorer,
    TextEmbedder,
    TextStream,
    TextWindow,
    WindowScorer,
)
from evalkit.records import Role
from evalkit.scoring import plan
from evalkit.scoring.adapters import (
    Elsewhere,
    InChunks,
    InListParts,
    InLists,
    InParts,
    InProcess,
    Planned,
    WholeTask,
    adapter_of,
)
from evalkit.scoring.store import FILE_NAME

Window = Callable[[int], TextWindow | None]


class Windows:
    """A WindowScorer that hands its windows, last one first, to a scorer in this process."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def run_windows(self, starts: Sequence[int], window: Window) -> Generator[DoneBatch]:
        adapter = adapter_of(self.scorer)
        assert isinstance(adapter, Planned)
        for start in reversed(starts):
            now = window(start)
            assert now is not None
            yield from adapter.run(now.items, adapter.lacking(now.items, now.known))


class Served(Pairs, PairParts):
    """A scorer of two kinds, as a server's is."""


KINDS: dict[object, tuple[Callable[[], Scorer], type]] = {
    PairScorer: (Pairs, InChunks),
    TextEmbedder: (Vectors, InChunks),
    PairStream: (PairParts, InParts),
    ListScorer: (Lists, InLists),
    ListStream: (ListParts, InListParts),
    TextStream: (TextParts, InParts),
    TaskScorer: (Whole, WholeTask),
    LocalNetwork: (Network, InProcess),
    WindowScorer: (lambda: Windows(Network()), Elsewhere),
}


def test_each_kind_of_scorer_has_its_adapter() -> None:
    assert set(KINDS) == set(get_args(Scorer))
    for make, adapter in KINDS.values():
        assert type(adapter_of(make())) is adapter
    assert type(adapter_of(Served())) is InParts  # answers as they come, rather than chunk by chunk


@pytest.mark.parametrize("thing", [object(), None, "a model", Scorer])
def test_what_is_no_scorer_is_refused(thing: object) -> None:
    named = f"{type(thing).__name__} is no scorer.*none of PairScorer, .*WindowScorer"
    with pytest.raises(TypeError, match=named):
        adapter_of(thing)
    with pytest.raises(TypeError, match=named):
        scored(thing, TASK)  # type: ignore[arg-type]


PAIR_SCORERS = (Pairs, PairParts, Served, Network, lambda: Windows(Network()), lambda: Windows(Pairs()))
EMBEDDERS = (Vectors, TextParts, Network, lambda: Windows(Network()), lambda: Windows(Vectors()))
ALL = [("cross-encoder", make) for make in PAIR_SCORERS] + [("embedder", make) for make in EMBEDDERS]


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_all_kinds_give_the_same_bytes(
    kind: str, make: Callable[[], Scorer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several windows and calls; whether nothing, something or all is stored already."""
    monkeypatch.setattr(plan, "WINDOW_ITEMS", 100)
    monkeypatch.setattr(plan, "CHUNK", 20)
    plain = scored(Pairs() if kind == "cross-encoder" else Vectors(), TASK, kind=kind)
    assert scored(make(), TASK, kind=kind).scores.tobytes() == plain.scores.tobytes()
    third = replace(TASK, requests=TASK.requests[::3])
    for independent in (True, False):
        folder = tmp_path / str(independent)
        some = score(folder, make(), third, kind=kind, independent=independent)
        assert 0 < some.usage.items < plain.usage.items
        rest = score(folder, make(), kind=kind, independent=independent)
        assert rest.scores.tobytes() == plain.scores.tobytes()
        assert rest.usage.items == plain.usage.items
        assert rest.usage.items_from_store == (some.usage.items if independent else 0)  # no window is the same
        again = score(folder, Whole(), kind=kind, independent=independent)  # its scorer is not asked for anything
        assert again.scores.tobytes() == plain.scores.tobytes()
    assert rows_in(tmp_path / "True" / FILE_NAME) == plain.usage.items


def test_a_stream_is_asked_once_for_what_is_lacking(tmp_path: Path) -> None:
    first = replace(TASK, requests=TASK.requests[::3])
    score(tmp_path, PairParts(), first, independent=True)
    score(tmp_path / "texts", TextParts(), first, kind="embedder", independent=True)
    pairs, texts = PairParts(), TextParts()
    score(tmp_path, pairs, independent=True)
    score(tmp_path / "texts", texts, kind="embedder", independent=True)
    rest = [request for number, request in enumerate(TASK.requests) if number % 3]
    assert pairs.calls == [[(r.query.texts[0], candidate.text) for r in rest for candidate in r.candidates]]
    assert texts.calls == [
        ("query", [request.query.texts[0] for request in rest]),
        ("document", [candidate.text for request in rest for candidate in request.candidates]),
    ]


@pytest.mark.parametrize("make", [Pairs, PairParts])
def test_a_scorer_of_pairs_is_given_no_texts(make: Callable[[], Scorer]) -> None:
    with pytest.raises(TypeError, match="texts in the role 'query': a scorer of pairs can't score them"):
        scored(make(), TASK, kind="embedder")


@pytest.mark.parametrize("make", [Vectors, TextParts])
def test_an_embedder_is_given_no_pairs(make: Callable[[], Scorer]) -> None:
    with pytest.raises(TypeError, match="the items are pairs: an embedder of texts can't score them"):
        scored(make(), TASK)


def test_scores_of_a_whole_task(tmp_path: Path) -> None:
    run = scored(Whole(), TASK)
    assert run.scores.tobytes() == scored(Pairs(), TASK).scores.tobytes()
    assert (run.usage.items, run.tokens, run.truncated) == (len(run.scores), None, None)
    with pytest.raises(TypeError, match="Whole scores whole tasks: nothing of it can be stored"):
        score(tmp_path, Whole())


class Growing(TextParts):
    """Its vectors become longer on the way."""

    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        for number, part in enumerate(super().embed_parts(texts, role)):
            yield replace(part, outputs=np.pad(part.outputs, ((0, 0), (0, number))))


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(EvalkitError, match=r"the vector of query '问题\d+' has 17 numbers, those before it have 16"):
        scored(Growing(), TASK, kind="embedder")
