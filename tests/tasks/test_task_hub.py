"""Datasets of the Hub, against a real server on the loopback and in processes of their own: the libraries read the
environment when they are imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import FakeHub, Repository
from task_files import ROW_WRITERS, ROWS, load, mteb_parts, write_hub_parts, write_jsonl, write_parquet

COMMIT, OTHER_COMMIT = "a1" * 20, "b2" * 20
CLIENT = """
import json, sys
from evalkit.errors import EvalkitError
from evalkit.tasks.loading import read_task
from evalkit.tasks.settings import TaskSettings
settings, offline = json.loads(sys.argv[1])
try:
    task = read_task(TaskSettings.from_mapping(settings), offline=offline)
except EvalkitError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"revision": task.revision, "fingerprint": task.fingerprint, "split": task.split,
                      "layout": task.layout, "source": task.source, "findings": [f.message for f in task.findings],
                      "ids": [r.query.query_id for r in task.requests]}))
"""


@dataclass
class Client:
    """Loads tasks in a process of its own, with a Hub cache of its own."""

    home: Path
    url: str

    def load(self, source: str = "cmteb", *, revision: str | None = None, offline: bool = False, **env: str) -> Any:
        location = {"repo": f"C-MTEB/{source}", "revision": revision}
        settings = {"name": "x", "mteb_name": "x", "split": "dev", "source": source, source: location}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        kept |= {"HF_HOME": str(self.home), "HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", CLIENT, json.dumps([settings, offline])]
        done = subprocess.run(command, env=kept | env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert "\n" not in answer.get("error", "")
        return answer


@pytest.fixture
def hub(tmp_path):
    rows = ROW_WRITERS["hub snapshot"][1](tmp_path / "rows", ROWS)
    parts = write_hub_parts(tmp_path / "parts", mteb_parts(ROWS), qrels="default")
    repositories = {"C-MTEB/cmteb": Repository(rows, COMMIT), "C-MTEB/mteb": Repository(parts, COMMIT)}
    with FakeHub(repositories) as server:
        yield server


@pytest.fixture
def client(hub, tmp_path):
    return Client(tmp_path / "home", hub.url)


@pytest.fixture
def expected(tmp_path):
    return load(write_jsonl(tmp_path / "reference.jsonl", ROWS))


@pytest.mark.parametrize(("source", "revision"), [("cmteb", COMMIT), ("mteb", COMMIT), ("cmteb", None)])
def test_from_the_hub_and_then_from_its_cache(source, revision, hub, client, expected):
    loaded = client.load(source, revision=revision, HF_TOKEN="hf_abc")
    assert loaded["fingerprint"] == expected.fingerprint
    assert loaded["ids"] == [request.query.query_id for request in expected.requests]
    assert (loaded["revision"], loaded["split"], loaded["layout"]) == (COMMIT, "dev", source)
    assert loaded["source"] == f"C-MTEB/{source}"
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer hf_abc"}
    assert any(path.endswith(".parquet") for _, path, _ in hub.requests)

    # offline asks nobody, even while the Hub is there
    asked = len(hub.requests)
    assert client.load(source, revision=revision, offline=True) == loaded
    assert len(hub.requests) == asked
    hub.stop()
    assert client.load(source, revision=revision, HF_HUB_OFFLINE="1") == loaded


def test_files_of_several_datasets_are_not_pooled(hub, client, tmp_path):
    """`datasets` reads every file of a repository as one split where its card does not say what belongs together."""
    folder = tmp_path / "two"
    for name in ("law", "medicine"):
        write_jsonl(folder / f"{name}.jsonl", ROWS)
    hub.repositories["C-MTEB/cmteb"] = Repository(folder, COMMIT)
    error = client.load()["error"]
    assert "may be several datasets (law.jsonl, medicine.jsonl)" in error
    header = ["---", "configs:", "- config_name: default", "  data_files:", "  - split: dev"]
    (folder / "README.md").write_text("\n".join([*header, "    path: [law.jsonl, medicine.jsonl]", "---", ""]))
    hub.repositories["C-MTEB/cmteb"] = Repository(folder, OTHER_COMMIT)
    assert len(client.load(revision=OTHER_COMMIT)["ids"]) == 2 * len(ROWS)


def test_the_cache_serves_when_the_hub_is_down(hub, client):
    loaded = client.load()
    hub.stop()
    assert client.load() == loaded


def test_offline_keeps_to_the_pinned_revision(hub, client, tmp_path):
    client.load(revision=COMMIT)
    newer = write_parquet(tmp_path / "newer" / "data" / "dev-00000-of-00001.parquet", ROWS[2:]).parent.parent
    hub.repositories["C-MTEB/cmteb"] = Repository(newer, OTHER_COMMIT)
    latest = client.load(revision=OTHER_COMMIT)
    pinned = client.load(revision=COMMIT, offline=True)
    assert (len(latest["ids"]), len(pinned["ids"])) == (2, 4)
    assert pinned["revision"] == COMMIT


def test_without_a_cache(hub, client):
    for answer in (client.load(offline=True), client.load(revision=COMMIT, HF_HUB_OFFLINE="1")):
        assert "not (or not whole) in the Hub cache and this run is offline" in answer["error"]
        assert "C-MTEB/cmteb@" in answer["error"]
        assert "task.path=PATH" in answer["error"]
    assert hub.requests == []
    hub.stop()
    error = client.load()["error"]
    assert hub.url in error
    assert "cannot be reached" in error


def test_what_the_hub_refuses(hub, client):
    assert "no such revision" in client.load(revision=OTHER_COMMIT)["error"]
    hub.repositories["C-MTEB/cmteb"].gated = True
    answer = client.load(revision=COMMIT)
    assert "gated" in answer["error"]
    assert "HF_TOKEN" in answer["error"]
    del hub.repositories["C-MTEB/cmteb"]
    error = client.load()["error"]
    assert "no such dataset" in error
    assert "HTTP 404" in error


@pytest.mark.slow
def test_a_download_that_breaks_off(hub, client):
    hub.repositories["C-MTEB/cmteb"].truncated = True
    assert "the download failed" in client.load(revision=COMMIT)["error"]
    # what has come so far does not pass for the whole
    assert "not (or not whole) in the Hub cache" in client.load(revision=COMMIT, offline=True)["error"]


def test_a_cache_that_lacks_a_shard(hub, client):
    client.load(revision=COMMIT)
    for shard in client.home.rglob("dev-00001-of-*"):
        shard.unlink()
    # newer versions of huggingface_hub notice by themselves
    error = client.load(revision=COMMIT, offline=True)["error"]
    assert "not (or not whole) in the Hub cache" in error or "dev-00001-of-00002 is missing" in error


def test_a_repository_of_another_layout(hub, client):
    hub.repositories["C-MTEB/mteb"].folder = hub.repositories["C-MTEB/cmteb"].folder
    error = client.load("mteb", revision=COMMIT)["error"]
    assert "has the configs default" in error
    assert "corpus, queries and qrels" in error


def test_a_repository_without_data(hub, client, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "README.md").write_text("nothing yet\n")
    hub.repositories["C-MTEB/cmteb"].folder = tmp_path / "none"
    error = client.load(revision=COMMIT)["error"]
    assert "cannot read its files" in error


WAITS = """
import sys, time
from evalkit.hub_access import limit_waits
limit_waits()
from huggingface_hub.utils import get_session
for path, limits in (("/api/datasets/x/tree/main", {}), ("/datasets/x/resolve/main/README.md", {"timeout": 60})):
    started = time.monotonic()
    try:
        get_session().request("GET", sys.argv[1] + path, **limits)
    except Exception as error:
        print(type(error).__name__, time.monotonic() - started < 10)
"""


def test_a_hub_that_hangs_is_not_waited_for(hub):
    """huggingface_hub lists files without any limit of time, and retries with one of a minute."""
    hub.trouble = frozenset({"api", "files"})
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    limits = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WAITS, hub.url], env=kept | limits, capture_output=True, text=True, timeout=150
    )
    assert done.stdout == "ReadTimeout True\n" * 2, done.stderr


CHANGES = """
import json, logging, sys
from pathlib import Path
from evalkit.tasks.loading import read_task
from evalkit.tasks.content import warn_of_changed_data
from evalkit.tasks.settings import TaskSettings
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
warn_of_changed_data(read_task(TaskSettings.from_mapping(json.loads(sys.argv[1]))), Path(sys.argv[2]))
"""


def test_a_dataset_that_changes_under_a_pinned_revision_is_told(hub, client, tmp_path):
    """By another Hub cache, as on a day when a mirror gives other files."""
    location = {"repo": "C-MTEB/cmteb", "revision": COMMIT}
    settings = {"name": "x", "mteb_name": "x", "split": "dev", "source": "cmteb", "cmteb": location}

    def said(home):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        place = {"HF_HOME": str(tmp_path / home), "HF_ENDPOINT": hub.url}
        command = [sys.executable, "-c", CHANGES, json.dumps(settings), str(tmp_path / "remembered")]
        done = subprocess.run(command, env=kept | place, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return "".join(line for line in done.stdout.splitlines() if "are not those" in line)

    assert said("one") == said("two") == ""
    changed = write_parquet(tmp_path / "changed" / "data" / "dev-00000-of-00001.parquet", ROWS[1:]).parent.parent
    hub.repositories["C-MTEB/cmteb"].folder = changed
    line = said("three")
    assert "are not those that were read before under the same revision a1a1a1a1a1a1" in line
    assert str(tmp_path / "remembered" / "fingerprints.json") in line
    assert said("one") == ""
