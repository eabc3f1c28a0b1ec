"""Other libraries at the Hub: kept offline where the user says so, their failures in one line."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from evalkit import hub_access
from evalkit.errors import EvalkitError
from evalkit.hub_access import reporting_hub_errors
from evalkit.models.settings import model_settings
from evalkit.models.weights import find_model
from evalkit.tasks.settings import HubLocation
from evalkit.tasks.sources import read_hub


def test_offline_is_meant() -> None:
    """The library is told, whatever was imported before, and told again that it may when the work is done."""
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    variable = os.environ.get("HF_HUB_OFFLINE")
    with reporting_hub_errors("work", offline=True, advice="look"):
        assert huggingface_hub.constants.is_offline_mode()
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert not huggingface_hub.constants.is_offline_mode()
    assert os.environ.get("HF_HUB_OFFLINE") == variable


def test_a_request_that_offline_forbids() -> None:
    with (
        pytest.raises(EvalkitError, match=r"^loading: .*offline mode is enabled.*; name a folder$"),
        reporting_hub_errors("loading", offline=True, advice="name a folder"),
    ):
        huggingface_hub.HfApi().model_info("intfloat/multilingual-e5-small")


def test_failures_are_one_line() -> None:
    with (
        pytest.raises(EvalkitError, match=r"^loading: it broke in two$"),
        reporting_hub_errors("loading", offline=False, advice="look"),
    ):
        raise RuntimeError("it broke\nin two")
    with (
        pytest.raises(EvalkitError, match=r"^loading: no such place; look$"),
        reporting_hub_errors("loading", offline=False, advice="look"),
    ):
        raise ValueError("no such place") from ConnectionError("refused")
    with pytest.raises(EvalkitError, match=r"^mine$"), reporting_hub_errors("loading", offline=False, advice="look"):
        raise EvalkitError("mine")
    with (
        pytest.raises(EvalkitError, match=r"^loading: x{299}…$"),
        reporting_hub_errors("loading", offline=False, advice="look"),
    ):
        raise RuntimeError("x" * 999)


# what a Hub may answer, and whether it answers at all

ANSWERS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "other JSON": (200, b'{"a": [1]}', {}),
    "a list": (200, b"[1, 2]", {}),
    "null": (200, b"null", {}),
    "files without names": (200, b'{"id": "a/b", "sha": "%s", "siblings": [{"rfilename": 5}]}' % (b"0" * 40), {}),
    "no commit": (200, b'{"id": "a/b", "siblings": [{"rfilename": "config.json"}]}', {}),
    "HTML": (200, b"<html>hello</html>", {"Content-Type": "text/html"}),
    "nothing": (200, b"", {}),
    "no text": (200, b"\xff\xfe{", {}),
    "a redirect to itself": (302, b"", {"Location": "/api/models/acme/thing/revision/main"}),
    "401": (401, b"", {}),
    "404": (404, b"nope", {}),
    "418": (418, b"<html>", {}),
    "429": (429, b"slow down", {"Retry-After": "0"}),
    "500": (500, b"<html>", {}),
    "503": (503, b"", {}),
}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Set the Hub's address, of a process that has not asked it yet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def choose(url: str) -> None:
        hub_access._ask_once.cache_clear()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr(
            "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}", raising=False
        )

    return choose


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def model_of_the_hub() -> None:
    find_model(model_settings({"name": "auto", "hub_id": "acme/thing"}), offline=False, cache_dir=None)


def task_of_the_hub() -> None:
    read_hub(HubLocation(repo="acme/data", revision="0" * 40), "cmteb", "dev", offline=False)


@pytest.mark.parametrize("what", [model_of_the_hub, task_of_the_hub])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_hub_that_answers_oddly(
    answer: str, what: Callable[[], None], endpoint: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names what was asked for; never an exception of another library."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between huggingface_hub's tries
    with answering(*ANSWERS[answer]) as url:
        endpoint(url)
        with pytest.raises(EvalkitError, match=r"acme/(thing at revision main|data@0000)") as caught:
            what()
    assert "\n" not in str(caught.value)
    assert "developer.mozilla" not in str(caught.value)
    if answer in ("404", "429", "500", "503"):
        assert f"answered HTTP {answer}" in str(caught.value)


def in_the_older_library() -> Exception:
    """As requests' errors are: huggingface_hub before 1.0 lets them through."""
    kind = type("ConnectTimeout", (type("ConnectionError", (OSError,), {}),), {})
    return kind("timed out")


def in_the_newer_library() -> Exception:
    kind = type("ConnectError", (Exception,), {})
    return kind("[Errno 111] Connection refused")


OTHERS = {
    "older": in_the_older_library,
    "newer": in_the_newer_library,
    "proxy": lambda: type("ProxyError", (Exception,), {})("403 Forbidden"),
    "TLS": lambda: type("SSLError", (type("ConnectionError", (OSError,), {}),), {})("CERTIFICATE_VERIFY_FAILED"),
    "slow": lambda: type("ReadTimeout", (type("TimeoutException", (Exception,), {}),), {})(
        "The read operation timed out"
    ),
}


@pytest.mark.parametrize("what", [model_of_the_hub, task_of_the_hub])
@pytest.mark.parametrize("other", OTHERS)
def test_exceptions_of_other_versions(other: str, what: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub was built on requests, then on httpx, then on httpx2, and lets some of their errors through."""

    def fails(*_: Any, **__: Any) -> None:
        raise OTHERS[other]()

    monkeypatch.setattr(hub_access, "_ask_once", lambda url: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(EvalkitError, match=r"the Hub at http.* cannot be reached \(.*\)"):
        what()


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield an address that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        port = once.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def no_such_host() -> Iterator[str]:
    yield "http://nowhere.invalid"


@contextmanager
def plain_text_behind_tls() -> Iterator[str]:
    with answering(200, b"{}", {}) as url:
        yield url.replace("http:", "https:")


def loading_with_mteb() -> None:
    with reporting_hub_errors("mteb can't load acme/thing", offline=False, advice="name a folder"):
        from huggingface_hub import hf_hub_download

        hf_hub_download("acme/thing", "config.json")


@pytest.mark.parametrize("what", [model_of_the_hub, task_of_the_hub, loading_with_mteb])
@pytest.mark.parametrize("place", [black_hole, closed_port, no_such_host, plain_text_behind_tls])
def test_an_unreachable_hub_is_reported_within_seconds(
    place: Any, what: Callable[[], None], endpoint: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    import datasets  # noqa: F401 which takes seconds

    with place() as url:
        endpoint(url)
        started = time.monotonic()
        with pytest.raises(EvalkitError, match=r"cannot be reached \(.+\)"):
            what()
        assert time.monotonic() - started < 5


def test_a_hub_that_answered_is_not_asked_again(endpoint: Callable[[str], None]) -> None:
    with answering(500, b"", {}) as url:
        endpoint(url)
        assert hub_access.unreachable_now() is None
    assert hub_access.unreachable_now() is None


@pytest.mark.parametrize("what", [model_of_the_hub, task_of_the_hub, loading_with_mteb])
@pytest.mark.parametrize("user", ["user:SECRET-pass", "SECRET-pass", "user:SECRET%2Dpass", "user:SECRET-pass%40x"])
def test_a_password_in_the_hubs_address_is_in_no_message(
    user: str, what: Callable[[], None], endpoint: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as url:
        address = url.replace("//", f"//{user}@")
        endpoint(address)
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(EvalkitError) as caught:
            what()
    assert "SECRET" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
