"""What is said where a cluster refuses."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import ray

from evalkit.cluster.connection import connect
from evalkit.cluster.settings import RaySettings
from evalkit.errors import EvalkitError


def test_a_client_s_server_s_own_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        trace = 'Traceback (most recent call last):\n  File "proxier.py", line 1\nRuntimeError: Proxy failed to Connect'
        raise ConnectionAbortedError(f"Initialization failure from server:\n{trace}\n")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it would be set here where this user has a token
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(EvalkitError) as told:
            connect(RaySettings(address=address))
    start = f"ray.address={address}: Initialization failure from server: RuntimeError: Proxy failed to Connect; is that"
    assert str(told.value).startswith(start)
    assert len(str(told.value).splitlines()) == 1
