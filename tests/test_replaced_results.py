"""A result is never replaced by another one: of the command line, of Python, of two processes at once, of a killed run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run_here
from made_results import change_json, noisy_scores, ranking_task, table_of, write_scores
from test_results import RESULT, candidates, queries

sys.path.insert(0, str(Path(__file__).parent / "backends"))  # as pytest does for the tests in there
from fake_servers import FakeServer

import evalkit
from evalkit.backends import BackendSettings
from evalkit.cluster.settings import RaySettings
from evalkit.configuration.files import default_settings
from evalkit.errors import EvalkitError
from evalkit.evaluation.settings import NEUTRAL, find_deviations
from evalkit.models.interfaces import Runtime
from evalkit.models.server_settings import DECISIVE, ServerSettings
from evalkit.models.settings import ModelSettings
from evalkit.output.files import replace_file
from evalkit.records import FirstStage, RecipeField
from evalkit.results.reading import read_result, read_results
from evalkit.results.result import Result, TablesInMemory
from evalkit.results.writing import write_result
from evalkit.tasks.settings import TaskSettings

NAME = "CMedQAv1-reranking.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- another result under the same name


@pytest.mark.parametrize(
    "other",
    [
        replace(RESULT, task=replace(RESULT.task, fingerprint="0" * 64)),
        replace(RESULT, model=replace(RESULT.model, revision="another")),
        replace(RESULT, model=replace(RESULT.model, hub_id="BAAI/bge_reranker-base")),
        replace(RESULT, model=replace(RESULT.model, kind="embedder")),
        replace(RESULT, model=replace(RESULT.model, weights_hash="0" * 64)),
        replace(RESULT, deviations={"max_characters": 8}),
        replace(RESULT, deviations={}),
        replace(RESULT, recipe={"pooling": RecipeField("mean", "mine.yaml")}),
        replace(RESULT, task=replace(RESULT.task, first_stage=FirstStage("bm25", "a.trec", "f" * 64, 10))),
    ],
)
def test_another_result_is_refused_and_the_older_one_stays(other: Result, tmp_path: Path) -> None:
    """Wherever it is about to be written; the same one takes its own place."""
    first = replace(
        RESULT,
        deviations={"seed": 1},
        recipe={"pooling": RecipeField("cls", "yours.yaml")},
        task=replace(RESULT.task, first_stage=FirstStage("bm25", "a.trec", "0" * 64, 10)),
    )
    same = {"deviations": first.deviations, "recipe": first.recipe, "task": first.task}
    changed = {name: value for name, value in same.items() if getattr(other, name) == getattr(RESULT, name)}
    if other.deviations == {} and other == RESULT:
        changed.pop("deviations")
    other = replace(other, **changed)
    path = write_result(first, tmp_path)
    before = path.read_bytes()
    with pytest.raises(EvalkitError, match=r"CMedQAv1-reranking\.json is a result") as raised:
        write_result(other, tmp_path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == before
    assert write_result(first, tmp_path) == path


def test_two_addresses_are_two_places(here: Path) -> None:
    """One served name at two addresses may be two models; on the command line and in Python."""
    words = ("task=demo-zh", "limit=2", "model=bge-reranker-base", "backend=vllm", "cache=off")
    with FakeServer("vllm") as one, FakeServer("vllm") as other:
        for server in (one, other):
            done = run_here(*words, f"backend.url={server.url}", "results_dir=cli")
            assert done.code == 0, done.stderr
            model = evalkit.load_model("bge-reranker-base", backend="vllm", server={"url": server.url})
            for_python = evalkit.evaluate(model, evalkit.load_task("demo-zh", limit=2), cache="off")
            saved = evalkit.save_result(for_python, "python")
            assert (Path("cli") / saved.relative_to("python")).is_file()
    assert len(evalkit.load_results("cli")) == len(evalkit.load_results("python")) == 2


def test_an_address_counts_only_where_the_server_does_not_say_its_revision(here: Path) -> None:
    words = ("task=demo-zh", "limit=2", "model=bge-reranker-base", "backend=tei", "cache=off")
    for _ in range(2):
        with FakeServer("tei") as server:
            assert run_here(*words, f"backend.url={server.url}").code == 0
    (result,) = evalkit.load_results("results")
    assert result.experiment == "backend-tei_limit-2"


def test_an_unknown_model_that_gives_other_figures_is_not_the_same(here: Path) -> None:
    words = ("task=demo-zh", "limit=6", "model=local-cross-encoder", "backend=vllm", "backend.served_model=mine")
    with FakeServer("vllm") as server:
        words = (*words, "cache=off", f"backend.url={server.url}")
        assert run_here(*words).code == 0
        (path,) = Path("results").rglob("EvalkitDemoZh.json")
        before = path.read_bytes()
        answer = server.answer

        def reversed_scores(fake: FakeServer, method: str, place: str, body: Any) -> tuple[int, Any]:
            code, content = answer(fake, method, place, body)
            for one in content.get("data", ()):
                one["score"] = -one["score"]
            return code, content

        server.answer = reversed_scores
        done = run_here(*words)
        assert (done.code, path.read_bytes()) == (2, before)
        assert "may be another model" in done.stderr


@pytest.mark.parametrize("said", [{"seed": 1}, {"dtype": "fp32", "seed": 7}])
def test_a_seed_has_its_own_place_in_python(said: dict[str, Any], here: Path) -> None:
    task = evalkit.load_task("demo-zh2en", limit=3)
    for more in ({}, said):
        evalkit.save_result(evalkit.evaluate(evalkit.load_model("random", **more), task))
    assert len(evalkit.load_results("results")) == 2


def test_a_servers_setting_has_its_own_place_in_python(here: Path) -> None:
    task = evalkit.load_task("demo-zh", limit=2)
    with FakeServer("vllm") as server:
        for more in ({}, {"max_characters": 8}, {"served_model": "other"}):
            model = evalkit.load_model("bge-reranker-base", backend="vllm", server={"url": server.url, **more})
            evalkit.save_result(evalkit.evaluate(model, task, cache="off"))
    assert len(evalkit.load_results("results")) == 3


def test_a_wrapped_objects_settings_are_part_of_it(here: Path) -> None:
    """One identity with another similarity is another system."""
    task = evalkit.load_task("demo-zh2en", limit=3)

    def vectors(texts: list[str]) -> Any:
        return [[len(text), text.count("e"), 1.0] for text in texts]

    for similarity in ("cosine", "dot"):
        model = evalkit.wrap(vectors, kind="embedder", similarity=similarity, identity="mine")
        result = evalkit.evaluate(model, task, cache="off")
        if similarity == "cosine":
            evalkit.save_result(result)
        else:
            with pytest.raises(EvalkitError, match="another object"):
                evalkit.save_result(result)


# --- every setting deviates, or is known to change no figure

CHANGES_NO_FIGURE = {
    "task": {
        "name": "the file's name follows mteb_name or the path; other data of one name are refused by their fingerprint",
    },
    "model": {
        "name": "part of the result's place",
        "path": "part of the revision: the hash of what lies there",
        "kind": "part of a folder's revision, and compared before a result is replaced",
        "object": "part of the result's place",
    },
    "server": {
        "url": "deviates where another address than the backend's own is said",
        "key_variable": "who pays",
        "concurrency": "how fast a server is asked",
        "batch_size": "how many texts a request holds; listwise models get whole lists",
        "timeout": "how long is waited",
        "retries": "how often is asked again",
    },
    "runtime": {
        "device": "an accelerator is compared with the CPU before it scores",
        "threads": "how fast",
        "offline": "where files come from, whose hash or commit is the revision",
        "cache_dir": "where scores are kept, by all that decides them",
        "server": "field by field above",
    },
}
"""Why a setting is no deviation."""


def other_value(value: Any) -> Any:
    """Another value of a setting's kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "another": 1}
    if isinstance(value, list | tuple):
        return [*value, "another"]
    return "another"


@pytest.mark.parametrize("name", ModelSettings.model_fields)
def test_every_setting_of_a_model_deviates_or_changes_no_figure(name: str) -> None:
    own = ModelSettings().model_dump(mode="json")
    found = find_deviations({"model": own | {name: other_value(own[name])}}, {"model": own})
    neutral = name in CHANGES_NO_FIGURE["model"]
    assert bool(found) != neutral, found
    assert (f"model.{name}" in NEUTRAL) == neutral


@pytest.mark.parametrize("name", TaskSettings.model_fields)
def test_every_setting_of_a_task_deviates_or_changes_no_figure(name: str) -> None:
    own = {**TaskSettings.defaults(), "mteb_name": "Some"}
    found = find_deviations({"task": own | {name: other_value(own[name])}}, {"task": own})
    assert bool(found) != (name in CHANGES_NO_FIGURE["task"]), found


@pytest.mark.parametrize("name", ServerSettings.model_fields)
def test_every_setting_of_a_server_deviates_or_changes_no_figure(name: str) -> None:
    own = BackendSettings(name="vllm", server=True).model_dump(mode="json")
    found = find_deviations({"backend": own | {name: other_value(own[name])}}, {"backend": own})
    found.pop("backend")
    assert bool(found) == (name in DECISIVE or name == "url")
    assert (name in DECISIVE) != (name in CHANGES_NO_FIGURE["server"])


def test_every_other_setting_deviates_or_changes_no_figure() -> None:
    """Of Python's `Runtime`, of Ray, and what is said on the command line beside the groups."""
    defaults = default_settings()
    for name, value in defaults.items():
        found = find_deviations({name: other_value(value)}, {name: value})
        assert bool(found) != (name in NEUTRAL), name
    for one in fields(Runtime):
        assert (one.name in CHANGES_NO_FIGURE["runtime"]) != (one.name in ("dtype", "seed")), one.name
    assert set(RaySettings.model_fields) == {"address", "actors", "cpus_per_actor", "gpus_per_actor"}
    assert "ray" in NEUTRAL


# --- two at once


def write_when_told(folder: Path, result: Result, start: Any, answers: Any) -> None:
    start.wait()
    try:
        answers.put(str(write_result(result, folder)))
    except EvalkitError as error:
        answers.put(f"refused: {error}")


def both_at_once(folder: Path, results: list[Result]) -> list[str]:
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(len(results)), context.Queue()
    writers = [context.Process(target=write_when_told, args=(folder, one, start, answers)) for one in results]
    for writer in writers:
        writer.start()
    found = [answers.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join(60)
    return sorted(found, key=lambda answer: answer.startswith("refused"))


def marked(number: int, **other: Any) -> Result:
    """A result whose tables and JSON hold the same number."""
    tables = TablesInMemory(queries.assign(truncated_pairs=number), candidates.assign(score=np.float32(number)))
    return replace(RESULT, tables=tables, config={"number": number}, **other)


def number_of(path: Path) -> int:
    """The number that all three files hold."""
    number: int = json.loads(path.read_bytes())["evalkit"]["config"]["number"]
    assert set(pd.read_parquet(table_of(path, "run"))["score"]) == {number}
    assert set(pd.read_parquet(table_of(path))["truncated_pairs"]) == {number}
    return number


def test_of_two_at_once_on_other_data_one_is_refused(tmp_path: Path) -> None:
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        both = [marked(number, task=replace(RESULT.task, fingerprint=str(number) * 64)) for number in (1, 2)]
        written, refused = both_at_once(folder, both)
        assert refused.startswith("refused: C-MTEB/CMedQAv1-reranking: ")
        assert "on other data" in refused
        kept = json.loads(Path(written).read_bytes())
        assert kept["evalkit"]["task"]["fingerprint"] == str(number_of(Path(written))) * 64
        assert not list(folder.glob(".*"))


def test_many_at_once_of_the_same_result_are_fine(tmp_path: Path) -> None:
    answers = both_at_once(tmp_path, [marked(number) for number in range(6)])
    assert answers == [str(tmp_path / NAME)] * 6
    assert number_of(tmp_path / NAME) in range(6)
    assert not list(tmp_path.glob(".*"))


# --- killed


def write_for_ever(folder: Path, started: Any) -> None:
    for number in count(1):
        write_result(marked(number), folder)
        started.set()


def test_whoever_is_killed_leaves_the_old_result_or_the_new_one(tmp_path: Path) -> None:
    """At random moments, many times, with a reader after each; the next writer leaves nothing of the dead ones."""
    path, generator = write_result(marked(0), tmp_path), random.Random(7)
    context = multiprocessing.get_context("fork")
    left = set()
    for _ in range(60):
        started = context.Event()
        writer = context.Process(target=write_for_ever, args=(tmp_path, started))
        writer.start()
        assert started.wait(60)
        time.sleep(generator.random() * 0.02)
        writer.kill()
        writer.join()
        left |= {one.name for one in tmp_path.glob(".*")}
        (result,) = read_results([tmp_path])
        assert number_of(path) == result.config["number"]
    assert left  # it was killed in the middle of it
    write_result(marked(0), tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("moment", range(12))
def test_killed_at_each_step(moment: int, tmp_path: Path) -> None:
    """The process ends without a word before its n-th change of the file system."""
    path = write_result(marked(0), tmp_path)
    done = os.fork()
    if not done:
        calls = count()

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*arguments: Any, **named: Any) -> Any:
                if next(calls) == moment:
                    os._exit(9)
                return call(*arguments, **named)

            return changed

        for name in ("replace", "rename", "unlink", "mkdir", "rmdir"):
            setattr(Path, name, dying(getattr(Path, name)))
        os.fsync = dying(os.fsync)
        write_result(marked(1), tmp_path)
        os._exit(0)
    _, status = os.waitpid(done, 0)
    (result,) = read_results([tmp_path])
    assert number_of(path) == result.config["number"]
    assert result.config["number"] == 1 or os.waitstatus_to_exitcode(status) == 9
    write_result(marked(2), tmp_path)
    assert number_of(path) == 2
    assert not list(tmp_path.glob(".*"))


def test_a_first_result_that_was_made_but_not_moved_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "org__model" / "r1"
    write_result(marked(1), folder)
    (folder / ".evalkit.ready").mkdir()
    for file in folder.glob("CMed*"):
        file.rename(folder / ".evalkit.ready" / file.name)
    (result,) = read_results([tmp_path])
    assert (result.path, number_of(folder / NAME)) == (folder / NAME, 1)


def test_a_killed_writer_of_a_single_file_leaves_nothing_for_ever(tmp_path: Path) -> None:
    """A report, a card, an entry of the cache."""
    path = tmp_path / "report.md"
    path.write_bytes(b"old")
    for _ in range(20):
        writer = os.fork()
        if not writer:
            for number in count():
                replace_file(path, b"%d" % number * 100_000)
        time.sleep(0.01)
        os.kill(writer, 9)
        os.waitpid(writer, 0)
        assert path.read_bytes() == b"old" or len(set(path.read_bytes())) <= 10
    assert len(list(tmp_path.glob(".*"))) <= 2
    replace_file(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["report.md"]


# --- read


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = ranking_task(40)
    return write_scores(tmp_path_factory.mktemp("made") / "results", task, noisy_scores(task))


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parents[2], tmp_path / "results")
    return tmp_path / "results" / made.relative_to(made.parents[2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row, _: row.update(ndcg_at_10=0.99), ("--metric", "ndcg_at_10")),
        (lambda row, _: row.update(recall_at_1=0.99), ("--metric", "map")),
        (lambda row, _: row.update(map_at_1000=0.99), ("--format", "mteb", "-o", "out")),
        (lambda row, _: row.update(map=0.99), ("--format", "model-index")),
        (lambda row, _: row.update(mrr=0.99), ("--format", "eval-results")),
        (lambda row, _: row.update(hit_rate_at_3=0.0), ("--format", "csv")),
        (lambda _, own: own["ties"]["map"].update(high=0.99), ()),
        (lambda row, _: row.update(map=0.99), ("--published",)),
    ],
)
def test_no_figure_is_reported_that_the_table_does_not_have(
    change: Callable[[Any, Any], None], words: tuple[str, ...], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parents[3])
    change_json(copied, lambda content: change(content["scores"]["test"][0], content["evalkit"]))
    done = run_here("report", "results", *words)
    assert (done.code, done.stdout) == (2, "")
    assert "but its table of queries has the mean" in done.stderr
    assert not Path("out").exists()


def test_a_folder_behind_a_link_is_read(copied: Path, tmp_path: Path) -> None:
    results = copied.parents[2]
    elsewhere = tmp_path / "elsewhere"
    shutil.move(copied.parents[1], elsewhere)
    copied.parents[1].symlink_to(elsewhere)
    assert [one.path for one in read_results([results])] == [copied]
    (elsewhere / "back").symlink_to(results)  # a circle
    (results / "again").symlink_to(elsewhere)  # the same folder, by another name
    assert len(read_results([results])) == 1


def test_a_link_to_a_folder_that_is_there_besides_is_no_second_result(copied: Path) -> None:
    (copied.parents[2] / "a-link").symlink_to(copied.parents[1])
    assert [one.path for one in read_results([copied.parents[2]])] == [copied]


@pytest.mark.parametrize("kind", ["queries", "run"])
@pytest.mark.parametrize("how", ["rows", "values", "text"])
def test_a_small_file_of_huge_content_is_refused_before_it_is_read(
    kind: str, how: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table_of(copied, kind)
    table = pq.read_table(path)
    rows = 5_000_000
    if how == "rows":
        table = pa.table({"query_id": pa.repeat(pa.scalar("q1"), rows).dictionary_encode()})
    elif how == "values":
        lists = pa.ListArray.from_arrays(
            pa.array([0, *[rows] * table.num_rows], pa.int32()), pa.repeat(pa.scalar(1), rows)
        )
        table = table.append_column("unretrieved_gains", lists)
    else:
        table = table.append_column("extra", pa.array(["x" * 200_000_000] + [""] * (table.num_rows - 1)))
    pq.write_table(table, path, compression="zstd")
    del table
    assert path.stat().st_size < 3_000_000

    def unread(*_: object, **__: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(pq.ParquetFile, "read", unread)
    with pytest.raises(EvalkitError, match=r"rows, but the result's data|far more than a result's would"):
        _ = read_result(copied).queries if kind == "queries" else read_result(copied).tables._table("run", ())


# --- speed


def test_a_run_from_the_store_keeps_the_speed_that_was_measured(tiny_reranker: Path, here: Path) -> None:
    words = ("task=demo-zh2en", "limit=3", f"model={tiny_reranker}", "backend=torch", "cache_dir=cache")
    assert run_here(*words).code == 0
    (first,) = evalkit.load_results("results")
    assert first.timing.pairs_per_second > 0
    for _ in range(2):
        done = run_here(*words)
        assert "all from the store" in done.stdout + done.stderr
    (again,) = evalkit.load_results("results")
    assert again.timing.items_from_store == again.usage.items
    for name in ("pairs_per_second", "tokens_per_second", "latency_seconds"):
        assert getattr(again.timing, name) == getattr(first.timing, name) is not None
    assert again.provenance["timestamp"] >= first.provenance["timestamp"]
    change_json(again.path, lambda content: content["evalkit"]["provenance"]["hardware"].update(processor="another"))
    assert run_here(*words).code == 0
    (elsewhere,) = evalkit.load_results("results")
    assert elsewhere.timing.pairs_per_second is None  # what another processor measured is not this one's
    assert run_here(*words, "cache=refresh").code == 0
    (fresh,) = evalkit.load_results("results")
    assert fresh.timing.pairs_per_second > 0
    assert fresh.timing.pairs_per_second != first.timing.pairs_per_second


@pytest.mark.parametrize("model", ["random", "oracle", "constant", "run"])
def test_what_runs_no_model_has_no_speed(model: str, made: Path, here: Path) -> None:
    """1,881,180 pairs/s are the speed of a file."""
    task = ranking_task(40)
    loaded = evalkit.load_model("run", path=table_of(made, "run")) if model == "run" else evalkit.load_model(model)
    timing = evalkit.evaluate(loaded, task).timing
    assert (timing.pairs_per_second, timing.tokens_per_second) == (None, None)
    if model != "run":
        done = run_here("task=demo-zh2en", "limit=3", f"model={model}")
        assert "pairs/s" not in done.stdout + done.stderr
