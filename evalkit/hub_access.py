"""Other libraries' access to the Hub: kept offline where the user says so, never waiting for ever, failures told in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from evalkit.errors import EvalkitError

OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
_UNREACHABLE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError")
_LONGEST = 300


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


def unreachable(error: BaseException) -> str:
    """Why the Hub could not be reached: its address, and the last problem, in one line."""
    from huggingface_hub import constants

    reason = " ".join(str(error.__cause__ or error).split()) or type(error.__cause__ or error).__name__
    return f"{constants.ENDPOINT} cannot be reached ({reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1] + '…'})"


@contextmanager
def reporting_hub_errors(what: str, *, offline: bool, advice: str) -> Iterator[None]:
    """Whatever goes wrong in the other library (it raises all kinds of exceptions) as one line that begins with `what`.

    `offline` has it take only what is in the Hub's cache; `advice` is what to do where the Hub can't be reached.
    """
    try:
        limit_waits()
        with _offline(offline):
            yield
    except EvalkitError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1] + "…"
        raise EvalkitError(f"{what}: {shown}{f'; {advice}' if _is_unreachable(error) else ''}") from error


def _is_unreachable(error: BaseException | None) -> bool:
    while error is not None:
        if any(kind.__name__ in _UNREACHABLE for kind in type(error).__mro__):
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
