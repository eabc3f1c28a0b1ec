"""The connection to Ray: made once, quiet, and ended so that nothing runs on. Ray is imported here when it is first used."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalkit.cluster.settings import CLIENT, RaySettings
from evalkit.errors import EvalkitError

ANSWER_SECONDS = 10.0
FINISH = "what was scored is kept: the same command goes on from there"


def connect(settings: RaySettings) -> bool:
    """Connect this process to the cluster, or start one of its own. False where it was connected already, by someone else.

    Raises EvalkitError where there is no such cluster, or it refuses.
    """
    address = os.environ.get("RAY_ADDRESS", "auto") if settings.address == "auto" else settings.address
    # both before Ray is imported: nothing is reported to its makers, and a client shows its token, as Ray's nodes do by themselves
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address.startswith(CLIENT) and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():
        return False
    _refuse_silent(address)
    more: dict[str, Any] = {"include_dashboard": False} if settings.address == "local" else {}
    if not address.startswith(CLIENT):
        more |= {"configure_logging": False, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    with _own_signals():
        try:
            ray.init(address, **more)
        except ImportError as error:
            raise EvalkitError(f'ray.address={settings.address}: {error}; pip install "ray[client]"') from error
        except Exception as error:  # it has one for each way to fail, all with a message
            raise EvalkitError(f"ray.address={settings.address}: {_reason(error, settings)}") from error
    _silence()
    return True


def _has_token() -> bool:
    """Whether there is a token for Ray's clusters, in one of the places where Ray looks for it."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def disconnect() -> None:
    """End the connection, and the cluster where it is this process's own."""
    import ray

    ray.shutdown()


def nodes() -> list[dict[str, float]]:
    """Return the resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def lost_connection(error: Exception) -> EvalkitError:
    """Return what to say where the cluster does not answer any more."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return EvalkitError(f"the connection to the Ray cluster is lost ({reason}); {FINISH}")


def _refuse_silent(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise EvalkitError(f"ray.address={address}: nothing answers there ({error.strerror or error})") from error


def _reason(error: Exception, settings: RaySettings) -> str:
    if settings.address == "auto" and isinstance(error, ConnectionError):
        return "no Ray cluster runs on this machine; ray start --head starts one, and ray.address=local needs none"
    lines = [" ".join(line.split())[:300] for line in str(error).strip().splitlines()] or [type(error).__name__]
    # a Ray Client server sends its traceback, whose last line says what went wrong
    what = " ".join(dict.fromkeys([lines[0], lines[-1]]))
    return (
        f"{what}; is that a Ray cluster, of this version of Ray and Python, and is its token, if it "
        "wants one, in RAY_AUTH_TOKEN or ~/.ray/auth_token?"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in the place of whoever had SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _silence() -> None:
    """Keep a dead node's last log lines out of standard output, where tables and JSON go; Ray has no switch for that."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None
