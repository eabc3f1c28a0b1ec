"""Keys, tokens and the home folder are in nothing that is printed or written, and go to no other host."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import run_program
from task_files import write_jsonl

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))  # as pytest does for the tests in there
from attempts import ROWS, run_here
from fake_servers import FakeServer
from mishaps import says

KEY, TOKEN = "sk-very-secret-0123456789", "hf_very_secret_9876543210"


def bytes_below(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("trouble", ["none", "error", "redirect", "not JSON"])
def test_no_key_token_or_home_is_told_or_written(trouble: str, folder: Path) -> None:
    """A real run below a home folder, in every byte that it prints and writes, the store and reports of it included."""
    home = folder / "home" / "alice-liddell"
    work = home / "work"
    write_jsonl(work / "data" / "test.jsonl", ROWS)
    mishaps = {
        "none": [],
        "error": [says(400, {"error": f"wrong key {KEY}, {TOKEN[:0]}"})],
        "redirect": [says(307, {"see": "there"}, Location=f"http://u:{KEY}@elsewhere.test/x?key={KEY}")],
        "not JSON": [lambda handler: handler.send_bytes(200, f"<html>{KEY}".encode())],
    }[trouble]
    environment = {
        "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_TOKEN": TOKEN, "MY_KEY": KEY, "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with FakeServer("vllm", mishaps=list(mishaps), key=KEY) as server:
        arguments = (
            "task=local", f"task.path={work / 'data'}", f"cache_dir={home / 'store'}", f"results_dir={work / 'results'}",
            "model=bge-reranker-base", "backend=vllm", f"backend.url={server.url}", "backend.key_variable=MY_KEY", "backend.retries=0",
        )  # fmt: skip
        done = run_program(work, *arguments, **environment)
        assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.posts)
    assert done.code == (2 if trouble != "none" else 0), done.stderr
    told = [done]
    if trouble == "none":
        told.append(run_program(work, "task=local", "task.path=~/work/nowhere", "model=constant", **environment))
        told.append(run_program(work, "task=local", f"task.path={work / 'nowhere'}", "model=constant", **environment))
        for kind in ("html", "markdown", "csv", "latex", "json"):
            told.append(run_program(work, "report", "results", "--format", kind, "-o", f"report.{kind}", **environment))
        assert [one.code for one in told] == [0, 2, 2, 0, 0, 0, 0, 0], told
    written = bytes_below(home) | {f"printed {n}": (one.stdout + one.stderr).encode() for n, one in enumerate(told)}
    written.pop("work/data/test.jsonl")
    assert trouble != "none" or len(written) > 12
    for secret in (KEY, TOKEN, "alice-liddell"):
        assert not [name for name, content in written.items() if secret.encode() in content], secret


class Elsewhere(BaseHTTPRequestHandler):
    """Notes every request's headers."""

    def do_POST(self) -> None:
        self.server.seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def other_host(address: str, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((address, 0), Elsewhere)
    if context:
        # the handshake is its handler's: in the accepting thread a client that leaves amid it would block all
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.seen = []
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_key_to_another_host(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with other_host("127.0.0.2") as other:
        place = f"http://127.0.0.2:{other.server_address[1]}/score"
        with FakeServer("vllm", mishaps=[says(status, {}, Location=place)] * 8) as server:
            settings = (f"backend.url={server.url}", "backend.key_variable=MY_KEY", "backend.retries=0")
            done = run_here(
                "task=demo-zh", "limit=2", "cache=off", "model=bge-reranker-base", "backend=vllm", *settings
            )
            assert server.posts[0].headers["authorization"] == f"Bearer {KEY}"
        other.shutdown()
        assert done.code == 2
        assert place in done.stderr
        assert other.seen == []


def test_a_server_without_a_trusted_certificate_gets_no_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    command = [
        openssl,
        *[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
    ]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    monkeypatch.setenv("MY_KEY", KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    with other_host("127.0.0.1", context) as other:
        url = f"https://127.0.0.1:{other.server_address[1]}"
        settings = (f"backend.url={url}", "backend.key_variable=MY_KEY", "backend.retries=0")
        done = run_here("task=demo-zh", "limit=2", "cache=off", "model=bge-reranker-base", "backend=vllm", *settings)
        other.shutdown()
        assert done.code == 2
        assert "certificate" in done.stderr.lower()
        assert other.seen == []
