"""Scores a task with a model: unique work once, what is stored not again, the results back in the task's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError, NonFiniteError, RefusedTextError
from evalkit.models.interfaces import Items, Probed, RunnableModel, name_text
from evalkit.models.settings import ModelSettings
from evalkit.records import Role, Run, Task, Usage
from evalkit.scoring.adapters import adapter_of
from evalkit.scoring.execution import fill
from evalkit.scoring.items import (
    TaskTexts,
    best_of_variants,
    list_items,
    pair_items,
    task_texts,
    text_items,
    unique_pairs,
)
from evalkit.scoring.outputs import NOT_COUNTED, OutputTable
from evalkit.scoring.plan import whole_lists, window_keys
from evalkit.scoring.store import ScoreStore, StoredOutput, item_key

SIMILARITY_ROWS = 256  # whose vectors fit into a processor's cache
PROBE = item_key("probe", "of", "a server")
"""The key of a server's answers to its probe: no item's, since those are of two texts."""
UNCHECKED = item_key("scores", "of", "a server", "not compared")
"""The key of what says whether a run of a server's has stored scores and not yet made sure that one model gave them: 1 or 0."""
ROUNDING = 0.02
"""How far a server's answers may move from one run to another, as a share of their range: by what low precision rounds."""
SMALLEST_RANGE = 1e-5
LEAST = 1e-3
"""What a probability counts for at least, and at most less than 1: beyond, low precision has no steps left."""
LOGIT_ROUNDING = 0.7
"""How far the logit of a server's probability may move: by what fp16 rounds one of 0.999."""


@dataclass(frozen=True, slots=True)
class ScoreMemory:
    """Where scores are kept between runs; with `refresh` a run begins anew, and nothing stored before is read from then on."""

    store: ScoreStore | None = None
    refresh: bool = False

    def begin(self, keys: Sequence[bytes]) -> None:
        """Begin a run of these items."""
        if self.store is not None and self.refresh:
            self.store.begin_anew(keys)

    def begin_asking(self, scorer: object, *, fresh: bool) -> NDArray[np.float32] | None:
        """Make sure that what is stored is of the model that answers now, where that may be another one than before.

        Returns its answers to the probe; None for a scorer that has none. `fresh` says that it was opened, and probed, just now.
        What is stored from here on counts as unchecked. Raises EvalkitError where the answers are not those that were stored.
        """
        if not isinstance(scorer, Probed):
            return None
        answers = (scorer.probe.answers if fresh else scorer.probe_again()).ravel()
        if self.store is None:
            return answers
        before = next((stored.output for _, stored in self.store.read([PROBE])), None)
        if before is not None and not _same_model(before, answers):
            raise EvalkitError(
                "the server does not answer evalkit's probe as it did when the stored scores were made: it runs another model "
                "under the same name, or does not repeat itself. "
                "cache=refresh scores all again, and reads them no more; cache=off leaves them as they are"
            )
        if before is None:
            self.store.write({PROBE: StoredOutput(answers, NOT_COUNTED, truncated=False)})
        self._set_unchecked(True)
        return answers

    def end_asking(self, scorer: object, answers: NDArray[np.float32] | None, keys: Sequence[bytes]) -> None:
        """Make sure that the model that gave these answers to the probe answers still, now that these items are scored.

        Raises EvalkitError where it does not; what is stored is then read no more, since nothing says which model it is of. A
        server that never repeats itself tells nothing: that is one of its probe's findings.
        """
        if not isinstance(scorer, Probed) or answers is None:
            return
        repeats = _same_model(scorer.probe.answers.ravel(), scorer.probe.again.ravel())
        if repeats and not _same_model(answers, scorer.probe_again().ravel()):
            if self.store is not None:
                self.store.begin_anew(keys)
            raise EvalkitError(
                "the server no longer answers evalkit's probe as it did when this run began: its model changed on the way. "
                "The scores are of no one model and are not used; run the same again to score all anew"
            )
        self._set_unchecked(False)

    @property
    def unchecked(self) -> bool:
        """Whether scores are stored of which no run has made sure at its end that one model gave them."""
        found = [] if self.store is None else [stored.output for _, stored in self.store.read([UNCHECKED])]
        return any(output.any() for output in found)

    def _set_unchecked(self, unchecked: bool) -> None:
        if self.store is not None:
            value = np.array([unchecked], np.float32)
            self.store.write({UNCHECKED: StoredOutput(value, NOT_COUNTED, truncated=False)})


NOWHERE = ScoreMemory()


def _same_model(before: NDArray[np.float32], now: NDArray[np.float32]) -> bool:
    """Return whether two answers to the probe differ by no more than one machine's rounding from another's.

    Probabilities near 0 and 1 hardly differ between models: they are compared as logits, too.
    """
    if before.shape != now.shape:
        return False
    if min(before.min(), now.min()) >= 0 and max(before.max(), now.max()) <= 1:
        from scipy.special import logit

        old, new = (logit(np.clip(one.astype(np.float64), LEAST, 1 - LEAST)) for one in (before, now))
        if float(np.abs(old - new).max()) > max(ROUNDING * float(np.ptp(old)), LOGIT_ROUNDING):
            return False
    return float(np.abs(before - now).max()) <= ROUNDING * max(float(np.ptp(before)), SMALLEST_RANGE)


def score_task(model: RunnableModel, settings: ModelSettings, task: Task, kept: ScoreMemory = NOWHERE) -> Run:
    """Return the model's score for every candidate of the task. Its weights are loaded only if a score is missing.

    Raises NonFiniteError, naming the texts, where a score or vector is not finite, and EvalkitError, with its ids, for a text
    that a server refuses, or that fails a tokenizer since it holds half a character.
    """
    try:
        return _score(model, settings, task, kept)
    except RefusedTextError as error:
        raise EvalkitError(f"{error}{_places(task, error)}") from error
    except (TypeError, UnicodeEncodeError) as error:  # as tokenizers and libraries raise them
        if (place := _half_character(task)) is None:
            raise
        raise EvalkitError(
            f"{place} of {task.name} holds half a surrogate pair, which is no character: {settings.name} can't read it; take it out"
        ) from error


def _half_character(task: Task) -> str | None:
    """Return which text of the task can't be encoded, the first if there are several; None where all can."""
    for request in task.requests:
        named = [(f"query {request.query.query_id}", text) for text in request.query.texts]
        named += [(f"document {candidate.doc_id}", candidate.text) for candidate in request.candidates]
        for place, text in named:
            try:
                text.encode()
            except UnicodeEncodeError:
                return place
    return None


def _places(task: Task, refused: RefusedTextError) -> str:
    """Return where in the task a text that was refused comes first, as its ids."""
    for request in task.requests:
        if refused.query is None or refused.query in request.query.texts:
            ids = [candidate.doc_id for candidate in request.candidates if candidate.text == refused.document]
            if refused.document is None or ids:
                named = [f"query {request.query.query_id}"] if refused.query is not None else []
                named += [f"document {doc_id}" for doc_id in ids[:1]]
                return f" ({', '.join(named)} of {task.name})"
    return ""


def _score(model: RunnableModel, settings: ModelSettings, task: Task, kept: ScoreMemory) -> Run:
    with model.guard():  # a model's code may be asked for as late as that
        if kept.store is None and (whole := adapter_of(model.scorer).whole_task) is not None:
            return whole.score(task)
        texts = task_texts(task)
        if settings.makes_vectors:
            return _score_vectors(model, settings, task, texts, kept)
        if settings.kind == "listwise":
            return _score_lists(model, settings, task, texts, kept)
        return _score_pairs(model, task, texts, kept)


def _score_pairs(model: RunnableModel, task: Task, texts: TaskTexts, kept: ScoreMemory) -> Run:
    pairs, meeting_pairs = unique_pairs(texts)
    items = pair_items(texts, pairs)
    keys = _keys(items, model.independent)
    kept.begin(keys)
    table = _outputs(model, items, OutputTable(keys, kept.store, width=1), kept)
    tokens, truncated = _counts(table, meeting_pairs[texts.starts])
    return Run(
        scores=best_of_variants(table.values[meeting_pairs], texts.starts),
        usage=_usage([table], _latencies(task, table.seconds[meeting_pairs], texts.starts)),
        tokens=tokens,
        truncated=truncated,
    )


def _score_lists(model: RunnableModel, settings: ModelSettings, task: Task, texts: TaskTexts, kept: ScoreMemory) -> Run:
    """Score each query's candidates together, in as many shuffled orders as `permutations` says; a score is their mean."""
    for request in task.requests:
        if len(request.query.texts) > 1:  # its scores would be the highest of several lists
            raise EvalkitError(
                f"query {request.query.query_id} of {task.name} has {len(request.query.texts)} texts: {settings.name} ranks lists, "
                "and the scores of one list can't be compared with those of another; give the query one text"
            )
    items, numbers = list_items(task, texts, settings.order_seed, settings.permutations)
    keys = _list_keys(items)
    kept.begin(keys)
    table = _outputs(model, items, OutputTable(keys, kept.store, width=1), kept)
    tokens, truncated = _counts(table, numbers[:, 0])
    return Run(
        scores=table.values[numbers].mean(axis=1, dtype=np.float64).astype(np.float32),
        usage=_usage([table], _latencies(task, table.seconds[numbers].sum(axis=1), texts.starts)),
        tokens=tokens,
        truncated=truncated,
    )


def _score_vectors(
    model: RunnableModel, settings: ModelSettings, task: Task, texts: TaskTexts, kept: ScoreMemory
) -> Run:
    queries, documents = embed(model, texts.queries, texts.documents, kept)
    query_vectors, document_vectors = (table.values.reshape(len(table.values), -1) for table in (queries, documents))
    scores = similarities(query_vectors, document_vectors, texts.meetings, settings.similarity)
    if not np.isfinite(scores).all():
        query, document = texts.meetings[np.argmin(np.isfinite(scores))]
        raise NonFiniteError(
            f"the similarity of {name_text('query', texts.queries[query])} and {name_text('document', texts.documents[document])} "
            "is not a finite number: a vector has length zero, or is too long; are the weights whole?"
        )
    tokens, truncated = _counts(documents, texts.meetings[texts.starts, 1])
    seconds = documents.seconds[texts.meetings[:, 1]]
    return Run(
        scores=best_of_variants(scores, texts.starts),
        usage=_usage([queries, documents], _latencies(task, seconds, texts.starts)),
        tokens=tokens,
        truncated=truncated,
    )


def embed(
    model: RunnableModel, queries: Sequence[str], documents: Sequence[str], kept: ScoreMemory = NOWHERE
) -> tuple[OutputTable, OutputTable]:
    """Return the vectors of distinct queries and of distinct documents, in the order given.

    Raises NonFiniteError, naming the text, where a vector is not finite.
    """
    items = text_items("query", queries), text_items("document", documents)
    query_keys, document_keys = (_keys(one, model.independent) for one in items)
    kept.begin([*query_keys, *document_keys])
    of_queries = _outputs(model, items[0], OutputTable(query_keys, kept.store), kept)
    return of_queries, _outputs(model, items[1], OutputTable(document_keys, kept.store, of_queries.width), kept)


class ChosenScores:
    """Scores chosen candidates of one task, a few at a time: each pair or text once, in the batches of those asked for with it."""

    def __init__(self, model: RunnableModel, settings: ModelSettings, task: Task, kept: ScoreMemory = NOWHERE) -> None:
        self._model, self._settings, self._kept = model, settings, kept
        self._texts = task_texts(task)
        self._ends = np.append(self._texts.starts[1:], len(self._texts.meetings))
        self._done: dict[str, dict[int, NDArray[np.float32]]] = {}
        self.tables: list[OutputTable] = []

    def score(self, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of candidates by their numbers in the task, as `score_task` does and with its errors."""
        starts, sizes = self._texts.starts[candidates], (self._ends - self._texts.starts)[candidates]
        firsts = np.cumsum(sizes) - sizes
        meetings = self._texts.meetings[np.repeat(starts - firsts, sizes) + np.arange(sizes.sum())]
        with self._model.guard():
            if self._settings.makes_vectors:
                queries = self._vectors("query", meetings[:, 0])
                documents = self._vectors("document", meetings[:, 1])
                rows = np.repeat(np.arange(len(meetings))[:, None], 2, axis=1)
                values = similarities(queries, documents, rows, self._settings.similarity)
            else:
                numbers = meetings[:, 0] * len(self._texts.documents) + meetings[:, 1]
                values = self._outputs("pair", numbers, 1, self._pairs)
        return best_of_variants(values, firsts)

    def usage(self) -> Usage:
        """Return what scoring has cost so far."""
        return _usage(self.tables, ())

    def _pairs(self, numbers: NDArray[np.int64]) -> Items:
        documents = len(self._texts.documents)
        return pair_items(self._texts, np.stack([numbers // documents, numbers % documents], axis=1))

    def _vectors(self, role: Role, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        texts = self._texts.queries if role == "query" else self._texts.documents
        return self._outputs(
            role, numbers, None, lambda new: text_items(role, tuple(texts[number] for number in new.tolist()))
        )

    def _outputs(
        self, kind: str, numbers: NDArray[np.int64], width: int | None, items_of: Callable[[NDArray[np.int64]], Items]
    ) -> NDArray[np.float32]:
        """Return the outputs of items by their numbers, and make those that are not there yet."""
        done = self._done.setdefault(kind, {})
        new = np.array([number for number in np.unique(numbers).tolist() if number not in done], np.int64)
        if len(new):
            items = items_of(new)
            keys = _keys(items, self._model.independent)
            self._kept.begin(keys)
            table = _outputs(self._model, items, OutputTable(keys, self._kept.store, width), self._kept)
            self.tables.append(table)
            done.update(zip(new.tolist(), table.values, strict=True))
        return np.stack([done[number] for number in numbers.tolist()])


def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    products: NDArray[np.float64] = np.einsum("ij,ij->i", left, right)
    return products


def _cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    cosines: NDArray[np.float64] = _dot(left, right) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return cosines


def _euclidean(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.linalg.norm(left - right, axis=1)
    return -distances


def _manhattan(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.abs(left - right).sum(axis=1)
    return -distances


COMPARISONS = {"cosine": _cosine, "dot": _dot, "euclidean": _euclidean, "manhattan": _manhattan}


def similarities(
    queries: NDArray[np.float32], documents: NDArray[np.float32], meetings: NDArray[np.int64], similarity: str
) -> NDArray[np.float32]:
    """Compare each meeting's two vectors, summed in float64 so that equal texts score equally.

    `similarity` is cosine, dot, euclidean or manhattan; the last two are negative distances, so that near texts come first.
    """
    scores = np.empty(len(meetings), np.float32)
    for start in range(0, len(meetings), SIMILARITY_ROWS):
        rows = meetings[start : start + SIMILARITY_ROWS]
        left, right = queries[rows[:, 0]].astype(np.float64), documents[rows[:, 1]].astype(np.float64)
        with np.errstate(all="ignore"):  # a vector of length zero gives NaN, which the caller refuses
            scores[start : start + SIMILARITY_ROWS] = COMPARISONS[similarity](left, right)
    return scores


def _outputs(model: RunnableModel, items: Items, table: OutputTable, kept: ScoreMemory) -> OutputTable:
    """Return the table, which has what is stored, with what the scorer makes of the other items."""
    if not table.complete or (model.independent and kept.unchecked):  # what is no server's has no such mark to look for
        fresh = not model.is_open
        answers = kept.begin_asking(model.scorer, fresh=fresh)
        fill(table, items, adapter_of(model.scorer).batches(items, table.known))
        kept.end_asking(model.scorer, answers, table.keys)
    return table


def _keys(items: Items, independent: bool) -> list[bytes]:
    """Return what each item's output is stored under: its texts, and unless independent its window, which decides its batch."""
    numbers = np.arange(len(items))
    if items.unit == "pair":
        keys = [item_key(*pair) for pair in items.pairs(numbers)]
    else:
        texts, role = items.texts(numbers)
        keys = [item_key(role, text) for text in texts]
    return keys if independent else window_keys(keys)


def _list_keys(items: Items) -> list[bytes]:
    """Return what each document's score in its list is stored under: the query, all documents in the order shown, and its text.

    The seed and the number of permutations are in that order, so that lists shown alike share their scores whatever these were.
    """
    keys = []
    for batch in whole_lists(items, np.zeros(len(items), np.bool_)):
        query, documents = items.query_list(batch.items)
        context = item_key("list", query, *documents)
        keys += [item_key(context.hex(), document) for document in documents]
    return keys


def _counts(
    table: OutputTable, items: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]] | tuple[None, None]:
    """Tokens and truncation per candidate, where the scorer counts them."""
    if (table.tokens == NOT_COUNTED).any():
        return None, None
    return table.tokens[items], table.truncated[items]


def _latencies(task: Task, seconds: NDArray[np.float64], starts: NDArray[np.int64]) -> tuple[float, ...]:
    """Per query that was scored whole, the machine time that its candidates took (documents only, for an embedder)."""
    per_candidate = np.add.reduceat(seconds, starts)
    candidates = np.array([len(request.candidates) for request in task.requests])
    offsets = np.concatenate([[0], np.cumsum(candidates)])[:-1][candidates > 0]
    per_query = np.add.reduceat(per_candidate, offsets)
    return tuple(per_query[np.isfinite(per_query)].tolist())


def _usage(tables: Sequence[OutputTable], latencies: tuple[float, ...]) -> Usage:
    return Usage(
        seconds=sum(table.elapsed for table in tables),
        items=sum(len(table.known) for table in tables),
        items_from_store=sum(table.from_store for table in tables),
        tokens=sum(int(table.tokens[table.tokens > 0].sum()) for table in tables),
        padding_tokens=sum(table.padding_tokens for table in tables),
        truncated_items=sum(int(table.truncated.sum()) for table in tables),
        latencies=latencies,
    )
