"""Keys, tokens and the home folder are in nothing that is printed or written, and go to no other host."""

from __future__ import annotations

import logging
import os
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

from evalkit.backends.servers.client import Client
from evalkit.models.server_settings import ServerSettings
from evalkit.output.text import MessageFormatter, homeless, without_secrets

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


# secrets of addresses

ADDRESSES = {
    "http://user:hunter2-x@host/path": "http://***@host/path",
    "https://hf_token_abc@mirror.test": "https://***@mirror.test",
    "ray://me:pa55@head:10001": "ray://***@head:10001",
    "proxy me:pa55word@proxy.test:3128 refused": "proxy ***@proxy.test:3128 refused",
    "GET https://a.test/x?token=abc&limit=3&api_key=d#e": "GET https://a.test/x?token=***&limit=3&api_key=***#e",
    "https://s3.test/f?X-Amz-Signature=abc&X-Amz-Credential=q": "https://s3.test/f?X-Amz-Signature=***&X-Amz-Credential=***",
    "the Hub at http://127.0.0.1:9/?t=SECRET cannot": "the Hub at http://127.0.0.1:9/?t=*** cannot",
    "(see https://a.test/x?page=2&q=SECRET).": "(see https://a.test/x?page=2&q=***).",
    "https://a.test/x?SECRET": "https://a.test/x?***",
    "https://a.test/#access_token=SECRET": "https://a.test/#access_token=***",
    "http://user%3ASECRET@host": "http://***@host",
    "http://u:p%40SECRET@h/x": "http://***@h/x",
    "http://user%3ASECRET%40h:9/x": "http://***@h:9/x",
}
PLAIN = (
    "https://huggingface.co/api/models?limit=3&full=true&cursor=",
    "is it there? a=b and c=d",
    "https://huggingface.co/datasets/C-MTEB/T2@main",
    "dataset C-MTEB/T2Reranking@0123: ask me@example.test",
    "http://127.0.0.1:8080/rerank?top=3",
    "12:30 at a@b",
)


@pytest.mark.parametrize("text", ADDRESSES)
def test_secrets_of_addresses_are_struck_out(text: str) -> None:
    assert without_secrets(text) == ADDRESSES[text]
    assert homeless({"ray": {"address": [text]}}) == {"ray": {"address": [ADDRESSES[text]]}}
    record = logging.LogRecord("evalkit", logging.INFO, "", 0, "%s", (text,), None)
    assert MessageFormatter("%(message)s").format(record) == ADDRESSES[text]


@pytest.mark.parametrize("text", PLAIN)
def test_addresses_without_secrets_are_left(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "HF_ENDPOINT", "RAY_ADDRESS", "ALL_PROXY"]
)
@pytest.mark.parametrize("value", ["http://me:p%40ss/w@proxy.test:3128", "me:p%40ss/w@proxy.test:3128"])
def test_a_password_of_the_environment_is_struck_out_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the variable has it, and decoded: other libraries quote it without the rest of the address."""
    monkeypatch.setenv(name, value)
    assert without_secrets("bad port 'p%40ss/w' or 'p@ss/w' of proxy.test") == "bad port '***' or '***' of proxy.test"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://h.test/?t=SECRET-1", "bad value SECRET-1"),
        ("http://h.test/?SECRET-1&limit=1000", "bad value SECRET-1 of 1000"),
        ("http://user%3ASECRET-1@h.test", "bad value SECRET-1 of user"),
        ("http://u:SECRET%2D1@h.test", "bad value SECRET-1 or SECRET%2D1"),
    ],
)
def test_other_secrets_of_an_address_in_the_environment(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert without_secrets(said) == said.replace("SECRET-1", "***").replace("SECRET%2D1", "***")


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "MY_SERVICE_TOKEN", "some_password", "VOYAGE_APIKEY"])
def test_a_key_of_any_service_is_struck_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KEY)
    assert without_secrets(f"Incorrect API key provided: {KEY}.") == "Incorrect API key provided: ***."
    monkeypatch.setenv(name, "disabled")
    assert without_secrets("is disabled") == "is disabled"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9/?t=SECRET-1", "http://u%3ASECRET-1@127.0.0.1:9"])
def test_the_hub_s_address_is_told_without_its_secrets(endpoint: str, tmp_path: Path) -> None:
    there = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "EVALKIT_DEBUG": "1"}
    for words in (("task=demo-zh", "model=acme/thing"), ("task=T2Reranking", "model=random")):
        done = run_program(tmp_path, *words, **there)
        assert done.code == 2
        assert "127.0.0.1:9" in done.stderr
        assert "SECRET" not in done.stdout + done.stderr


@pytest.mark.parametrize("endpoint", ["", " ", "mirror.test"])
def test_an_address_of_the_hub_that_is_none(endpoint: str, tmp_path: Path) -> None:
    """An empty variable is one that is not set."""
    there = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "1"}
    for words in (("task=demo-zh", "model=acme/thing"), ("task=T2Reranking", "model=random")):
        done = run_program(tmp_path, *words, **there)
        said = (
            "'mirror.test' can't be reached: HF_ENDPOINT is no address"
            if endpoint.strip()
            else "https://huggingface.co "
        )
        assert f"the Hub at {said}" in done.stderr


def test_a_traceback_is_told_without_secrets() -> None:
    """Of an error that no one foresaw."""
    error = "ValueError('http://u:SECRET-1@h.test/?t=SECRET-2')"
    code = f"from evalkit.commands import main; main._confess({error})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "EVALKIT_DEBUG": "1"}
    )
    assert "ValueError: http://***@h.test/?t=***" in done.stderr
    assert "SECRET" not in done.stderr


def test_a_token_of_the_environment_is_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert without_secrets(f"header {TOKEN}!") == "header ***!"
    monkeypatch.setenv("HF_TOKEN", "a")
    assert without_secrets("a banana") == "a banana"


@pytest.mark.parametrize("proxy", ["http://user:SECRET-1@127.0.0.1:9", "http://SECRET-1@127.0.0.1:9"])
def test_a_proxy_s_password_is_in_no_message(proxy: str, tmp_path: Path) -> None:
    """Of runs that want the Hub and a server."""
    there = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "", "no_proxy": "", "HF_HUB_OFFLINE": "0",
             "HF_HOME": str(tmp_path)}  # fmt: skip
    server = ("model=bge-reranker-base", "backend=jina", "backend.url=http://198.51.100.1:1", "backend.retries=0")
    for words in (("model=acme/thing",), server):
        done = run_program(tmp_path, "task=demo-zh", "limit=1", *words, JINA_API_KEY=KEY, **there)
        assert done.code == 2
        assert "SECRET" not in done.stdout + done.stderr
        assert "bug" not in done.stderr


@pytest.mark.parametrize("address", ["ray://me:pa55@head:10001", "me:pa55@head:6379", "'ray://head:10001?token=pa55'"])
def test_an_address_of_ray_holds_no_secret(address: str, tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=random", "runner=ray", f"ray.address={address}")
    assert done.code == 2
    assert "an address holds no user, password, query or fragment" in done.stderr
    assert "pa55" not in done.stderr


@pytest.mark.parametrize("key", ["x", "e", "index", "score", "1", "null"])
def test_a_short_key_changes_no_answer(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server for which any key will do: its answers hold the key's letters in words of their own."""
    monkeypatch.setenv("MY_KEY", key)
    settings = ("backend.key_variable=MY_KEY", "backend.retries=0")
    with FakeServer("vllm", key=key) as server:
        done = run_here(
            "task=demo-zh",
            "limit=2",
            "cache=off",
            "model=bge-reranker-base",
            "backend=vllm",
            f"backend.url={server.url}",
            *settings,
        )
        assert server.posts[0].headers["authorization"] == f"Bearer {key}"
    assert done.code == 0, done.stderr


def test_what_is_struck_out_of_answers() -> None:
    """A long key wherever a text repeats it, but no name in the answer; of a short one the header alone."""
    settings = ServerSettings(url="http://127.0.0.1:1")
    long, short = (Client("vllm", settings, key) for key in ("relevance_score", "e"))
    answer = {"relevance_score": 1.5, "said": ["key relevance_score", 3, None]}
    assert long._without_key(answer) == {"relevance_score": 1.5, "said": ["key ***", 3, None]}
    assert short._without_key({"index": "Bearer e, Bearer else"}) == {"index": "Bearer ***, Bearer else"}
    assert short.quote("index") == "'index'"
