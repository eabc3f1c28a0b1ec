import io
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import EvalkitError
from evalkit.output.text import OBEYED
from evalkit.records import (
    Candidate,
    Finding,
    ModelIdentity,
    Query,
    Request,
    Task,
    TaskStatistics,
    TieRange,
    Usage,
)
from evalkit.results.folders import experiment_slug, result_folder
from evalkit.results.reading import read_results
from evalkit.results.result import Latency, Result, TablesInMemory, split_usage
from evalkit.results.writing import TIMING_KEYS, result_json, without_timings, write_result

REVISION = "2cfc18c9415c912f9d8155881c133215df768a70"
IDENTITY = ModelIdentity("bge-reranker-base", "BAAI/bge-reranker-base", REVISION, "cross-encoder", "ab" * 32)
LOCAL = ModelIdentity("my-model", "local/my-model", "0123456789ab", "embedder", "cd" * 32)
FILES = {"CMedQAv1-reranking.json", "CMedQAv1-reranking.queries.parquet", "CMedQAv1-reranking.run.parquet"}

requests = tuple(
    Request(
        Query(f"q{number}", (f"问题{number}",)),
        (Candidate(f"d{number}a", "好答案", 1), *(Candidate(f"d{number}b{n}", "坏答案", 0) for n in range(number))),
    )
    for number in range(3)
)
task = Task(
    name="CMedQAv1",
    mteb_name="CMedQAv1-reranking",
    split="test",
    languages=("cmn-Hans",),
    layout="cmteb",
    source="C-MTEB/CMedQAv1-reranking",
    revision="8d7f1e942507dac42dc58017c1a001c3717da7df",
    requests=requests,
    fingerprint="f" * 64,
    statistics=TaskStatistics(3, 6, 3, 0, 1, 9, 18, 3, 2),
    findings=(Finding("warning", "a text is both positive and negative", "dev.parquet", 2, "positive"),),
)
queries = pd.DataFrame(
    {
        "query_id": ["q0", "q1", "q2"],
        "query": ["问题0", "问题1", "问题2"],
        "n_positive": [1, 1, 1],
        "n_candidates": [1, 2, 3],
        "ap": [np.nan, 1.0, 0.5],
        "rr": [np.nan, 1.0, 0.5],
        "map_at_1000": [1.0, 1.0, 0.5],
        "truncated_pairs": [0, 1, 0],
    }
)
candidates = pd.DataFrame(
    {
        "query_id": ["q0", "q1", "q1", "q2", "q2", "q2"],
        "doc_id": ["d0a", "d1a", "d1b0", "d2a", "d2b0", "d2b1"],
        "label": [1, 1, 0, 1, 0, 0],
        "score": np.array([0.5, 2.5, -1.25, 0.125, 3.0, -7.0], np.float32),
        "tokens": [7, 7, 7, 7, 7, 7],
        "truncated": [False, True, False, False, False, False],
        "text": ["好答案", "好答案", "坏答案", "好答案", "坏答案", "坏答案"],
    }
)
usage, timing = split_usage(
    Usage(2.0, 6, items_from_store=3, tokens=42, padding_tokens=6, truncated_items=1, latencies=(0.5, 1.5)), 6
)
RESULT = Result(
    model=IDENTITY,
    task=task.identity,
    protocol="cmteb-v1",
    main_score="map",
    scores={
        "map": 0.75,
        "mrr": 0.75,
        "map_at_1000": np.float64(0.83333),
        "mrr_at_10": 5 / 6,
        "ndcg_at_10": float("nan"),
    },
    intervals={"map": (0.5, 1.0), "ndcg_at_10": (float("nan"), float("inf"))},
    ties={"mrr": TieRange(0.75, 0.5, 1.0)},
    tables=TablesInMemory(queries, candidates),
    usage=usage,
    timing=timing,
    backend={"name": "torch", "dtype": "fp32"},
    config={"limit": None, "model": {"path": Path("权重")}, "cutoffs": (1, 10), "seed": np.int64(42)},
    provenance={"timestamp": "2026-01-01T00:00:00+00:00", "python": "3.11.7"},
)


def repeated(result: Result) -> Result:
    """The same result of another execution: only what the clock and the store decide differs."""
    again = replace(timing, seconds=77.0, items_from_store=0, padding_tokens=900, latency_seconds=Latency(3.0, 3.0))
    return replace(result, timing=again, provenance={**result.provenance, "timestamp": "2027-07-07T07:07:07+00:00"})


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- folders


def test_folders_are_mtebs() -> None:
    results = Path("results")
    assert result_folder(results, IDENTITY, "") == results / "BAAI__bge-reranker-base" / REVISION
    assert result_folder(results, LOCAL, "") == results / "local__my-model" / "0123456789ab"
    experiment = result_folder(results, LOCAL, "dtype-bf16_limit-5")
    assert experiment == results / "local__my-model/0123456789ab/experiments/dtype-bf16_limit-5"
    assert result_folder(results, replace(LOCAL, revision=""), "").name == "no_revision_available"


@pytest.mark.parametrize("hub_id", ["local/..", "local/a:b?", "../../etc", "local/a b\n", "local/模型"])
def test_a_models_name_stays_one_folder(hub_id: str) -> None:
    folder = result_folder(Path("results"), replace(LOCAL, hub_id=hub_id, revision=".."), "")
    assert len(folder.parts) == 3
    assert not re.search(r'[<>:"|?*\\\s]', str(folder))
    assert ".." not in folder.parts


def test_an_experiment_has_the_same_name_once_it_is_read(tmp_path: Path) -> None:
    """Whatever the order in which its settings were said: files hold them sorted."""
    deviations = {"recipes": {"wide": {"max_length": 9, "document_prompt": ""}, "narrow": {}}}
    made = replace(RESULT, deviations=deviations)
    path = write_result(made, result_folder(tmp_path, made.model, made.experiment))
    (read,) = read_results([path])
    assert read.experiment == made.experiment == path.parent.name


@pytest.mark.parametrize(
    ("deviations", "slug"),
    [
        ({"limit": 5}, "limit-5"),
        ({"limit": 5, "dtype": "bf16"}, "dtype-bf16_limit-5"),
        ({"dtype": "bf16", "limit": 5}, "dtype-bf16_limit-5"),
        ({"model.max_length": 512, "trust": True}, "model.max_length-512_trust-true"),
        ({"truncation": "only_second"}, "truncation-only_second_"),
        ({"model.query_prompt": "query: "}, "model.query_prompt-query_"),
        ({"model.query_prompt": "为这个句子生成表示："}, "model.query_prompt--_"),
        ({"backend": "x" * 500}, "backend-" + "x" * 32 + "_"),
    ],
)
def test_slugs_are_readable(deviations: dict[str, object], slug: str) -> None:
    found = experiment_slug(deviations)
    if slug.endswith("_"):
        assert re.fullmatch(re.escape(slug) + "[0-9a-f]{10}", found)
    else:
        assert found == slug


names = st.sampled_from(["limit", "dtype", "max_length", "model.path", "a", "b", "Query"])
texts = st.sampled_from(["5", "true", "null", "a", "A", "a_b-5", "a-b", "b", "./", "..", "", " ", "bf16"]) | st.text(
    max_size=40
)
values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.lists(st.integers(), max_size=3)
)
settings = st.dictionaries(names, values, min_size=1, max_size=7)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two settings are one: 1, 1.0 and true are three values."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


@given(settings, settings)
def test_slugs_differ_where_settings_do_and_hold_on_any_file_system(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    slug = experiment_slug(first)
    assert re.fullmatch(r"[a-z0-9_.+-]{1,140}", slug)
    assert not slug.endswith(".")
    assert slug == experiment_slug(dict(reversed(first.items())))
    assert (slug == experiment_slug(second)) == same(first, second)


def test_slugs_that_only_words_would_confuse_differ() -> None:
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"a": "b_c-d"}, {"a": "b", "c": "d"}),
        ({"a": "5"}, {"a": 5}),
        ({"a": "true"}, {"a": True}),
        ({"a": "X"}, {"a": "x"}),
        ({"a": "query: "}, {"a": "query:"}),
        ({"a": -5}, {"a": 5}),
    ]
    assert not [pair for pair in pairs if experiment_slug(pair[0]).lower() == experiment_slug(pair[1]).lower()]


# --- writing


def test_a_result_is_three_files_and_what_mteb_wants_to_know_of_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "new/folder"
    assert write_result(RESULT, folder) == folder / "CMedQAv1-reranking.json"
    assert set(contents(folder)) == {*FILES, "model_meta.json"}
    mode = (folder / "CMedQAv1-reranking.json").stat().st_mode & 0o777
    assert mode == 0o666 & ~current_umask()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_the_json_holds_all_that_is_known(tmp_path: Path) -> None:
    content = read(write_result(RESULT, tmp_path))
    assert content["dataset_revision"] == task.revision
    assert content["evaluation_time"] == 2.0
    assert content["kg_co2_emissions"] is None
    (scores,) = content["scores"]["test"]
    assert scores == {
        "hf_subset": "default",
        "languages": ["cmn-Hans"],
        "main_score": 0.75,
        "map": 0.75,
        "mrr": 0.75,
        "map_at_1000": 0.83333,
        "mrr_at_10": 5 / 6,
        "ndcg_at_10": None,
    }
    own = content["evalkit"]
    assert own["model"]["weights_hash"] == "ab" * 32
    assert own["task"]["statistics"]["pairs"] == 6
    assert own["task"]["findings"][0]["row"] == 2
    assert "requests" not in own["task"]
    assert own["queries"] == {"scored": 2, "dropped": 1}
    assert own["intervals"] == {"map": [0.5, 1.0], "ndcg_at_10": [None, None]}
    assert own["ties"]["mrr"] == {"expected": 0.75, "low": 0.5, "high": 1.0}
    assert own["usage"] == {"items": 6, "tokens": 42, "truncated_items": 1}
    assert own["timing"]["pairs_per_second"] == 1.5  # half of six pairs were in the store
    assert own["timing"]["latency_seconds"] == {"p50": 1.0, "p95": pytest.approx(1.45)}
    assert own["config"] == {"limit": None, "model": {"path": "权重"}, "cutoffs": [1, 10], "seed": 42}


def test_under_the_other_protocol_its_dropped_queries_count() -> None:
    leading_v2 = replace(RESULT, protocol="mteb-v2", main_score="map_at_1000")
    content = result_json(leading_v2)
    assert content["evalkit"]["queries"] == {"scored": 3, "dropped": 0}
    assert content["scores"]["test"][0]["main_score"] == 0.83333


def test_the_json_is_strict_sorted_and_readable(tmp_path: Path) -> None:
    text = write_result(RESULT, tmp_path).read_text(encoding="utf-8")
    assert "权重" in text
    assert "NaN" not in text
    assert "Infinity" not in text
    assert text == json.dumps(json.loads(text), ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    content = read(write_result(replace(RESULT, config={"path": odd}), tmp_path))
    assert content["evalkit"]["config"]["path"] == odd


def test_what_a_terminal_obeys_is_escaped_and_read_back(tmp_path: Path) -> None:
    odd = "a\x1bb\x9bc\u202ed\u2066e\x7ff"
    path = write_result(replace(RESULT, config={"name": odd}), tmp_path)
    assert not OBEYED.search(path.read_text(encoding="utf-8"))
    assert read(path)["evalkit"]["config"]["name"] == odd


@pytest.mark.parametrize(("provenance", "version"), [({}, None), ({"packages": {"mteb": "1.38.2"}}, "1.38.2")])
def test_the_version_of_mteb_is_the_runs_own(provenance: dict[str, Any], version: str | None) -> None:
    assert result_json(replace(RESULT, provenance=provenance))["mteb_version"] == version


def test_an_unpinned_dataset_has_a_string_for_its_revision() -> None:
    assert result_json(replace(RESULT, task=replace(RESULT.task, revision="")))["dataset_revision"] == "unpinned"


@pytest.mark.parametrize("with_texts", [False, True])
def test_the_tables_come_back_as_they_were(tmp_path: Path, with_texts: bool) -> None:
    write_result(RESULT, tmp_path, with_texts=with_texts)
    for name, table, text in (("queries", queries, "query"), ("run", candidates, "text")):
        read = pd.read_parquet(tmp_path / f"CMedQAv1-reranking.{name}.parquet")
        pd.testing.assert_frame_equal(read, table if with_texts else table.drop(columns=text))
    raw = b"".join(contents(tmp_path).values())
    assert ("好答案".encode() in raw) == with_texts


def test_only_wanted_columns_are_read_from_a_table(tmp_path: Path) -> None:
    write_result(RESULT, tmp_path)
    schema = pq.read_schema(tmp_path / "CMedQAv1-reranking.run.parquet")
    assert str(schema.field("score").type) == "float"
    assert schema.metadata is None


def test_equal_results_are_equal_files_but_for_the_timings(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_result(RESULT, first)
    shuffled = replace(repeated(RESULT), scores=dict(reversed(RESULT.scores.items())))
    write_result(shuffled, second)
    written, again = contents(first), contents(second)
    assert {name for name in written if written[name] != again[name]} == {"CMedQAv1-reranking.json"}
    one, other = (read(folder / "CMedQAv1-reranking.json") for folder in (first, second))
    assert one != other
    assert without_timings(one) == without_timings(other)
    assert (one["evaluation_time"], one["evalkit"]["timing"]["seconds"]) == (2.0, 2.0)  # only the copy was stripped


def test_files_do_not_depend_on_the_process(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_result(RESULT, here)
    code = f"import test_results as t; t.write_result(t.RESULT, t.Path({str(there)!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert contents(here) == contents(there)


def test_without_timings_keeps_every_other_difference() -> None:
    plain = without_timings(result_json(RESULT))
    for changed in (
        replace(RESULT, scores={**RESULT.scores, "map": 0.7500001}),
        replace(RESULT, config={}),
        replace(RESULT, provenance={**RESULT.provenance, "python": "3.12.0"}),
        replace(RESULT, usage=replace(RESULT.usage, tokens=43)),
    ):
        assert without_timings(result_json(changed)) != plain
    for *parents, key in TIMING_KEYS:
        holder = result_json(RESULT)
        for parent in parents:
            holder = holder[parent]
        assert key in holder


# --- what interrupts a write


def test_a_full_disk_leaves_the_older_result_whole(tmp_path: Path) -> None:
    write_result(RESULT, tmp_path)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(EvalkitError) as raised:
            write_result(replace(RESULT, scores={"map": 0.1, "mrr": 0.1}), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(raised.value)
    assert "results_dir=" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_an_interrupt_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    calls = count(1)

    def interrupted(descriptor: int) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_result(RESULT, tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_no_interrupt_leaves_a_json_beside_tables_of_another_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    tables = TablesInMemory(queries.assign(truncated_pairs=9), candidates.assign(score=np.float32(9)))
    newer_result = replace(RESULT, tables=tables, config={"number": 9})
    folder = tmp_path / "results"
    write_result(newer_result, folder)
    newer = contents(folder)
    path = write_result(RESULT, folder)
    (folder / "model_meta.json").unlink()  # so that four files change
    older, rename, calls = contents(folder), Path.replace, count(1)

    def interrupted(source: Path, target: Path) -> Path:
        if next(calls) == call:
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_result(newer_result, folder)
    assert path.exists()
    assert contents(folder) in (older, newer)
    assert not list(folder.glob(".*"))


def write_for_ever(folder: Path) -> None:
    for number in count():
        table = candidates.assign(score=np.float32(number))
        write_result(replace(RESULT, tables=TablesInMemory(queries, table), config={"number": number}), folder)


def test_a_killed_writer_never_leaves_a_json_beside_other_tables(tmp_path: Path) -> None:
    seen = set()
    for attempt in range(12):
        writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(tmp_path,))
        writer.start()
        path = tmp_path / "CMedQAv1-reranking.json"
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:  # the writer is at work, however slow the machine is
            time.sleep(0.001)
        time.sleep(attempt * 0.0037)
        writer.kill()
        writer.join()
        if path.exists():
            number = read(path)["evalkit"]["config"]["number"]
            scores = pd.read_parquet(io.BytesIO((tmp_path / "CMedQAv1-reranking.run.parquet").read_bytes()))["score"]
            assert set(scores) == {number}
            seen.add(number)
    assert seen


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file", encoding="utf-8")
    with pytest.raises(EvalkitError, match=r"cannot write the result to .*results.*results_dir=DIR"):
        write_result(RESULT, result_folder(tmp_path / "results", IDENTITY, ""))


# --- mteb reads them


def test_mteb_reads_a_result_from_disk(tmp_path: Path) -> None:
    from mteb.results import TaskResult

    loaded = TaskResult.from_disk(write_result(RESULT, tmp_path), load_historic_data=False)
    assert loaded.task_name == "CMedQAv1-reranking"
    assert loaded.get_score() == 0.75
    assert loaded.scores["test"][0]["mrr_at_10"] == 5 / 6
    assert loaded.languages == ["cmn"]
    assert loaded.task.metadata.name == "CMedQAv1-reranking"
    assert TaskResult.from_disk(tmp_path / "CMedQAv1-reranking.json").get_score() == 0.75


def test_mtebs_results_loader_reads_the_folder_and_keeps_experiments_apart(tmp_path: Path) -> None:
    from mteb.cache import ResultCache

    results = tmp_path / "results"
    write_result(RESULT, result_folder(results, IDENTITY, ""))
    other = replace(RESULT.task, name="T2Reranking", mteb_name="T2Reranking", split="dev")
    write_result(replace(RESULT, task=other), result_folder(results, IDENTITY, ""))
    small = replace(RESULT, scores={**RESULT.scores, "map": 0.25}, deviations={"limit": 5})
    write_result(small, result_folder(results, IDENTITY, small.experiment))
    write_result(replace(RESULT, model=LOCAL), result_folder(results, LOCAL, ""))
    loaded = ResultCache(tmp_path).load_results(include_remote=False)
    found = {(model.model_name, model.model_revision): model for model in loaded.model_results}
    assert set(found) == {("BAAI/bge-reranker-base", REVISION), ("local/my-model", "0123456789ab")}
    base = found["BAAI/bge-reranker-base", REVISION]
    assert {result.task_name: result.get_score() for result in base.task_results} == {
        "CMedQAv1-reranking": 0.75,
        "T2Reranking": 0.75,
    }
    everything = ResultCache(tmp_path).load_results(include_remote=False, load_experiments="match_name")
    names = {model.experiment_name for model in everything.model_results}
    assert names == {None, "settings_limit-5"}


def test_mteb_accepts_what_is_said_of_the_model(tmp_path: Path) -> None:
    from mteb.models.model_meta import ModelMeta

    for identity, deviations in ((IDENTITY, {}), (LOCAL, {"limit": 5})):
        result = replace(RESULT, model=identity, deviations=deviations)
        folder = result_folder(tmp_path, identity, result.experiment)
        write_result(result, folder)
        meta = ModelMeta.model_validate_json_resolved((folder / "model_meta.json").read_bytes())
        assert (meta.name, meta.revision) == (identity.hub_id, identity.revision)
        assert meta.is_cross_encoder == (identity.kind == "cross-encoder")


# --- light to import


@pytest.mark.parametrize(
    "module", ["results.writing", "results.reading", "results.folders", "results.published", "report.summary"]
)
def test_readers_of_results_load_nothing_heavy(module: str) -> None:
    code = f"import sys, evalkit.{module}; print([m for m in ('torch', 'transformers', 'mteb', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
