"""How a fake server misbehaves for one request."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fake_servers import Handler, Mishap


def says(status: int, content: Any = None, **headers: str) -> Mishap:
    """An answer of that status; `Retry_After="1"` becomes the header."""
    plain = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(status, content if content is not None else {"error": "trouble"}, plain)


def says_bytes(content: bytes) -> Mishap:
    return lambda handler: handler.send_bytes(200, content)


def changes(change: Callable[[Any], Any]) -> Mishap:
    """The right answer, changed."""

    def answer(handler: Handler) -> None:
        status, content = handler.fake.described("POST", handler.path, handler.body)
        handler.reply(status, change(content))

    return answer


def reset(handler: Handler) -> None:
    """The connection breaks off, as when a server dies."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def breaks_off(handler: Handler) -> None:
    """Half an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"results": [')
    handler.close_connection = True


def sleeps(seconds: float) -> Mishap:
    def sleep(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return sleep


def cuts_json(handler: Handler) -> None:
    """The right answer, cut off, under a length that fits."""
    _, content = handler.fake.described("POST", handler.path, handler.body)
    whole = json.dumps(content, ensure_ascii=False).encode()
    handler.send_bytes(200, whole[: len(whole) // 2])


def doubles_index(answer: Any) -> Any:
    """The answer with its first result in place of the last (or once more, where there is only one)."""
    key = next((name for name in ("data", "results") if isinstance(answer, dict) and name in answer), None)
    results = answer if key is None else answer[key]
    if not isinstance(results, list) or not results:
        return {}
    doubled = [*(results[:-1] or results), results[0]]
    return {**answer, key: doubled} if key else [*results, results[0]]


FAULTS: dict[str, Mishap] = {
    "reset": reset,
    "429": says(429, {"message": "rate limit"}, Retry_After="0.05"),
    "503": says(503, {"message": "loading"}),
    "slow": sleeps(0.6),
    "truncated JSON": cuts_json,
    "duplicate index": changes(doubles_index),
}


@dataclass
class Faulty:
    """So many of the answers are one of FAULTS, in turn, by a seed; `counts` says how many of each there were."""

    share: float
    seed: int
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self) -> Mishap | None:
        if self._random.random() >= self.share:
            return None
        name = list(FAULTS)[sum(self.counts.values()) % len(FAULTS)]
        self.counts[name] += 1
        return FAULTS[name]
