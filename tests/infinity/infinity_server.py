"""A real infinity server on the loopback, as a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

PROGRAM = Path(sys.executable).with_name("infinity_emb")
START = 120.0  # seconds
OPEN = build_opener(ProxyHandler({})).open


class InfinityServer:
    """`infinity_emb v2` of several models, each under its keyword; `url` is its address. It asks nothing of the Hub."""

    def __init__(self, **folders: Path) -> None:
        self._folders = folders
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._home = tempfile.TemporaryDirectory()

    def __enter__(self) -> InfinityServer:
        models = [
            word
            for name, folder in self._folders.items()
            for word in ("--model-id", str(folder), "--served-model-name", name)
        ]
        settings = {
            "DTYPE": "float32", "DEVICE": "cpu", "MODEL_WARMUP": "false", "BETTERTRANSFORMER": "false",
            "ANONYMOUS_USAGE_STATS": "false", "HOME": self._home.name,
        }  # fmt: skip
        environment = {f"INFINITY_{name}": value for name, value in settings.items()} | {"HF_HUB_OFFLINE": "1"}
        self._log = Path(self._home.name) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "v2", *models, "--host", "127.0.0.1", "--port", str(self._port)],
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._home.name,
            )
        deadline = time.monotonic() + START
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError(f"the server did not start:\n{self._log.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._home.cleanup()

    def ask(self, path: str, body: Any = None) -> Any:
        """The answer to a GET, or to a POST of that body, both JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        with OPEN(request, timeout=60) as response:
            return json.loads(response.read())

    def _is_up(self) -> bool:
        try:
            self.ask("/health")
        except (URLError, OSError):
            return False
        return True

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
