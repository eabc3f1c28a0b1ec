"""Other libraries' access to the Hub: kept offline where the user says so, never waiting for ever, failures told in one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.output.text import without_secrets

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
# of huggingface_hub; of requests (before its 1.0), of httpx and httpx2, and Python's own
_NOT_CACHED = ("LocalEntryNotFoundError", "OfflineModeIsEnabled")
_UNREACHABLE = (
    *_NOT_CACHED,
    "ConnectionError",
    "ConnectError",
    "ProxyError",
    "Timeout",
    "TimeoutError",
    "TimeoutException",
    "UnsupportedProtocol",
)
LONGEST_SILENCE = 4.0
_MORE = re.compile(r" ?For more information check: \S+")  # a page on HTTP, which httpx names with each status
_LONGEST = 300

# huggingface_hub and datasets, which read it once when they are imported, take an empty one for an address
if not os.environ.get(ENDPOINT_VARIABLE, "unset").strip():
    del os.environ[ENDPOINT_VARIABLE]


@cache
def limit_waits() -> None:
    """From now on no request to the Hub waits longer for a sign of life than HF_HUB_ETAG_TIMEOUT or HF_HUB_DOWNLOAD_TIMEOUT say.

    huggingface_hub heeds them for some requests alone: it lists a repository's files without any limit. It tries six times.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if not hasattr(huggingface_hub, "set_client_factory"):  # before 1.0
        return
    from huggingface_hub.utils._http import default_client_factory

    longest = float(max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT))

    def limit(request: Any) -> None:
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            step: min(longest, asked.get(step) or longest) for step in ("connect", "read", "write", "pool")
        }

    def make_client() -> Any:
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], limit]}
        return client

    huggingface_hub.set_client_factory(make_client)


def snapshot(repository: str, *, offline: bool, **wanted: Any) -> Path:
    """Return the folder of a repository's snapshot, as `huggingface_hub.snapshot_download` gives it.

    With `offline`, or where the Hub can't be reached, it comes from the Hub's cache. Raises what that function raises: all kinds
    of exceptions, of which `is_unreachable` and `reason` speak.
    """
    from huggingface_hub import snapshot_download

    limit_waits()
    problem = None if offline else unreachable_now()
    try:
        return Path(snapshot_download(repository, local_files_only=offline or problem is not None, **wanted))
    except Exception as error:
        if problem is None:
            raise
        raise error from problem


def unreachable_now() -> BaseException | None:
    """Return why the Hub gives no answer within seconds, or None where it gives any: huggingface_hub would try for minutes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        _ask_once(constants.ENDPOINT)
    except Exception as error:
        return error if is_unreachable(error) else None
    return None


@cache
def _ask_once(endpoint: str) -> None:
    """Ask for the Hub's front page; an answer of any kind is remembered, since exceptions are not cached."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers

    longest = max(LONGEST_SILENCE, float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 0))
    answers: SimpleQueue[BaseException | None] = SimpleQueue()

    def ask() -> None:
        try:
            get_session().head(endpoint, headers=build_hf_headers(), timeout=longest)
        except Exception as error:
            answers.put(error)
        else:
            answers.put(None)

    # in a thread of its own: looking up a name knows no limit
    Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=longest)
    except Empty:
        error = TimeoutError(f"no answer within {longest:g} s")
    if error is not None:
        raise error


def unreachable(error: BaseException) -> str:
    """Say of the Hub, in one line, why it gave nothing: its address, and the status that it answered or the last problem."""
    from huggingface_hub import constants

    if not constants.ENDPOINT.startswith(("http://", "https://")):
        named = without_secrets(constants.ENDPOINT)
        return f"{named!r} can't be reached: {ENDPOINT_VARIABLE} is no address such as https://huggingface.co; mend it or unset it"
    cause = error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    problem = f"answered HTTP {status}" if status else f"cannot be reached ({reason(cause)})"
    return without_secrets(f"{constants.ENDPOINT} {problem}")


def reason(error: BaseException) -> str:
    """Return what went wrong in another library, in one line: where its message alone says little, with the exception's name."""
    said = _MORE.sub("", " ".join(without_secrets(str(error)).split()))
    kind = type(error).__name__
    if isinstance(error, LookupError | TypeError | AttributeError | UnicodeError | json.JSONDecodeError):
        said = f"an answer that it does not understand: {kind}: {said}"
    said = said or kind
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"


@contextmanager
def reporting_hub_errors(what: str, *, offline: bool, advice: str) -> Iterator[None]:
    """Whatever goes wrong in the other library (it raises all kinds of exceptions) as one line that begins with `what`.

    `offline` has it take only what is in the Hub's cache, as does a Hub that can't be reached; `advice` is what to do then.
    """
    problem: BaseException | None = None
    try:
        limit_waits()
        problem = None if offline else unreachable_now()
        with _offline(offline or problem is not None):
            yield
    except EvalkitError:
        raise
    except Exception as error:
        if problem is not None and is_unreachable(error, _NOT_CACHED):
            why = f"{unreachable(problem)}, and its cache has not all that is needed; {advice}"
        else:
            why = f"{reason(error)}{f'; {advice}' if is_unreachable(error) else ''}"
        raise EvalkitError(f"{what}: {why}") from error


def is_unreachable(error: BaseException | None, kinds: tuple[str, ...] = _UNREACHABLE) -> bool:
    """Return whether an exception, or one that it came of, says that the Hub was not reached, whichever library raised it."""
    while error is not None:
        if any(kind.__name__ in kinds for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """As with HF_HUB_OFFLINE=1, which the libraries read only once, when they are imported."""
    if not offline:
        yield
        return
    import datasets
    import huggingface_hub.constants

    modules = (huggingface_hub.constants, datasets.config)
    before = [module.HF_HUB_OFFLINE for module in modules]
    variable = os.environ.get(OFFLINE_VARIABLE)
    os.environ[OFFLINE_VARIABLE] = "1"
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
        if variable is None:
            del os.environ[OFFLINE_VARIABLE]
        else:
            os.environ[OFFLINE_VARIABLE] = variable
