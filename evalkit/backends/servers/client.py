"""One asynchronous HTTP client for all servers: bounded concurrency, retries with back-off (by tenacity), errors for people."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from typing import Any, TypeVar

import httpx2
import numpy as np
from anyio.from_thread import start_blocking_portal
from numpy.typing import NDArray
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exception,
    wait_random_exponential,
)

from evalkit.backends.servers.addresses import endpoint, is_loopback, plain_location
from evalkit.backends.servers.answers import WrongAnswerError
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Part
from evalkit.models.server_settings import ServerSettings
from evalkit.output.numbers import counted
from evalkit.output.text import HIDDEN, SHORTEST_SECRET, without_secrets

REPORTED = 3.0  # a wait as long as this is reported
SHOWN = 300  # characters of an answer in an error
Outcome = TypeVar("Outcome")
logger = logging.getLogger("evalkit")

TRANSIENT = frozenset({429, 502, 503, 504})
ABOUT_TEXTS = frozenset({400, 413, 422, 500})  # with which servers refuse a request for what it holds, or fail at it
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; a wait is drawn below a bound that doubles from one try to the next
LONGEST_ASKED = 600.0  # a server that asks for more is not waited for
LONGEST_ALTOGETHER = 1_800.0  # no try of a request starts later than that after its first one


@dataclass(frozen=True)
class Question:
    """One request: the positions of its items, where and what is asked, and how the answer becomes outputs, in that order.

    What takes more than one request has `more` bodies, asked one after the other; `read` gets the answers to all of them.
    """

    positions: NDArray[np.int64]
    path: str
    body: Mapping[str, Any]
    read: Callable[..., NDArray[np.float32]]
    more: tuple[Mapping[str, Any], ...] = ()


class AnswerError(EvalkitError):
    """A request that a server does not answer as asked, however often it is tried: it refuses it, or its answer is wrong."""


class RefusedError(AnswerError):
    """A request that a server refuses for what it holds. `positions` are those of the request's items, where they are known."""

    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Client:
    """Asks one server. `settings.url` is checked; the key is in the headers alone, and struck out of what the server says.

    `named` gathers what `answers` were said to be those of: the models in their fields `model`.
    """

    backend: str
    settings: ServerSettings
    key: str | None = field(default=None, repr=False)
    named: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The server's address."""
        return str(self.settings.url)

    def stream(self, questions: Iterator[Question]) -> Generator[Part]:
        """Ask all questions, several at once, and yield each answer as it comes. Closing the generator ends the requests in flight.

        The event loop has a thread of its own, since the caller's thread may have one already (a notebook).
        Raises EvalkitError where the server does not answer as it should.
        """
        answered: SimpleQueue[Part | None] = SimpleQueue()
        with start_blocking_portal() as portal:
            asking = portal.start_task_soon(self._ask_all, questions, answered.put)
            asking.add_done_callback(lambda _: answered.put(None))
            while (part := answered.get()) is not None:
                yield part
            asking.result()

    def answers(self, questions: Sequence[Question]) -> list[NDArray[np.float32] | AnswerError]:
        """Ask some questions one after the other, and return for each its outputs, or why it was not answered as asked.

        Raises EvalkitError as `stream` does for all else: a server that is not there, a wrong key, a wrong address.
        """

        async def ask_all() -> list[NDArray[np.float32] | AnswerError]:
            outcomes: list[NDArray[np.float32] | AnswerError] = []
            async with self._connected() as http:
                for question in questions:
                    try:
                        outcomes.append((await self._answer(http, self._noting(question))).outputs)
                    except AnswerError as error:
                        outcomes.append(error)
            return outcomes

        with start_blocking_portal() as portal:
            return portal.call(ask_all)

    def _noting(self, question: Question) -> Question:
        def read(*answers: Any) -> NDArray[np.float32]:
            outputs = question.read(*answers)
            models = [answer.get("model") for answer in answers if isinstance(answer, dict)]
            self.named.update(model for model in models if isinstance(model, str))
            return outputs

        return replace(question, read=read)

    def get(self, path: str) -> Any:
        """Return what the server answers to a GET, read as JSON. Raises EvalkitError as `stream` does."""

        async def ask() -> Any:
            async with self._connected() as http:
                return (await self._ask(http, path, (None,), lambda answer: answer))[0]

        with start_blocking_portal() as portal:
            return portal.call(ask)

    def refusal(self, path: str, problem: str, kind: type[EvalkitError] = EvalkitError) -> EvalkitError:
        """Return the error that names the server, the address and what was wrong."""
        return kind(f"{self.backend} at {endpoint(self.url, path)} {problem}")

    def quote(self, text: str) -> str:
        """Return what the server says, short, in one line, and without the key and other secrets, which some servers repeat."""
        plain = " ".join(without_secrets(self._without_key(text)).split())
        return repr(plain if len(plain) <= SHOWN else plain[:SHOWN] + "…")

    def _without_key(self, content: Any) -> Any:
        """Return a JSON value without the key in any of its texts: a short one only where the server repeats the header."""
        if not self.key:
            return content
        if isinstance(content, str):
            if len(self.key) >= SHORTEST_SECRET:
                return content.replace(self.key, HIDDEN)
            return re.sub(rf"Bearer {re.escape(self.key)}(?!\w)", f"Bearer {HIDDEN}", content)
        if isinstance(content, dict):
            return {key: self._without_key(value) for key, value in content.items()}
        return list(map(self._without_key, content)) if isinstance(content, list) else content

    async def _ask_all(self, questions: Iterator[Question], put: Callable[[Part], None]) -> None:
        async with self._connected() as http:

            async def work() -> None:
                for question in questions:  # the workers share the iterator
                    put(await self._answer(http, question))

            workers = [asyncio.create_task(work()) for _ in range(self.settings.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, http: httpx2.AsyncClient, question: Question) -> Part:
        try:
            bodies = (question.body, *question.more)
            outputs, seconds = await self._ask(http, question.path, bodies, question.read)
        except RefusedError as error:
            error.positions = tuple(question.positions.tolist())
            raise
        return Part(question.positions, outputs, seconds / self.settings.concurrency)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx2.AsyncClient(
            headers=headers,
            timeout=None,  # each request has one limit for all that it does
            limits=httpx2.Limits(max_connections=self.settings.concurrency),
            follow_redirects=False,  # a key goes to the address that the user gave, and nowhere else
            trust_env=not is_loopback(self.url),  # no proxy stands before this machine itself
        ) as http:
            yield http

    async def _ask(
        self,
        http: httpx2.AsyncClient,
        path: str,
        bodies: Sequence[Mapping[str, Any] | None],
        read: Callable[..., Outcome],
    ) -> tuple[Outcome, float]:
        """Return what `read` makes of the answers, and the seconds that they took, without those of tries that failed."""
        tries = 0

        async def attempt() -> tuple[Outcome, float]:
            nonlocal tries
            tries += 1
            contents, times = zip(*[await self._try(http, path, body) for body in bodies], strict=True)
            try:
                return read(*contents), sum(times)
            except WrongAnswerError as error:
                # one of many machines behind an address may give it, or one that is just going down
                said = self.quote("; ".join(json.dumps(content, ensure_ascii=False) for content in contents))
                raise WrongAnswersError(f"gave a wrong answer: {error}; it said {said}") from None

        def report(problem: str, seconds: float) -> None:
            if seconds >= REPORTED:
                address = endpoint(self.url, path)
                logger.info("%s at %s %s; trying again in %.0f s", self.backend, address, problem, seconds)

        try:
            return await insist(attempt, self.settings.retries, report)
        except PassingError as error:
            raise self.refusal(
                path,
                f"{error}; tried {counted(tries, 'time')} (backend.retries). Mend it and run the "
                "same again: what the store has is not asked for again",
                AnswerError if isinstance(error, WrongAnswersError) else EvalkitError,
            ) from None

    async def _try(self, http: httpx2.AsyncClient, path: str, body: Mapping[str, Any] | None) -> tuple[Any, float]:
        """Ask once. Raises PassingError for what may pass, EvalkitError for what does not."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.timeout):
                response = await self._send(http, path, body)
        except TimeoutError:
            limit = f"{self.settings.timeout:g} s (backend.timeout, or a smaller backend.batch_size)"
            raise PassingError(f"did not answer within {limit}") from None
        except httpx2.DecodingError as error:
            reason = self.quote(str(error) or type(error).__name__)
            raise PassingError(f"gave an answer that can't be unpacked (Content-Encoding): {reason}") from None
        except httpx2.RequestError as error:
            reason = self.quote(str(error) or type(error).__name__)
            raise PassingError(f"can't be reached, or broke off: {reason}") from None
        if response.is_success:
            return self._decoded(response), time.perf_counter() - started
        problem, asked = f"answered {response.status_code}: {self.quote(response.text)}", retry_after(response)
        if not is_transient(response):
            kind = RefusedError if response.status_code in ABOUT_TEXTS else EvalkitError
            raise self.refusal(path, problem + self._advice(response), kind)
        if asked > LONGEST_ASKED:
            raise self.refusal(path, f"{problem}; it asks to be left alone for {asked:.0f} seconds; try again then")
        raise PassingError(problem, asked)

    async def _send(self, http: httpx2.AsyncClient, path: str, body: Mapping[str, Any] | None) -> httpx2.Response:
        if body is None:
            return await http.get(endpoint(self.url, path))
        # as ASCII, in which a lone surrogate can be written too
        content = json.dumps(body).encode("ascii")
        return await http.post(endpoint(self.url, path), content=content, headers={"Content-Type": "application/json"})

    def _decoded(self, response: httpx2.Response) -> Any:
        """Return the answer, without the key if the server repeats it: what it says of itself goes into results.

        Raises PassingError where it is not JSON, since it may have been cut off.
        """
        try:
            content = json.loads(response.content)
            return self._without_key(content) if self.key and self.key.encode() in response.content else content
        except (ValueError, RecursionError):
            if not response.content:
                raise PassingError(f"answered {response.status_code} with nothing in it") from None
            said, kind = self.quote(response.text), response.headers.get("Content-Type", "")
            page = (
                " (a web page: is backend.url the address of its API?)"
                if "html" in kind or "<html" in said.lower()
                else ""
            )
            raise PassingError(f"answered with what is not JSON{page}: {said}") from None

    def _advice(self, response: httpx2.Response) -> str:
        status = response.status_code
        if response.is_redirect:
            place = plain_location(response.headers.get("Location", ""))
            return (
                f"; it sends to {place}: give that as backend.url if you trust it"
                if place
                else "; it names no other address that could be told"
            )
        if status in (401, 403):
            given = "it refuses the key in" if self.key else "it wants a key, and there is none in"
            return f"; {given} the environment variable {self.settings.key_variable or '(backend.key_variable=NAME)'}"
        if status == 404:
            return "; is backend.url its address, and backend.served_model the name that it knows the model by?"
        if status == 413 or error_type(response) == "validation":
            return "; a smaller backend.batch_size may do, or shorter texts: backend.max_characters=N"
        if status in (400, 422):
            return "; where a text is too long for it, cut them: backend.max_characters=N"
        if status == 500:
            return (
                "; its log says why: memory that does not suffice (a smaller backend.batch_size), a text that it can't take "
                "(backend.max_characters=N cuts those too long), or a fault of its own"
            )
        return ""


class PassingError(Exception):
    """A try that failed for a reason that may pass; the message says which. `asked` is for how many seconds to wait."""

    def __init__(self, problem: str, asked: float = 0.0) -> None:
        super().__init__(problem)
        self.asked = asked


class WrongAnswersError(PassingError):
    """A try that was answered, but not with what was asked for."""


async def insist(
    attempt: Callable[[], Awaitable[Outcome]],
    retries: int,
    report: Callable[[str, float], None],
    *,
    longest: float = LONGEST_ALTOGETHER,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Outcome:
    """Return what `attempt` gives, within so many further tries and `longest` seconds.

    `report` hears of each wait: why, and for how many seconds. Raises the PassingError of the last try where none succeeds, and
    any other error at once.
    """
    retrying = AsyncRetrying(
        sleep=sleep,
        retry=retry_if_exception_type(PassingError),
        # what the server asks for, and some more, so that many clients don't come back at once
        wait=wait_exception(_asked) + wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        stop=stop_after_attempt(retries + 1) | stop_before_delay(longest),
        before_sleep=lambda state: report(str(state.outcome and state.outcome.exception()), state.upcoming_sleep),
        reraise=True,
    )
    return await retrying(attempt)


def _asked(error: BaseException) -> float:
    return error.asked if isinstance(error, PassingError) else 0.0


def is_transient(response: httpx2.Response) -> bool:
    """Return whether the server says that it may answer later."""
    return response.status_code in TRANSIENT or error_type(response) == "overloaded"


def error_type(response: httpx2.Response) -> str:
    """Return what TEI calls the error, in small letters: its versions disagree on status codes and on capitals."""
    try:
        content = json.loads(response.content)
    except (ValueError, RecursionError):
        return ""
    return str(content.get("error_type", "")).lower() if isinstance(content, dict) else ""


def retry_after(response: httpx2.Response) -> float:
    """Return the seconds that the server asks to wait: a number, or the time until a date; 0 where it asks nothing sensible."""
    asked = response.headers.get("Retry-After", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            moment = parsedate_to_datetime(asked)
        except ValueError:
            return 0.0
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
