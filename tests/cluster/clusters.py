"""Ray clusters on this machine, and what runs in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evalkit.results.writing import without_timings

# of a result's configuration: how it came about, not what it is
CIRCUMSTANCES = ("cache_dir", "results_dir", "runner", "ray")
# Ray gives way to all else with its workers: beside other tests they would hardly run
os.environ.setdefault("RAY_worker_niceness", "0")
# and a client's server has to be up within half a minute, which beside other tests it may not be
os.environ.setdefault("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "240")


@contextmanager
def ray_cluster(nodes: int) -> Iterator[Any]:
    """A cluster of nodes with one processor each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1, wait=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def ray_head(token: str) -> Iterator[str]:
    """A cluster of one node that users start by hand, and that wants a token; the address of its Ray Client server.

    Ray's proxy forks a server for each client, from a process in which gRPC's threads run. gRPC's own handlers of a fork can
    abort the child (SIGABRT) before it becomes the server; where Ray looks at its command line just then, it answers the client
    with psutil.ZombieProcess. The child execs at once and needs none of these handlers, so they are switched off.
    """
    folder = tempfile.mkdtemp(prefix="ray")  # sockets have short names
    port, client_port = free_port(), free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"]
    ports = [f"--port={port}", f"--ray-client-server-port={client_port}", "--min-worker-port=0", "--max-worker-port=0"]
    started = subprocess.Popen(
        [*command, *ports, f"--temp-dir={folder}", "--include-dashboard=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        start_new_session=True,
    )
    try:
        wait_until(lambda: started.poll() is not None or is_open(client_port))
        assert started.poll() is None
        yield f"ray://127.0.0.1:{client_port}"
    finally:
        started.terminate()
        started.wait(120)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether someone listens there."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def contents(results: Path) -> dict[str, Any]:
    """A folder of results: the JSON without times and circumstances, the tables byte by byte."""
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*.json")):
        content = without_timings(json.loads(path.read_text(encoding="utf-8")))
        for name in CIRCUMSTANCES:
            content.get("evalkit", {}).get("config", {}).pop(name, None)
        found[str(path.relative_to(results))] = content
    for path in sorted(results.rglob("*.parquet")):
        found[str(path.relative_to(results))] = path.read_bytes()
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for the condition. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


def processes(*words: str) -> set[int]:
    """The processes whose command line holds all the words."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.add(int(folder.name))
    return found


def driver_raylet() -> str:
    """The raylet that this process is connected to. A driver does not outlive it."""
    from ray._private import worker

    return str(worker._global_node.raylet_socket_name)


def other_node(cluster: Any, raylet: str) -> Any:
    """A node that is neither the head nor that of the raylet."""
    return next(node for node in cluster.list_all_nodes() if not node.head and node.raylet_socket_name != raylet)


def kill_node(cluster: Any, node: Any) -> None:
    """What a machine's end is to the others: its processes are gone at once, workers and all."""
    workers = actors({_raylet(node)})
    cluster.remove_node(node, allow_graceful=False)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def actors(raylets: set[int]) -> set[int]:
    """The actors that hold models, of these raylets."""
    return {pid for pid in processes("ray::Worker") if _parent(pid) in raylets}


def actors_of(cluster: Any) -> set[int]:
    """The actors that hold models, on the cluster's nodes."""
    return actors({_raylet(node) for node in cluster.list_all_nodes()})


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)
