"""Scorers and models that a server runs: what a backend's module makes out of its codecs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import read_backend
from evalkit.backends.parts import joined
from evalkit.backends.servers.addresses import checked_url, is_loopback, read_key
from evalkit.backends.servers.client import Client, Question, RefusedError, logger
from evalkit.backends.servers.codecs import EmbeddingCodec, LateCodec, Opened, PairCodec, RerankCodec
from evalkit.backends.servers.list_answers import ListSize
from evalkit.backends.servers.names import answered_findings
from evalkit.backends.servers.probing import DOCUMENTS, QUERY, Ask, Outcome, ask_again, probe_server
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError, RefusedTextError, UnfitServerError
from evalkit.models.findings import report_once
from evalkit.models.folders.resolving import RECIPE as FIELDS
from evalkit.models.interfaces import (
    Part,
    QueryList,
    RunnableModel,
    Runtime,
    ScoredList,
    Scorer,
    ServerProbe,
    name_text,
)
from evalkit.models.server_settings import ROLES, ServerSettings
from evalkit.models.settings import ModelSettings, read_model
from evalkit.models.weights import find_model, who_scores
from evalkit.output.numbers import counted
from evalkit.records import ModelIdentity, Role

RERANK_BATCH_SIZE = 32
LANGUAGE_MODEL = "llm-reranker"
RECIPE = ("kind", "max_length", "query_prompt", "document_prompt", "similarity")
PROMPTED = FIELDS[LANGUAGE_MODEL]
"""What of a recipe decides the scores of a server that reads texts, and what besides where evalkit assembles what it reads."""


@dataclass(frozen=True)
class Served:
    """A model and the server that runs it; `name` is what the server calls it. Requests hold at most `batch_size` texts."""

    settings: ModelSettings
    client: Client
    name: str
    batch_size: int

    def texts(self, texts: Sequence[str], role: Role) -> list[str]:
        """Return the texts behind their role's prompt, cut to what the server takes; a language model's without it."""
        prompt = self.settings.query_prompt if role == "query" else self.settings.document_prompt
        if self.settings.kind == LANGUAGE_MODEL:  # whoever assembles its input puts the prompts there
            prompt = ""
        return [(prompt + text)[: self.client.settings.max_characters] for text in texts]

    def role(self, role: Role) -> dict[str, str]:
        """Return the field in which a request says what its texts are; empty where the server has none."""
        server = self.client.settings
        value = server.query_role if role == "query" else server.document_role
        return {server.role_field: value} if server.role_field and value else {}

    def probed(
        self,
        ask: Ask,
        outputs: str,
        *,
        roles: bool = False,
        as_numbers: Ask | None = None,
        opened: Opened | None = None,
        lists: ListSize | None = None,
    ) -> ServerProbe:
        """Probe the server, and report what is found; where evalkit assembles its inputs, `opened` says what was found before.

        `lists` is how long the lists are that a listwise model gets.

        Raises UnfitServerError, which names it, where it can't be used.
        """
        limit = self.client.settings.max_characters
        try:
            probe = probe_server(
                self.settings,
                ask,
                self.batch_size,
                outputs,
                limit,
                roles,
                as_numbers,
                assembled=opened is not None,
                lists=lists,
            )
        except UnfitServerError as error:
            raise UnfitServerError(
                f"{self.client.backend} at {self.client.url} runs {self.name}, and {error}"
            ) from error
        if opened is not None:
            probe = replace(probe, seen=opened.seen + probe.seen, findings=opened.findings + probe.findings)
        named = answered_findings(self.client, self.settings, self.name)
        probe = replace(probe, seen=probe.seen + named, findings=probe.findings + named)
        logger.info(
            "%s at %s was probed with %s", self.client.backend, self.client.url, counted(probe.requests, "request")
        )
        report_once(self.settings.name, [f"{self.client.backend}: {finding}" for finding in probe.findings])
        return probe

    def looked_into(
        self,
        error: RefusedError,
        items: Sequence[Sequence[str]],
        ask: Callable[[int | None], Iterator[Question]],
    ) -> tuple[str, int | None]:
        """Return what can be said of a request that was refused, and which of its items is refused alone; None where none is known.

        What is blank is asked for alone first, then the longest. `ask` gives the request for one item, or for short texts that were
        answered when the server was probed (None): where these are refused too, no item is the cause.
        """
        positions = error.positions
        lengths = {number: sum(map(len, items[number])) for number in positions}
        blank = next((number for number in positions if any(not text.strip() for text in items[number])), None)
        longest = max(positions, key=lengths.__getitem__)
        for number in dict.fromkeys(one for one in (blank, longest) if one is not None):
            if len(positions) > 1 and not self._refuses(ask(number)):
                continue
            if self._refuses(ask(None)):
                return (
                    "short texts that it answered before are refused too, so that no text of the task is the cause",
                    None,
                )
            known = "is blank" if number == blank else f"has {lengths[number]:,} characters"
            among = f", the longest of {len(positions)}" if len(positions) > 1 and number == longest else ""
            return f"{known}{among}", number
        return f"alone, the longest of its {len(positions)} is not refused: a smaller backend.batch_size may do", None

    def _refuses(self, questions: Iterator[Question]) -> bool:
        try:
            return isinstance(self.client.answers(list(questions))[0], RefusedError)
        except EvalkitError:  # it is not there any more, which says nothing of a text
            return False


@dataclass(frozen=True)
class ServedReranker:
    """A PairScorer and PairStream."""

    served: Served
    codec: PairCodec
    probe: ServerProbe

    def probe_again(self) -> NDArray[np.float32]:
        return ask_again(self.served.settings, _ask_pairs(self.served, self.codec), self.served.batch_size)

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return joined(self.score_parts(pairs), len(pairs))

    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        queries = self.served.texts([query for query, _ in pairs], "query")
        documents = self.served.texts([document for _, document in pairs], "document")
        sent = list(zip(queries, documents, strict=True))
        name = self.served.name
        try:
            yield from self.served.client.stream(self.codec.questions(name, sent, self.served.batch_size))
        except RefusedError as error:
            said, number = self.served.looked_into(
                error,
                pairs,
                lambda one: self.codec.questions(name, [(QUERY, DOCUMENTS[0]) if one is None else sent[one]], 1),
            )
            if number is None:
                raise EvalkitError(f"{error}; {said}") from error
            query, document = pairs[number]
            pair = f"the pair {name_text('query', query)} with {name_text('document', document)}"
            raise RefusedTextError(f"{error}; refused is {pair}, which {said}", query, document) from error


@dataclass(frozen=True)
class ServedLists:
    """A ListScorer and ListStream: a request holds one query with all its documents, and is never split."""

    served: Served
    codec: PairCodec
    probe: ServerProbe

    def probe_again(self) -> NDArray[np.float32]:
        return ask_again(self.served.settings, _ask_pairs(self.served, self.codec), self.served.batch_size)

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList:
        return ScoredList(joined(self.score_lists([(query, documents)]), len(documents)))

    def score_lists(self, lists: Sequence[QueryList]) -> Generator[Part]:
        for query, documents in lists:
            if len(documents) > self.served.batch_size:
                raise RefusedTextError(
                    f"{self.served.client.backend}: {name_text('query', query)} has {len(documents)} documents, and a request "
                    f"holds {self.served.batch_size} at most (backend.batch_size, or the server's own limit): a listwise model "
                    "must see them together; a first stage's task.top_k=N makes lists shorter",
                    query,
                    None,
                )
        ends = np.cumsum([len(documents) for _, documents in lists])
        try:
            yield from self.served.client.stream(self._questions(lists))
        except RefusedError as error:
            query, documents = lists[int(np.searchsorted(ends, error.positions[0], side="right"))]
            raise RefusedTextError(
                f"{error}; refused is the request of {name_text('query', query)} with its {len(documents)} documents, which a "
                "listwise model must see together",
                query,
                None,
            ) from error

    def _questions(self, lists: Sequence[QueryList]) -> Iterator[Question]:
        first = 0
        for query, documents in lists:
            sent = self.served.texts([query], "query") * len(documents)
            pairs = list(zip(sent, self.served.texts(documents, "document"), strict=True))
            for question in self.codec.questions(self.served.name, pairs, len(pairs)):
                yield replace(question, positions=first + question.positions)
            first += len(documents)


@dataclass(frozen=True)
class ServedEmbedder:
    """A TextEmbedder and TextStream."""

    served: Served
    codec: EmbeddingCodec
    probe: ServerProbe

    def probe_again(self) -> NDArray[np.float32]:
        return ask_again(self.served.settings, _ask_texts(self.served, self.codec), self.served.batch_size)

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return joined(self.embed_parts(texts, role), len(texts))

    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        fields, name = self.served.role(role), self.served.name
        sent = self.served.texts(texts, role)
        try:
            yield from self.served.client.stream(self.codec.questions(name, sent, self.served.batch_size, fields))
        except RefusedError as error:
            said, number = self.served.looked_into(
                error,
                [(text,) for text in texts],
                lambda one: self.codec.questions(name, [DOCUMENTS[0] if one is None else sent[one]], 1, fields),
            )
            if number is None:
                raise EvalkitError(f"{error}; {said}") from error
            text = texts[number]
            query, document = (text, None) if role == "query" else (None, text)
            raise RefusedTextError(
                f"{error}; refused is {name_text(role, text)}, which {said}", query, document
            ) from error


def open_client(backend: str, settings: ModelSettings, runtime: Runtime) -> Client:
    """Return a client for the server that the run names. Nothing is sent yet.

    Raises EvalkitError for a wrong address, a missing key, and settings that no server heeds.
    """
    server = runtime.server or ServerSettings()
    url = checked_url(backend, server.url)
    _refuse_ignored(backend, settings, runtime)
    key = read_key(backend, server.key_variable, required=url == read_backend(backend).url)
    if key and url.startswith("http:") and not is_loopback(url):
        logger.warning("the key in %s travels to %s unencrypted; better use https", server.key_variable, url)
    return Client(backend, server.model_copy(update={"url": url}), key)


def _refuse_ignored(backend: str, settings: ModelSettings, runtime: Runtime) -> None:
    if settings.kind in ("cross-encoder", "listwise") and settings.truncation != "longest_first":
        raise EvalkitError(
            f"model.truncation={settings.truncation}: backend={backend} can't be told so, servers cut pairs longest_first; "
            "backend=torch cuts either way"
        )
    wanted = runtime.server
    own = read_backend(backend)
    if settings.kind != "embedder" and wanted:
        for name in ROLES:
            if getattr(wanted, name) != getattr(own, name):
                raise EvalkitError(
                    f"backend.{name} says nothing to {settings.name}: only requests for embeddings have a role"
                )
    if settings.kind != LANGUAGE_MODEL and wanted and wanted.endpoint != own.endpoint:
        raise EvalkitError(
            f"backend.endpoint says nothing to {settings.name}, whose kind is {settings.kind}: only language models that rerank "
            f"({LANGUAGE_MODEL}) are asked in two ways"
        )


def refuse_changed(backend: str, settings: ModelSettings, *fields: str) -> None:
    """Refuse what the user says otherwise than the model's file, where the server can't be told: it does as it was started.

    No server can be told how a listwise model takes its lists in. How a model of the user's own pools is for the user to say: its
    file (local-embedder) does not know it.
    """
    if settings.name not in option_names("model"):
        return
    own = read_model(settings.name)
    if own.hub_id != settings.hub_id:  # a folder of the user's own that has a model's name
        return
    for field in (*fields, "max_query_length", "block_size"):
        known = own.hub_id is not None or field != "pooling"
        if known and getattr(settings, field) != getattr(own, field):
            raise EvalkitError(
                f"model.{field}={getattr(settings, field)}: backend={backend} can't be told so, the server does as it was started"
            )


def refuse_dot(backend: str, settings: ModelSettings) -> None:
    """Refuse what depends on the length of vectors where the server can't be told to leave it as it is."""
    if settings.kind == "embedder" and settings.similarity != "cosine":
        raise EvalkitError(
            f"model.similarity={settings.similarity}: backend={backend} may give vectors of length one, and can't be told not to"
        )


def request_size(client: Client, settings: ModelSettings, usual: int, most: int | None = None) -> int:
    """Return how many texts a request holds at most: `backend.batch_size`, else `usual`, and never more than a server's `most`.

    For a listwise model, whose requests are as long as its lists, it is what must not be exceeded, if anybody says so.
    """
    size = client.settings.batch_size or (sys.maxsize if settings.kind == "listwise" else usual)
    return size if most is None else min(size, most)


def served_reranker(
    backend: str,
    settings: ModelSettings,
    runtime: Runtime,
    codec: RerankCodec,
    *,
    truncation: str,
    most: int | None = None,
    hub_ids: bool = False,
) -> RunnableModel:
    """Return a reranker behind an API that gives probabilities. Nothing is sent yet.

    `truncation` says where it cuts long texts, `most` how many documents of a request it takes at most, `hub_ids` that it calls
    models by their whole Hub id.
    """
    refuse_changed(backend, settings, "max_length")
    client = open_client(backend, settings, runtime)
    return served_model(
        client,
        settings,
        codec,
        name=served_model_name(client, settings, hub_ids=hub_ids),
        batch_size=request_size(client, settings, RERANK_BATCH_SIZE, most),
        cache_dir=runtime.cache_dir,
        facts={"outputs": "probabilities", "truncation": truncation},
    )


def served_model_name(client: Client, settings: ModelSettings, *, hub_ids: bool = False) -> str:
    """Return what the server knows the model by: what the user says, else its Hub id, else its folder's name.

    Those who sell their own models' answers call them by the last part of the Hub id, unless `hub_ids`. Raises EvalkitError where
    nothing says it.
    """
    name = client.settings.served_model or settings.hub_id or (Path(settings.path).name if settings.path else None)
    if not name:
        raise EvalkitError(
            f"backend={client.backend} needs the name that the server knows the model by: backend.served_model=NAME"
        )
    if client.settings.served_model is None and client.url == read_backend(client.backend).url and not hub_ids:
        return name.rpartition("/")[2]
    return name


def served_model(
    client: Client,
    settings: ModelSettings,
    codec: PairCodec | EmbeddingCodec | LateCodec,
    *,
    name: str,
    batch_size: int,
    facts: Mapping[str, object],
    cache_dir: Path | None,
    revision: str | None = None,
    doubts: Callable[[], Sequence[str]] = tuple,
) -> RunnableModel:
    """Return the model as the server runs it.

    `name` is what the server calls it, `batch_size` the most texts of one request, `facts` what the backend knows of how scores are
    made, `cache_dir` where evalkit's cache is, `revision` the one that the server says it runs. `doubts` gives, when the scorer is
    opened, what a reader should know of whether it is this model; it raises EvalkitError where it is not.
    """
    if settings.kind == "listwise":
        facts = {**facts, "outputs": "scores of whole lists", "listwise": True}
    heeded = {"max_characters", *(ROLES if settings.kind == "embedder" else ())}
    decisive = client.settings.model_dump(include=heeded, exclude_none=True)
    backend = {"name": client.backend, "served_model": name, **decisive, **facts}
    identity, who = _who_scores(settings, name, revision, cache_dir)
    served = Served(settings, client, name, batch_size)

    def open_scorer(lists: ListSize | None = None) -> Scorer:
        doubted = doubts()
        scorer: Scorer
        if isinstance(codec, EmbeddingCodec):
            scorer = ServedEmbedder(served, codec, _probe_embedder(served, codec))
        else:
            scorer = _reranker(served, codec, str(facts["outputs"]), lists)
        report_once(settings.name, [f"{client.backend}: {doubt}" for doubt in doubted])
        return scorer

    way = {
        **who,
        **settings.model_dump(mode="json", include={*RECIPE, *(PROMPTED if settings.kind == LANGUAGE_MODEL else ())}),
        # the same name elsewhere may be another model, unless the server says which revision it runs
        "backend": backend if revision else {**backend, "url": client.url},
    }
    found = RunnableModel(identity, {**backend, "url": client.url}, way, open_scorer, independent=True)
    if settings.kind != "listwise":
        return found
    # only the task says how long lists are
    return replace(found, for_task=lambda task: replace(found, open=partial(open_scorer, ListSize.of(task))))


def _reranker(
    served: Served, codec: PairCodec | LateCodec, outputs: str, lists: ListSize | None
) -> ServedReranker | ServedLists:
    if isinstance(codec, LateCodec):
        opened = codec.find()
        probe = served.probed(_ask_pairs(served, opened.codec), outputs, opened=opened)
        return ServedReranker(served, opened.codec, probe)
    kind = ServedLists if served.settings.kind == "listwise" else ServedReranker
    return kind(served, codec, served.probed(_ask_pairs(served, codec), outputs, lists=lists))


def _ask_pairs(served: Served, codec: PairCodec) -> Ask:
    def ask(items: Sequence[tuple[str, ...]], size: int) -> list[Outcome]:
        queries, documents = (
            served.texts([one for one, _ in items], "query"),
            served.texts([two for _, two in items], "document"),
        )
        pairs = list(zip(queries, documents, strict=True))
        return served.client.answers(list(codec.questions(served.name, pairs, size)))

    return ask


def _ask_texts(served: Served, codec: EmbeddingCodec) -> Ask:
    def ask(items: Sequence[tuple[str, ...]], size: int) -> list[Outcome]:
        role: Role = "query" if items[0][0].endswith("query") else "document"
        texts = [text if first.startswith("bare ") else served.texts([text], role)[0] for first, text in items]
        return served.client.answers(list(codec.questions(served.name, texts, size, served.role(role))))

    return ask


def _probe_embedder(served: Served, codec: EmbeddingCodec) -> ServerProbe:
    packed = codec.wishes.get("encoding_format") == "base64"
    as_numbers = replace(codec, wishes={**codec.wishes, "encoding_format": "float"})
    return served.probed(
        _ask_texts(served, codec),
        "vectors",
        roles=bool(served.role("query")) and served.role("query") != served.role("document"),
        as_numbers=_ask_texts(served, as_numbers) if packed else None,
    )


def _who_scores(
    settings: ModelSettings, served_name: str, revision: str | None, cache_dir: Path | None
) -> tuple[ModelIdentity, dict[str, object]]:
    """Return whose weights a server runs, and what a way of scoring says of that.

    They are those of the folder that the user names, else what is known of them by name. Raises EvalkitError where the folder is
    not there or holds no model.
    """
    if settings.path:
        files = find_model(settings, offline=True, cache_dir=cache_dir)
        return files.identity, who_scores(files)
    if settings.hub_id:
        identity = ModelIdentity(settings.name, settings.hub_id, revision or settings.revision or "", settings.kind)
    else:
        name = served_name.rpartition("/")[2]
        hub_id = served_name if served_name.count("/") == 1 and not served_name.startswith("/") else f"local/{name}"
        identity = ModelIdentity(name, hub_id, revision or "", settings.kind)
    return identity, {"model": identity.hub_id, "revision": identity.revision}
