"""runner=ray on a real cluster of three nodes: the bytes of runner=local, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster.clusters import (
    actors,
    actors_of,
    contents,
    driver_raylet,
    kill_node,
    other_node,
    processes,
    ray_cluster,
    ray_head,
    wait_until,
)
from command import MODULE, run_here, run_program
from made_tasks import make_task
from scoring.fakes import Lists, Network, Pairs
from store_rows import rows_in
from task_files import uneven_rows, write_jsonl

from evalkit.cluster.crew import RayScorer, crew_of, dismiss
from evalkit.cluster.settings import RaySettings
from evalkit.cluster.work import Job
from evalkit.cluster.worker import Description
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import evaluate, load_model, load_task
from evalkit.models.interfaces import RunnableModel, ScoredList
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity, Run, Task
from evalkit.scoring.engine import score_task
from evalkit.scoring.store import FILE_NAME

NODES = 3


class FatalLists(Lists):
    """A list-aware fake that kills its process at one list, once for each `name`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.mark = f"/tmp/evalkit-fatal-{name}"

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList:
        if query == "问题7":
            with suppress(FileExistsError):
                os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            os.unlink(self.mark)
        return super().score_list(query, documents)


IDENTITY = ModelIdentity("made", "local/made", "made", "cross-encoder", "0" * 64)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    # actors know this module's functions by their code: it is not installed on the nodes
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cloudpickle.register_pickle_by_value(sys.modules["scoring.fakes"])
    with ray_cluster(NODES) as started:
        yield started
        dismiss()


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,400 pairs of very different lengths: two windows."""
    rows = uneven_rows(queries=120, candidates=20, longest=90)
    return write_jsonl(tmp_path_factory.mktemp("tasks") / "made" / "test.jsonl", rows).parent


def words(task: Path, model: str, folder: Path, place: Path, *more: str) -> tuple[str, ...]:
    return (
        "task=local",
        f"task.path={task}",
        f"model={model}",
        f"model.path={folder}",
        f"cache_dir={place / 'cache'}",
        f"results_dir={place / 'results'}",
        *more,
    )


def on(cluster: Any) -> tuple[str, ...]:
    return ("runner=ray", f"ray.address={cluster.address}")


@pytest.fixture(scope="module")
def local_results(
    task_folder: Path, tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("local")
    done = run_here(*words(task_folder, "local-cross-encoder", tiny_bert_reranker, place, "backend=openvino"))
    assert done.code == 0, done.stderr
    return contents(place / "results")


def test_a_cross_encoder(
    cluster: Any, task_folder: Path, tiny_bert_reranker: Path, local_results: dict[str, Any], tmp_path: Path
) -> None:
    chosen = words(task_folder, "local-cross-encoder", tiny_bert_reranker, tmp_path, "backend=openvino", *on(cluster))
    done = run_here(*chosen)
    assert done.code == 0, done.stderr
    ours = ("scoring: ", "waiting for the Ray cluster: ")  # the latter where the machine is slow
    told = [line for line in done.stderr.splitlines() if not line.startswith(ours)]
    assert told[0].startswith("tiny-bert-reranker: cross-encoder (model=local-cross-encoder), ")
    assert told[1:] == ["made: 120 queries, 2,400 pairs"]  # nothing of Ray's
    assert contents(tmp_path / "results") == local_results
    assert rows_in(tmp_path / "cache" / FILE_NAME) == 2400
    again = run_here(*chosen)
    assert again.code == 0, again.stderr
    assert contents(tmp_path / "results") == local_results
    wait_until(lambda: not actors_of(cluster))


def test_a_listwise_model(cluster: Any, tiny_lists: Path, tmp_path: Path) -> None:
    """Whole lists on actors: the bytes of one process, whichever of the two stored them, with a node lost on the way."""
    task = load_task("demo-zh2en", limit=24, offline=True)
    choice: dict[str, Any] = {"backend": "torch", "threads": 1, "permutations": 2}
    here = evaluate(load_model(str(tiny_lists), **choice, cache_dir=tmp_path / "here"), task, config={"made": True})
    remote = load_model(
        str(tiny_lists), **choice, ray={"address": cluster.address, "actors": 2}, cache_dir=tmp_path / "there"
    )
    there = evaluate(remote, task, config={"made": True})
    assert there.candidates.equals(here.candidates)
    assert there.queries.equals(here.queries)
    assert (there.backend, there.model, there.intervals) == (here.backend, here.model, here.intervals)
    again = evaluate(load_model(str(tiny_lists), **choice, cache_dir=tmp_path / "there"), task, config={"made": True})
    assert again.timing.items_from_store == again.usage.items > 0
    assert again.candidates.equals(here.candidates)


def test_lists_of_a_lost_actor_are_scored_again(cluster: Any) -> None:
    """The first actor that gets the list of 问题7 dies at it; whoever gets it then has it whole."""
    task = make_task(*(([f"问题{q}"], [(f"答案{q}之{d}", d % 2) for d in range(12)]) for q in range(20)))
    fatal = f"{os.getpid()}-{time.time_ns()}"
    model = RunnableModel(IDENTITY, {"name": "made"}, {}, lambda: FatalLists(fatal))
    job = Job("made", fatal, lambda: model)
    settings = RaySettings(address=cluster.address, actors=2)
    on_actors = RunnableModel(IDENTITY, {"name": "made"}, {}, lambda: RayScorer(settings, job))
    recipe = model_settings({"name": "made", "kind": "listwise"})
    there = score_task(on_actors, recipe, task)
    here = score_task(RunnableModel(IDENTITY, {}, {}, Lists), recipe, task)
    assert there.scores.tobytes() == here.scores.tobytes()


def test_an_embedder(cluster: Any, e5_small: Path, tmp_path: Path) -> None:
    """`auto` decides the same; one cache: what one of them stored, the other would have taken."""
    task = load_task("demo-zh2en", limit=8, offline=True)
    choice: dict[str, Any] = {"path": e5_small, "cache_dir": tmp_path}
    remote = load_model("local-embedder", ray={"address": cluster.address, "actors": 2}, **choice)
    there = evaluate(remote, task, config={"made": True})
    here = evaluate(load_model("local-embedder", **choice), task, config={"made": True}, cache="refresh")
    assert there.candidates.equals(here.candidates)
    assert there.queries.equals(here.queries)
    assert (there.backend, there.model, there.intervals) == (here.backend, here.model, here.intervals)
    again = evaluate(remote, task)
    assert again.timing.items_from_store == again.usage.items > 0


def test_a_node_is_killed(
    cluster: Any, task_folder: Path, tiny_bert_reranker: Path, local_results: dict[str, Any], tmp_path: Path
) -> None:
    def kill_when_it_stores() -> None:
        wait_until(lambda: rows_in(tmp_path / "cache" / FILE_NAME) > 200)
        kill_node(cluster, other_node(cluster, driver_raylet()))

    killer = threading.Thread(target=kill_when_it_stores)
    killer.start()
    done = run_here(
        *words(task_folder, "local-cross-encoder", tiny_bert_reranker, tmp_path, "backend=openvino", *on(cluster))
    )
    killer.join()
    cluster.add_node(num_cpus=1, wait=False)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("model")
    assert "raylet" not in done.stdout + done.stderr
    assert "an actor of the Ray cluster is lost" in done.stderr
    assert contents(tmp_path / "results") == local_results


def test_the_driver_is_killed(
    cluster: Any, task_folder: Path, tiny_bert_reranker: Path, local_results: dict[str, Any], tmp_path: Path
) -> None:
    wait_until(lambda: not actors_of(cluster))
    chosen = words(task_folder, "local-cross-encoder", tiny_bert_reranker, tmp_path, "backend=openvino", *on(cluster))
    store = tmp_path / "cache" / FILE_NAME
    killed = subprocess.Popen([*MODULE, *chosen], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: rows_in(store) > 0 or killed.poll() is not None)
    finally:
        killed.kill()
        killed.wait()
    kept = rows_in(store)
    assert 0 < kept < 2400
    wait_until(lambda: not actors_of(cluster))
    done = run_here(*chosen)
    assert done.code == 0, done.stderr
    assert contents(tmp_path / "results") == local_results


@pytest.mark.parametrize("stop", [signal.SIGINT])
def test_an_interrupted_run_leaves_nothing_behind(
    stop: signal.Signals, task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    """With a Ray of its own, whose every process ends."""
    chosen = words(task_folder, "local-cross-encoder", tiny_bert_reranker, tmp_path, "backend=torch", "runner=ray")
    run = subprocess.Popen([*MODULE, *chosen], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: rows_in(tmp_path / "cache" / FILE_NAME) > 0 or run.poll() is not None)
    session = f"_{run.pid}/"  # Ray's folder is named after the process
    raylets = processes(session, "raylet_socket")
    workers = actors(raylets)
    assert raylets
    assert workers
    started = time.monotonic()
    run.send_signal(stop)
    stdout, stderr = run.communicate(timeout=30)
    assert time.monotonic() - started < 15
    assert run.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert not stdout
    wait_until(lambda: not processes(session))
    assert not workers & processes("ray::")


def made(prepare: Any, **settings: Any) -> RunnableModel:
    """A model on the cluster that `prepare` makes in each actor."""
    job = Job("made", repr(prepare), prepare)
    return RunnableModel(IDENTITY, {}, None, lambda: RayScorer(RaySettings(**settings), job))


def score(model: RunnableModel, task: Task) -> Run:
    return score_task(model, model_settings({"name": "made"}), task)


SMALL = make_task(*[([f"问{q}"], [(f"答{q}{'长' * row}", row % 2) for row in range(20)]) for q in range(6)])
LARGE = make_task(*[([f"问{q}"], [(f"答{q}{'长' * row}", row % 2) for row in range(30)]) for q in range(150)])


def model_of(scorer: Any, **changes: Any) -> RunnableModel:
    return replace(RunnableModel(IDENTITY, {"name": "made"}, {}, lambda: scorer), **changes)


def slow_process(query: str, document: str) -> float:
    time.sleep(0.001)
    return float(os.getpid())


def test_every_actor_takes_part(cluster: Any) -> None:
    run = score(made(lambda: model_of(Network(score_pair=slow_process)), address=cluster.address), LARGE)
    assert len(set(run.scores.tolist())) == NODES
    assert min(np.unique(run.scores, return_counts=True)[1]) > len(run.scores) / 10


def test_a_deadly_input_ends_the_run(cluster: Any) -> None:
    def die(query: str, document: str) -> float:
        if document == "答3长长长":
            os._exit(1)
        return 0.0

    with pytest.raises(EvalkitError, match="3 actors in a row died at query '问") as caught:
        score(made(lambda: model_of(Pairs(score_pair=die)), address=cluster.address), SMALL)
    assert "kept" in str(caught.value)


def test_a_model_that_kills_while_it_loads(cluster: Any) -> None:
    job = Job("made", "deadly", lambda: os._exit(1))
    with pytest.raises(EvalkitError, match="3 actors in a row died while they loaded made"):
        crew_of(RaySettings(address=cluster.address)).describe(job)


def test_errors_are_those_of_a_run_here(cluster: Any) -> None:

    def make() -> RunnableModel:
        return model_of(Network(most_tokens=15))

    messages = set()
    for model in (make(), made(make, address=cluster.address, actors=1)):
        with pytest.raises(EvalkitError) as caught:
            score(model, make_task(([f"问{'长' * 30}"], [("短", 1), ("答", 0)])))
        messages.add(str(caught.value))
    assert len(messages) == 1

    def broken(query: str, document: str) -> float:
        raise ValueError("no one foresaw this")

    with pytest.raises(RuntimeError, match="ValueError in an actor: no one foresaw this"):
        score(made(lambda: model_of(Pairs(score_pair=broken)), address=cluster.address), SMALL)
    with pytest.raises(EvalkitError, match="there is no such folder"):
        _ = load_model(
            "local-cross-encoder", path="/nowhere", backend="torch", ray={"address": cluster.address}
        ).runnable


def test_other_weights_and_other_versions_are_refused(cluster: Any) -> None:
    settings = RaySettings(address=cluster.address)

    def find() -> RunnableModel:
        return model_of(Network(score_pair=slow_process), identity=replace(IDENTITY, weights_hash=str(os.getpid())))

    job = Job("made", "other weights", find)
    job = replace(job, expected=crew_of(settings).describe(job))
    model = RunnableModel(IDENTITY, {}, None, lambda: RayScorer(settings, job))
    with pytest.raises(EvalkitError, match=r"other weights of made than node .* all need the same files"):
        score(model, LARGE)

    def lie() -> RunnableModel:
        import evalkit.cluster.worker as there

        there.code_versions = lambda: {"torch": "0.1"}
        return model_of(Pairs())

    with pytest.raises(EvalkitError, match=r"other versions \(.*torch: [\d.]+, there 0.1.*install the same"):
        crew_of(settings).describe(Job("made", "other versions", lie))
    dismiss()


def test_no_room(cluster: Any) -> None:
    for more, need in (({"cpus_per_actor": 2}, "CPUs: 2, GPUs: 0"), ({"gpus_per_actor": 0.5}, "CPUs: 1, GPUs: 0.5")):
        with pytest.raises(EvalkitError, match=f"no node of the Ray cluster has {need}"):
            crew_of(RaySettings(address=cluster.address, **more))
        import ray

        assert not ray.is_initialized()


def test_a_first_stage_finds_the_same_bytes(cluster: Any, tmp_path: Path) -> None:
    """Actors embed the corpus; the run that is kept is that of a local run, to the byte."""
    runs = []
    for name, more in (("local", ()), ("ray", on(cluster))):
        chosen = ("task=demo-zh2en", "model=bm25", "task.first_stage=multilingual-e5-small-q4", "task.top_k=20", *more)
        place = tmp_path / name
        done = run_here(*chosen, f"cache_dir={place / 'cache'}", f"results_dir={place / 'results'}")
        assert done.code == 0, done.stderr
        (run,) = (place / "cache" / "first_stages").glob("*.trec")
        runs.append((run.name, run.read_bytes()))
    assert runs[0] == runs[1]


def test_a_cluster_of_its_own_gets_no_more_nodes(tmp_path: Path) -> None:
    chosen = ("task=demo-zh2en", "limit=2", "model=multilingual-e5-small-q4", "runner=ray", "ray.address=local")
    done = run_program(tmp_path, *chosen, "ray.actors=2", "ray.gpus_per_actor=9")
    assert done.code == 2
    assert "no node of the Ray cluster has CPUs: 1, GPUs: 9" in done.stderr
    assert "to wait" not in done.stderr


def test_a_user_s_own_connection_stays(cluster: Any) -> None:
    import ray

    dismiss()  # an earlier test's crew, whose connection is this process's
    ray.init(cluster.address, log_to_driver=False)
    try:
        assert score(made(lambda: model_of(Pairs()), address="auto"), SMALL).scores.any()
        dismiss()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_ray_client(tmp_path: Path) -> None:
    """From outside the cluster, over one connection, with the token that the cluster wants."""
    chosen = ("task=demo-zh2en", "limit=2", "model=multilingual-e5-small-q4", "offline=true", "cache=off")
    token = "0" * 64
    with ray_head(token) as address:
        there = (*chosen, "results_dir=there", "runner=ray", f"ray.address={address}")
        done = run_program(tmp_path, *there, RAY_AUTH_TOKEN=token)
        assert done.code == 0, done.stderr
    assert run_program(tmp_path, *chosen, "results_dir=here").code == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_what_describes_an_actor_travels(cluster: Any) -> None:
    found = crew_of(RaySettings(address=cluster.address)).describe(Job("made", "ok", lambda: model_of(Pairs())))
    assert isinstance(found, Description)
    assert found.identity == IDENTITY
    assert found.versions["evalkit"].startswith("0.")
