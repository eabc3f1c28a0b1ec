"""What a server's answer says of trying again, and how long one request is tried: with tenacity."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exception,
    wait_random_exponential,
)

T = TypeVar("T")
TRANSIENT = frozenset({429, 502, 503, 504})
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; a wait is drawn below a bound that doubles from one try to the next
LONGEST_ASKED = 600.0  # a server that asks for more is not waited for
LONGEST_ALTOGETHER = 1_800.0  # no try of a request starts later than that after its first one


class PassingError(Exception):
    """A try that failed for a reason that may pass; the message says which. `asked` is for how many seconds to wait."""

    def __init__(self, problem: str, asked: float = 0.0) -> None:
        super().__init__(problem)
        self.asked = asked


async def insist(
    attempt: Callable[[], Awaitable[T]],
    retries: int,
    tell: Callable[[str, float], None],
    *,
    longest: float = LONGEST_ALTOGETHER,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """What `attempt` gives, within so many further tries and `longest` seconds.

    `tell` hears of each wait: why, and for how many seconds. Raises the PassingError of the last try where none succeeds, and
    any other error at once.
    """
    retrying = AsyncRetrying(
        sleep=sleep,
        retry=retry_if_exception_type(PassingError),
        # what the server asks for, and some more, so that many clients don't come back at once
        wait=wait_exception(_asked) + wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        stop=stop_after_attempt(retries + 1) | stop_before_delay(longest),
        before_sleep=lambda state: tell(str(state.outcome and state.outcome.exception()), state.upcoming_sleep),
        reraise=True,
    )
    return await retrying(attempt)


def _asked(error: BaseException) -> float:
    return error.asked if isinstance(error, PassingError) else 0.0


def is_transient(response: httpx2.Response) -> bool:
    """Whether the server says that it may answer later."""
    return response.status_code in TRANSIENT or error_type(response) == "overloaded"


def error_type(response: httpx2.Response) -> str:
    """What TEI calls the error, in small letters: its versions disagree on status codes and on capitals."""
    try:
        content = json.loads(response.content)
    except (ValueError, RecursionError):
        return ""
    return str(content.get("error_type", "")).lower() if isinstance(content, dict) else ""


def retry_after(response: httpx2.Response) -> float:
    """The seconds that the server asks to wait: a number, or the time until a date; 0 where it asks nothing sensible."""
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
