"""A Hub of one's own on the loopback: folders as repositories of datasets and models, with the headers that the real one sends."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """A folder and the commit that it is; `gated` refuses the files, `truncated` cuts them off while they are sent."""

    folder: Path
    commit: str
    gated: bool = False
    truncated: bool = False

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}


@dataclass
class FakeHub:
    """Repositories by name; `requests` lists (method, path, Authorization) of what was asked.

    `trouble` of "api" or "files" is what it answers with `status`, or never where that is 0.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    trouble: frozenset[str] = frozenset()
    status: int = 0

    def __enter__(self) -> FakeHub:
        self.over = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Authorization")))
        is_api = path.startswith(("/api/datasets/", "/api/models/"))
        if ("api" if path.startswith("/api/") else "files") in self.hub.trouble:
            if self.hub.status:
                self._error(self.hub.status, "")
            else:
                self.hub.over.wait(120)
                self.close_connection = True
            return
        kinds = ("/api/datasets/", "/api/models/", "/datasets/", "/")  # a model's files have no word before its name
        parts = path.removeprefix(next(kind for kind in kinds if path.startswith(kind))).split("/")
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if repository is None:
            self._error(404, "RepoNotFound")
            return
        revision = parts[3] if len(parts) > 3 else "main"
        if revision not in ("main", repository.commit):
            self._error(404, "RevisionNotFound")
        elif is_api:
            self._api(repository, parts)
        else:
            self._file(repository, "/".join(parts[4:]))

    def _api(self, repository: Repository, parts: list[str]) -> None:
        files = repository.files()
        content: Any = {
            "id": "/".join(parts[:2]),
            "sha": repository.commit,
            "siblings": [{"rfilename": name} for name in files],
            "private": False,
            "tags": [],
            "downloads": 0,
        }
        if len(parts) > 2 and parts[2] == "tree":
            content = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, name: str) -> None:
        data = repository.files().get(name)
        if repository.gated:
            self._error(403, "GatedRepo")
        elif data is None:
            self._error(404, "EntryNotFound")
        else:
            etag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": repository.commit}
            self._send(data, etag, cut=repository.truncated)

    def _send(self, data: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(data)), "Accept-Ranges": "none", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"refused: {code}")
        self.send_header("Content-Length", "0")
        self.end_headers()
